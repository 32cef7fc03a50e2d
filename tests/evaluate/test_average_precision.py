"""AP against COCO's own implementation, and what must hold for every cohort."""

import contextlib
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import evaluate_detection
from raypipe.evaluate.measures import MACRO, MICRO
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from tests.evaluate.cohorts import LABELS, box, cohorts, perfect, random_cohort

PLAIN = DetectionEvaluationConfig(bootstrap=0)
PROPERTIES = settings(max_examples=30)
Cohort = tuple[list[TruthSeries], list[ClaimSeries]]


def ap(truths: list[TruthSeries], claims: list[ClaimSeries], label: str = MACRO) -> float | None:
    return evaluate_detection(truths, claims, PLAIN).measure("box", "ap", label, iou=0.5).value


def coco_ap(truths: list[TruthSeries], claims: list[ClaimSeries]) -> dict[str, float]:
    """COCOeval's mean AP: over IoU 0.5 to 0.95, at 0.5, at 0.75."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def place(b: object) -> list[float]:
        (_, y0, x0), (_, y1, x1) = b.lower_zyx, b.upper_zyx  # type: ignore[attr-defined]
        return [x0, y0, x1 - x0, y1 - y0]

    lesions = [
        {"image_id": i, "category_id": LABELS.index(le.label), "bbox": place(le.box_zyx)}
        for i, t in enumerate(truths)
        for le in t.lesions
    ]
    boxes = [
        {
            "image_id": i,
            "category_id": LABELS.index(c.label),
            "bbox": place(c.box_zyx),
            "score": c.score,
        }
        for i, s in enumerate(claims)
        for c in s.claims
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "images": [{"id": i} for i in range(len(truths))],
            "categories": [{"id": i} for i in range(len(LABELS))],
            "annotations": [
                {**le, "id": n + 1, "iscrowd": 0, "area": le["bbox"][2] * le["bbox"][3]}
                for n, le in enumerate(lesions)
            ],
        }
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(boxes), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return {"mean": run.stats[0], "0.5": run.stats[1], "0.75": run.stats[2]}


@pytest.mark.parametrize("seed", range(8))
def test_ap_equals_pycocotools(seed: int) -> None:
    truths, claims = random_cohort(seed, flat=True)
    config = DetectionEvaluationConfig(
        boxes="slice", iou_thresholds=(0.5, 0.75), coco_mean=True, bootstrap=0, labels=LABELS
    )
    ours = evaluate_detection(truths, claims, config)
    theirs = coco_ap(truths, claims)
    assert 0.05 < theirs["0.5"] < 0.95  # a cohort on which the two could disagree
    for iou in (0.5, 0.75):
        own = ours.measure("box", "ap", MACRO, iou=iou).value
        assert own == pytest.approx(theirs[f"{iou:g}"], abs=1e-9)
    assert ours.measure("box", "ap_coco", MACRO).value == pytest.approx(theirs["mean"], abs=1e-9)


@pytest.mark.parametrize("interpolation", ["coco", "area"])
def test_ap_by_hand(interpolation: str) -> None:
    """Hit, miss, hit of 3 lesions: recall 1/3 at precision 1, recall 2/3 at precision 2/3."""
    truths = [
        TruthSeries(
            series_key="a",
            lesions=tuple(TruthLesion(label="cyst", box_zyx=box(0, 0, x)) for x in (0, 50, 100)),
        )
    ]
    found = [(box(0, 0, 0), 0.9), (box(0, 99, 0), 0.8), (box(0, 0, 50), 0.7)]
    claims = [
        ClaimSeries(
            series_key="a",
            claims=tuple(Claim(label="cyst", box_zyx=b, score=s) for b, s in found),
        )
    ]
    config = DetectionEvaluationConfig(bootstrap=0, interpolation=interpolation)  # type: ignore[arg-type]
    value = evaluate_detection(truths, claims, config).measure("box", "ap", "cyst", iou=0.5).value
    expected = {"area": 1 / 3 + 2 / 9, "coco": (34 + 33 * 2 / 3) / 101}[interpolation]
    assert value == pytest.approx(expected)


def test_subtle_lesions_are_judged_apart() -> None:
    """Claims on plain lesions are no false positives for the subtle ones, and the reverse."""
    truths, _ = random_cohort(3)
    subtle = [
        replace(t, lesions=tuple(replace(le, subtle=le.diameter_mm < 12) for le in t.lesions))  # type: ignore[operator]
        for t in truths
    ]
    everything = evaluate_detection(subtle, perfect(subtle), PLAIN)
    for group in ("subtle", "not subtle"):
        assert everything.measure("box", "ap", MACRO, iou=0.5, group=group).value == 1.0
    only_subtle_found = [
        replace(s, claims=tuple(c for c, le in zip(s.claims, t.lesions, strict=True) if le.subtle))
        for s, t in zip(perfect(subtle), subtle, strict=True)
    ]
    half = evaluate_detection(subtle, only_subtle_found, PLAIN)
    assert half.measure("box", "ap", MACRO, iou=0.5, group="subtle").value == 1.0
    assert half.measure("box", "ap", MACRO, iou=0.5, group="not subtle").value == 0.0
    assert half.measure("box", "sensitivity", MICRO, iou=0.1, group="subtle").value == 1.0
    assert half.measure("box", "sensitivity", MICRO, iou=0.1, group="not subtle").value == 0.0


def test_a_label_without_subtle_lesions_counts_among_the_plain() -> None:
    places = {"cyst": (0.0, True), "nodule": (50.0, False), "stone": (100.0, False)}
    lesions = tuple(
        TruthLesion(label=label, box_zyx=box(0, 0, x), subtle=subtle)
        for label, (x, subtle) in places.items()
    )
    truths = [TruthSeries(series_key="a", lesions=lesions)]
    claims = [ClaimSeries(series_key="a", claims=perfect(truths)[0].claims[:2])]
    result = evaluate_detection(truths, claims, PLAIN)
    plain = result.measure("box", "ap", MACRO, iou=0.5, group="not subtle")
    assert (plain.value, plain.support) == (0.5, 2)  # of nodule and stone
    subtle = result.measure("box", "ap", MACRO, iou=0.5, group="subtle")
    assert (subtle.value, subtle.support) == (1.0, 1)
    with pytest.raises(KeyError):
        result.measure("box", "ap", "stone", iou=0.5, group="subtle")


@PROPERTIES
@given(cohorts())
def test_perfect_claims_are_perfect(cohort: Cohort) -> None:
    truths, _ = cohort
    assume(any(t.lesions for t in truths))
    result = evaluate_detection(truths, perfect(truths), PLAIN)
    for name in ("ap", "precision", "recall", "f1", "mean_iou"):
        assert result.measure("box", name, MACRO, iou=0.5).value == pytest.approx(1.0)
    assert result.measure("box", "cpm", MICRO, iou=0.1).value == 1.0
    assert result.measure("box", "false_positives", MICRO, iou=0.5).value == 0.0


@PROPERTIES
@given(cohorts(), st.randoms(use_true_random=False))
def test_order_changes_nothing(cohort: Cohort, random: object) -> None:
    truths, claims = cohort
    assume(any(t.lesions for t in truths))

    def mixed(items: tuple[object, ...]) -> tuple[object, ...]:
        return tuple(random.sample(list(items), len(items)))  # type: ignore[attr-defined]

    other_truths = mixed(tuple(replace(t, lesions=mixed(t.lesions)) for t in truths))
    other_claims = mixed(tuple(replace(s, claims=mixed(s.claims)) for s in claims))
    first = evaluate_detection(truths, claims, PLAIN)
    second = evaluate_detection(other_truths, other_claims, PLAIN)  # type: ignore[arg-type]
    before = {m.key: m.value for m in first.measures}
    after = {m.key: m.value for m in second.measures}
    assert before.keys() == after.keys()
    for key, value in before.items():
        assert after[key] == (None if value is None else pytest.approx(value, abs=1e-12)), key


@PROPERTIES
@given(cohorts(), st.sampled_from(LABELS[:2]), st.floats(0.0, 1.0))
def test_a_false_positive_never_helps(cohort: Cohort, label: str, score: float) -> None:
    truths, claims = cohort
    assume(any(t.lesions for t in truths))
    far = Claim(label=label, box_zyx=box(0, 500, 500), score=score)
    worse = [replace(claims[0], claims=(*claims[0].claims, far)), *claims[1:]]
    before, after = (evaluate_detection(truths, c, PLAIN) for c in (claims, worse))
    for measure in before.measures:
        if measure.name in ("ap", "precision", "f1", "cpm") and measure.level == "box":
            value = next((m.value for m in after.measures if m.key == measure.key), None)
            if measure.value is not None:
                assert value is not None
                assert value <= measure.value + 1e-12, measure.key


@PROPERTIES
@given(cohorts())
def test_the_last_false_positive_leaves_ap_alone(cohort: Cohort) -> None:
    truths, claims = cohort
    assume(any(t.lesions for t in truths))
    far = Claim(label="cyst", box_zyx=box(0, 500, 500), score=0.01)
    worse = [replace(claims[0], claims=(*claims[0].claims, far)), *claims[1:]]
    assert ap(truths, worse) == pytest.approx(ap(truths, claims))


@PROPERTIES
@given(cohorts())
def test_a_second_box_on_a_lesion_is_a_false_positive(cohort: Cohort) -> None:
    truths, _ = cohort
    assume(any(t.lesions for t in truths))
    twice = [replace(s, claims=s.claims * 2) for s in perfect(truths)]
    result = evaluate_detection(truths, twice, PLAIN)
    lesions = sum(len(t.lesions) for t in truths)
    assert result.measure("box", "true_positives", MICRO, iou=0.5).value == lesions
    assert result.measure("box", "false_positives", MICRO, iou=0.5).value == lesions


def test_sensitivity_by_size() -> None:
    """Lesions of 5, 6, 12 and 40 mm and one of unknown size; those of 6 and 40 mm are found."""
    sizes = (5.0, 6.0, 12.0, 40.0, None)
    lesions = tuple(
        TruthLesion(label="cyst", box_zyx=box(0, 0, 50.0 * i), diameter_mm=size)
        for i, size in enumerate(sizes)
    )
    truths = [TruthSeries(series_key="a", lesions=lesions)]
    claims = [
        ClaimSeries(
            series_key="a",
            claims=tuple(
                Claim(label="cyst", box_zyx=lesions[i].box_zyx, score=score)
                for i, score in ((1, 0.9), (2, 0.3), (3, 0.5))  # 0.3 lies below the threshold
            ),
        )
    ]
    result = evaluate_detection(truths, claims, PLAIN)
    measured = {
        m.group: (m.value, m.support)
        for m in result.measures
        if (m.name, m.label) == ("sensitivity", "cyst") and "FP" not in m.group
    }
    assert measured == {
        "under 6 mm": (0.0, 1),
        "6 to 10 mm": (1.0, 1),
        "10 to 20 mm": (0.0, 1),
        "20 to 30 mm": (None, 0),
        "from 30 mm": (1.0, 1),
        "subtle": (0.0, 1),
        "not subtle": (0.5, 4),
    }


def test_slices_of_one_lesion_are_matched_within_their_slice() -> None:
    truths, _ = random_cohort(1, series=4)
    config = DetectionEvaluationConfig(boxes="slice", bootstrap=0)
    result = evaluate_detection(truths, [], config)
    slices = sum(
        int(np.ceil(le.box_zyx.upper_zyx[0]) - np.floor(le.box_zyx.lower_zyx[0]))
        for t in truths
        for le in t.lesions
    )
    assert result.lesions == slices
    assert result.measure("box", "recall", MICRO, iou=0.5).value == 0.0
