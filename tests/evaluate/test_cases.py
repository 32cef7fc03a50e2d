"""Cases are chosen by rule, whatever the order of the series."""

from raypipe.evaluate.cases import case_kinds, choose_cases, choose_lesion, what_went_wrong
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


def test_kinds_are_thirds_by_lesions_apart_from_edge_cases() -> None:
    truths = [
        series("a", 5), series("b", 1), series("c", 3), series("d", 2), series("e", 4),
        series("f", 6), series("empty", 0), series("faint", 2, subtle=True), series("tilted", 1),
    ]  # fmt: skip
    kinds = case_kinds(truths, {"tilted"}, CONFIG)
    assert {k for k, kind in kinds.items() if kind == "edge"} == {"empty", "faint", "tilted"}
    assert {k for k, kind in kinds.items() if kind == "simple"} == {"b", "d"}
    assert {k for k, kind in kinds.items() if kind == "complex"} == {"a", "f"}
    assert case_kinds(truths[:1], (), CONFIG) == {"a": "simple"}


def test_the_median_of_a_kind_is_shown() -> None:
    truths = [series(key, 0) for key in "abcde"]
    false = {"a": 0, "b": 3, "c": 1, "d": 0, "e": 2}
    claims = [
        ClaimSeries(
            series_key=key,
            claims=tuple(Claim(label="cyst", box_zyx=box(0, 0, 0), score=0.5) for _ in range(n)),
        )
        for key, n in false.items()
        if key != "d"
    ]
    chosen = choose_cases(truths, claims, (), CONFIG)
    assert chosen == {"edge": "e"}  # agreement 1, 0, 0, 1, 0: the third of b, c, e, a, d
    assert choose_cases(truths[::-1], claims[::-1], (), CONFIG) == chosen
    three = [series(key, 3) for key in "abc"]
    hits = choose_cases(three, [found(three[2], 3)], (), CONFIG)
    assert hits == {"simple": "a", "moderate": "b", "complex": "c"}
    assert choose_cases(three, [], {"a", "b", "c"}, CONFIG) == {"edge": "b"}


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
