"""Intervals, comparisons of two systems, thresholds for a checkpoint."""

from dataclasses import replace

import numpy as np
import pytest

from raypipe.errors import ConfigError
from raypipe.evaluate.bootstrap import intervals, resamples
from raypipe.evaluate.comparison import compare_detection
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import DetectionEvaluation, evaluate_detection
from raypipe.evaluate.matching import FloatArray
from raypipe.evaluate.measures import MACRO, MICRO, Key, Value, Values
from raypipe.evaluate.records import ClaimSeries, TruthSeries
from tests.evaluate.cohorts import perfect, random_cohort

FEW = DetectionEvaluationConfig(bootstrap=60)


def test_interval_of_a_mean_is_the_normal_one() -> None:
    x = np.random.default_rng(0).normal(5.0, 2.0, 400)
    key = Key("box", "mean", "x")

    def mean(weight: FloatArray) -> Values:
        return {key: Value(float(np.average(x, weights=weight)), 400)}

    low, high = intervals(mean, resamples(range(400), 3000, 1), 0.95)[key]
    half = 1.96 * x.std() / 20
    assert low == pytest.approx(x.mean() - half, abs=0.03)
    assert high == pytest.approx(x.mean() + half, abs=0.03)


def test_series_of_one_cluster_are_drawn_together() -> None:
    draws = list(resamples(["p", "q", "p", "r"], 50, 0))
    assert all(w[0] == w[2] for w in draws)
    assert all(w[0] + w[1] + w[3] == 3 for w in draws)
    assert {w[1] for w in draws} > {0.0, 1.0}
    assert not list(resamples(["p", "p"], 50, 0))


def test_result_is_reproducible_and_survives_json() -> None:
    truths, claims = random_cohort(0)
    first, second = (evaluate_detection(truths, claims, FEW) for _ in range(2))
    assert first == second
    assert DetectionEvaluation.model_validate_json(first.model_dump_json()) == first
    ap = first.measure("box", "ap", MACRO, iou=0.5)
    assert ap.low is not None
    assert ap.low < ap.value < ap.high  # type: ignore[operator]
    other = evaluate_detection(truths, claims, FEW.model_copy(update={"seed": 1}))
    assert other.measure("box", "ap", MACRO, iou=0.5).low != ap.low
    with pytest.raises(KeyError):
        first.measure("box", "ap", "unheard_of", iou=0.5)


def test_patients_widen_the_interval() -> None:
    """Ten copies of each series as one patient: as wide as before, not narrower."""
    truths, claims = random_cohort(2, series=12)
    copies = [
        replace(t, series_key=f"{t.series_key}-{i}", cluster_key=t.series_key)
        for t in truths
        for i in range(10)
    ]
    copied = [replace(s, series_key=f"{s.series_key}-{i}") for s in claims for i in range(10)]
    config = DetectionEvaluationConfig(bootstrap=200)
    one = evaluate_detection(truths, claims, config).measure("box", "recall", MICRO, iou=0.5)
    ten = evaluate_detection(copies, copied, config).measure("box", "recall", MICRO, iou=0.5)
    assert (one.low, one.high) == (ten.low, ten.high)


def test_identical_systems_do_not_differ_and_better_ones_do() -> None:
    truths, claims = random_cohort(4)
    same = compare_detection(truths, [claims], [claims, claims], FEW)
    assert same
    assert all(d.difference in (0.0, None) for d in same)
    better = compare_detection(truths, [claims], [perfect(truths)], FEW)
    ap = next(d for d in better if (d.name, d.label, d.iou) == ("ap", MACRO, 0.5) and not d.group)
    assert ap.low is not None
    assert ap.low > 0
    assert ap.above_zero == 1.0
    assert ap.difference == pytest.approx(ap.second - ap.first)  # type: ignore[operator]


def test_runs_are_averaged() -> None:
    truths, claims = random_cohort(5)
    nothing = [ClaimSeries(series_key=t.series_key) for t in truths]
    config = DetectionEvaluationConfig(bootstrap=0)
    differences = compare_detection(truths, [claims, nothing], [claims], config)
    recall = next(d for d in differences if (d.level, d.name, d.label) == ("box", "recall", MICRO))
    assert recall.first == pytest.approx(recall.second / 2)  # type: ignore[operator]
    assert recall.low is None


def test_what_cannot_be_evaluated_is_refused() -> None:
    truths, claims = random_cohort(0)
    with pytest.raises(ConfigError, match="at least one series"):
        evaluate_detection([], [])
    with pytest.raises(ConfigError, match="label"):
        evaluate_detection([TruthSeries(series_key="a")], [])
    with pytest.raises(ConfigError, match="exactly one slice"):
        evaluate_detection(truths, claims, DetectionEvaluationConfig(boxes="slice"))
    with pytest.raises(ConfigError, match="at least one run"):
        compare_detection(truths, [], [claims])
    with pytest.raises(ValueError, match="rises strictly"):
        DetectionEvaluationConfig(iou_thresholds=(0.5, 0.1))


def test_a_label_without_lesions_has_no_ap_but_counts_its_false_positives() -> None:
    truths, claims = random_cohort(6)
    bare = [replace(t, lesions=tuple(x for x in t.lesions if x.label != "cyst")) for t in truths]
    result = evaluate_detection(bare, claims, DetectionEvaluationConfig(bootstrap=5))
    assert result.measure("box", "ap", "cyst", iou=0.5).value is None
    macro = result.measure("box", "ap", MACRO, iou=0.5).value
    others = [result.measure("box", "ap", n, iou=0.5).value for n in ("nodule", "stone")]
    assert macro == pytest.approx(np.mean(others))  # type: ignore[arg-type]
    assert result.measure("box", "false_positives", "cyst", iou=0.5).value > 0  # type: ignore[operator]
