"""Series-level measures against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification as tm

from raypipe.errors import ConfigError
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import DetectionEvaluation, evaluate_detection
from raypipe.evaluate.measures import MACRO, MICRO
from raypipe.evaluate.records import Claim, ClaimSeries, TruthSeries
from raypipe.geometry import Box

LABELS = ("cyst", "normal", "stone", "tumor")


def scores(seed: int, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, n)
    score = rng.dirichlet(np.ones(4), n) + 0.35 * np.eye(4)[truth]
    return truth, score / score.sum(axis=1, keepdims=True)


def evaluated(truth: np.ndarray, score: np.ndarray, mode: str) -> DetectionEvaluation:
    truths = [
        TruthSeries(series_key=str(i), image_labels=dict(zip(LABELS, map(bool, row), strict=True)))
        for i, row in enumerate(truth)
    ]
    claims = [
        ClaimSeries(series_key=str(i), image_scores=dict(zip(LABELS, map(float, row), strict=True)))
        for i, row in enumerate(score)
    ]
    config = DetectionEvaluationConfig(image_mode=mode, bootstrap=0)  # type: ignore[arg-type]
    return evaluate_detection(truths, claims, config)


@pytest.mark.parametrize("seed", range(3))
def test_single_label_equals_torchmetrics(seed: int) -> None:
    truth, score = scores(seed)
    result = evaluated(np.eye(4)[truth], score, "single")
    target, prediction = torch.tensor(truth), torch.tensor(score)
    accuracy = tm.multiclass_accuracy(prediction, target, 4, average="micro")
    assert result.measure("image", "exact_match", MICRO).value == pytest.approx(float(accuracy))
    for name, metric in (
        ("precision", tm.multiclass_precision),
        ("recall", tm.multiclass_recall),
        ("f1", tm.multiclass_f1_score),
        ("auc_roc", tm.multiclass_auroc),
    ):
        own = result.measure("image", name, MACRO).value
        assert own == pytest.approx(float(metric(prediction, target, 4, average="macro"))), name
    assert result.confusion is not None
    expected = tm.multiclass_confusion_matrix(prediction, target, 4)
    assert np.array_equal(result.confusion.counts, expected.numpy())
    ece = tm.multiclass_calibration_error(prediction, target, 4, n_bins=10)
    own = result.measure("image_calibration", "ece", MICRO).value
    assert own == pytest.approx(float(ece), abs=1e-6)


def test_multilabel_equals_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((150, 4)) < 0.3
    score = np.clip(rng.normal(0.35 + 0.3 * truth, 0.25), 0, 1)
    result = evaluated(truth, score, "multilabel")
    target, prediction = torch.tensor(truth, dtype=torch.long), torch.tensor(score)
    for average, label in (("macro", MACRO), ("micro", MICRO)):
        for name, metric in (
            ("accuracy", tm.multilabel_accuracy),
            ("precision", tm.multilabel_precision),
            ("recall", tm.multilabel_recall),
            ("specificity", tm.multilabel_specificity),
            ("f1", tm.multilabel_f1_score),
        ):
            own = result.measure("image", name, label).value
            assert own == pytest.approx(float(metric(prediction, target, 4, average=average)))
    each = tm.multilabel_auroc(prediction, target, 4, average=None)
    for j, label in enumerate(LABELS):
        own = result.measure("image", "auc_roc", label).value
        assert own == pytest.approx(float(each[j]))
    assert result.confusion is None


def test_unknown_labels_take_no_part() -> None:
    truths = [
        TruthSeries(series_key="a", image_labels={"cyst": True}),
        TruthSeries(series_key="b", image_labels={"cyst": False, "stone": True}),
    ]
    claims = [ClaimSeries(series_key=k, image_scores={"cyst": 0.9, "stone": 0.9}) for k in "ab"]
    result = evaluate_detection(truths, claims, DetectionEvaluationConfig(bootstrap=0))
    stone = result.measure("image", "accuracy", "stone")
    assert (stone.value, stone.support) == (1.0, 1)
    assert result.measure("image", "accuracy", "cyst").value == 0.5
    assert result.measure("image", "exact_match", MICRO).value == 0.5


def test_curves_leave_out_unknown_labels() -> None:
    """Without the unknown series, which scores highest, the ranking is perfect."""
    known = {"a": True, "b": False}
    truths = [TruthSeries(series_key=k, image_labels={"cyst": v}) for k, v in known.items()]
    truths.append(TruthSeries(series_key="c", image_labels={"stone": True}))
    scores = {"a": 0.6, "b": 0.3, "c": 0.9}
    claims = [ClaimSeries(series_key=k, image_scores={"cyst": s}) for k, s in scores.items()]
    result = evaluate_detection(truths, claims, DetectionEvaluationConfig(bootstrap=0))
    for name in ("auc_roc", "ap"):
        assert result.measure("image", name, "cyst").value == 1.0


def test_series_without_a_score_of_its_own_has_that_of_its_best_claim() -> None:
    where = Box(lower_zyx=(0, 0, 0), upper_zyx=(1, 1, 1))
    claims = tuple(Claim(label="cyst", box_zyx=where, score=s) for s in (0.2, 0.7))
    series = ClaimSeries(series_key="a", claims=claims, image_scores={"stone": 0.4})
    assert series.image_score("cyst") == 0.7
    assert series.image_score("stone") == 0.4
    assert series.image_score("tumor") == 0.0


def test_single_claims_nothing_where_nothing_was_handed_in() -> None:
    truths = [
        TruthSeries(series_key=k, image_labels={"cyst": k == "a", "stone": k != "a"}) for k in "abc"
    ]
    claims = [ClaimSeries(series_key="b", image_scores={"cyst": 0.4, "stone": 0.6})]
    config = DetectionEvaluationConfig(image_mode="single", bootstrap=0)
    result = evaluate_detection(truths, claims, config)
    assert result.series_without_claims == 2
    assert result.measure("image", "recall", "cyst").value == 0.0
    assert result.measure("image", "exact_match", MICRO).value == pytest.approx(1 / 3)
    assert result.confusion is not None and result.confusion.counts == ((0, 0), (0, 1))


def test_single_needs_one_label_a_series() -> None:
    truths = [TruthSeries(series_key="a", image_labels={"cyst": False, "stone": False})]
    config = DetectionEvaluationConfig(image_mode="single", bootstrap=0)
    with pytest.raises(ConfigError, match="exactly one"):
        evaluate_detection(truths, [], config)
