"""Cases are chosen by rule, whatever the order of the series."""

import pytest

from raypipe.evaluate.cases import case_kind, choose_cases, choose_lesion, what_went_wrong
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.confusion import Pair
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from tests.evaluate.cohorts import box

CONFIG = DetectionEvaluationConfig(bootstrap=0, match_iou=0.3, threshold=0.0)


def series(key: str, lesions: int, *, subtle: bool = False) -> TruthSeries:
    return TruthSeries(
        series_key=key,
        lesions=tuple(
            TruthLesion(label="cyst", box_zyx=box(0, 20.0 * i, 0), diameter_mm=10.0, subtle=subtle)
            for i in range(lesions)
        ),
    )


def found(truth: TruthSeries, number: int) -> ClaimSeries:
    return ClaimSeries(
        series_key=truth.series_key,
        claims=tuple(
            Claim(label="cyst", box_zyx=lesion.box_zyx, score=0.5)
            for lesion in truth.lesions[:number]
        ),
    )


@pytest.mark.parametrize(
    ("truth", "repaired", "kind"),
    [
        (series("a", 1), False, "simple"),
        (series("a", 3), False, "moderate"),
        (series("a", 4), False, "complex"),
        (series("a", 4), True, "edge"),
        (series("a", 2, subtle=True), False, "edge"),
        (series("a", 0), False, "edge"),
    ],
)
def test_kinds(truth: TruthSeries, repaired: bool, kind: str) -> None:
    assert case_kind(truth, repaired, CONFIG) == kind


def test_the_median_of_a_kind_is_shown() -> None:
    truths = [series(key, 3) for key in "abcde"] + [series("x", 5)]
    hits = {"a": 3, "b": 0, "c": 1, "d": 3, "e": 2, "x": 0}
    claims = [found(truth, hits[truth.series_key]) for truth in truths if truth.series_key != "b"]
    chosen = choose_cases(truths, claims, (), CONFIG)
    assert chosen == {"moderate": "e", "complex": "x"}
    assert choose_cases(truths[::-1], claims[::-1], (), CONFIG) == chosen
    assert choose_cases(truths, claims, {"x"}, CONFIG) == {"moderate": "e", "edge": "x"}


def test_the_lesion_of_median_diameter() -> None:
    truths = [
        TruthSeries(
            series_key=key,
            lesions=(TruthLesion(label="cyst", box_zyx=box(0, 0, 0), diameter_mm=d),),
        )
        for key, d in (("a", 9.0), ("b", 30.0), ("c", 5.0))
    ]
    chosen = choose_lesion(truths, "cyst")
    assert chosen is not None and chosen[0].series_key == "a"
    assert choose_lesion(truths, "stone") is None


def test_what_went_wrong() -> None:
    cyst = TruthLesion(label="renal_cyst", box_zyx=box(0, 0, 0))
    claims = {k: Claim(label=k, box_zyx=box(0, 0, 0), score=0.5) for k in ("renal_cyst", "stone")}
    pairs = [
        Pair(cyst, None), Pair(cyst, None), Pair(cyst, claims["stone"]), Pair(None, claims["stone"])
    ]  # fmt: skip
    assert what_went_wrong(pairs) == "Missed: renal cyst (2). Mistaken: renal cyst as stone. " + (
        "False: stone."
    )
    assert what_went_wrong([Pair(cyst, claims["renal_cyst"])]) == "Nothing missed, nothing false."
