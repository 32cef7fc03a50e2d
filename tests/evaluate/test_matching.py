"""Which claim finds which lesion."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.errors import ConfigError
from raypipe.evaluate.matching import by_series, greedy_match, overlaps, pairwise_iou, pool
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from raypipe.geometry import Box
from tests.evaluate.cohorts import box, random_cohort

corner = st.tuples(*[st.floats(0, 20)] * 3)
extent = st.tuples(*[st.floats(0.5, 20)] * 3)


@settings(max_examples=30)
@given(st.lists(st.tuples(corner, extent), min_size=2, max_size=5))
def test_pairwise_iou_is_the_iou_of_boxes(parts: list[tuple[tuple[float, ...], ...]]) -> None:
    boxes = [
        Box(lower_zyx=lo, upper_zyx=tuple(a + b for a, b in zip(lo, size, strict=True)))  # type: ignore[arg-type]
        for lo, size in parts
    ]
    array = np.array([(b.lower_zyx, b.upper_zyx) for b in boxes])
    iou = pairwise_iou(array, array)
    for i, first in enumerate(boxes):
        for j, second in enumerate(boxes):
            assert iou[i, j] == pytest.approx(first.iou(second), abs=1e-9)


def test_better_claims_choose_first() -> None:
    iou = np.array([[0.6, 0.7], [0.9, 0.8], [0.9, 0.9]])
    assert greedy_match(iou, 0.5).tolist() == [1, 0, -1]
    assert greedy_match(iou, 0.75).tolist() == [-1, 0, 1]
    assert greedy_match(iou, 0.95).tolist() == [-1, -1, -1]


def test_matches_above_a_threshold_do_not_depend_on_claims_below() -> None:
    truths, claims = random_cohort(11)
    for label in ("cyst", "nodule"):
        parts = [[], []]
        for floor, part in zip((0.0, 0.5), parts, strict=True):
            for t, s in zip(truths, claims, strict=True):
                lesions = [le for le in t.lesions if le.label == label]
                kept = [c for c in s.claims if c.label == label and c.score >= floor]
                part.append(overlaps(kept, lesions, [False] * len(lesions)))
        whole, cut = (pool(part, 0.3) for part in parts)
        above = whole.score >= 0.5
        assert above.sum() == len(cut.score) > 0
        assert np.array_equal(whole.hit[above], cut.hit)
        assert np.array_equal(whole.found[above], cut.found)


def test_lesions_that_are_left_out_take_their_claims_along() -> None:
    lesions = [TruthLesion(label="cyst", box_zyx=box(0, 0, 40.0 * i)) for i in range(3)]
    found = [
        Claim(label="cyst", box_zyx=le.box_zyx, score=0.9 - 0.1 * i) for i, le in enumerate(lesions)
    ]
    miss = Claim(label="cyst", box_zyx=box(0, 90, 0), score=0.75)
    matches = pool([overlaps([*found, miss], lesions, [True, False, True])], 0.5)
    only = matches.only(matches.subtle)
    assert only.score.tolist() == pytest.approx([0.9, 0.75, 0.7])
    assert only.hit.tolist() == [True, False, True]
    assert only.found.tolist() == [0, -1, 1]
    assert only.lesion_score.tolist() == pytest.approx([0.9, 0.7])
    others = matches.only(~matches.subtle)
    assert others.hit.tolist() == [True, False]
    assert others.found.tolist() == [0, -1]


def test_series_are_paired_by_key() -> None:
    truths = [TruthSeries(series_key=k) for k in "abc"]
    ordered, missing = by_series(truths, [ClaimSeries(series_key=k) for k in "ca"])
    assert [s.series_key for s in ordered] == ["a", "b", "c"]
    assert missing == 1
    with pytest.raises(ConfigError, match="no truth"):
        by_series(truths, [ClaimSeries(series_key="d")])
    with pytest.raises(ConfigError, match="once"):
        by_series([*truths, truths[0]], [])


def test_records_refuse_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="score"):
        Claim(label="cyst", box_zyx=box(0, 0, 0), score=1.5)
    with pytest.raises(ValueError, match="probability"):
        Claim(label="cyst", box_zyx=box(0, 0, 0), score=0.5, probability=-0.1)
    with pytest.raises(ValueError, match="one slice"):
        TruthLesion(label="cyst", box_zyx=box(0, 0, 0), slice_boxes_zyx=(box(0, 0, 0),))
    with pytest.raises(ValueError, match="diameter_mm"):
        TruthLesion(label="cyst", box_zyx=box(0, 0, 0), diameter_mm=0.0)
    with pytest.raises(ValueError, match="image score"):
        ClaimSeries(series_key="a", image_scores={"cyst": 2.0})
