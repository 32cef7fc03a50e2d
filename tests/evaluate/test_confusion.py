"""What lesions were taken for."""

import numpy as np

from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.confusion import agreement, lesion_confusion, pairs_of
from raypipe.evaluate.detection import evaluate_detection
from raypipe.evaluate.measures import MICRO, NOTHING
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from tests.evaluate.cohorts import LABELS, box, perfect, random_cohort

CONFIG = DetectionEvaluationConfig(bootstrap=0, match_iou=0.3, threshold=0.2)


def truth(*lesions: tuple[str, float]) -> TruthSeries:
    return TruthSeries(
        series_key="s",
        lesions=tuple(TruthLesion(label=k, box_zyx=box(0, y, 0)) for k, y in lesions),
    )


def claimed(*claims: tuple[str, float, float]) -> ClaimSeries:
    return ClaimSeries(
        series_key="s",
        claims=tuple(Claim(label=k, box_zyx=box(0, y, 0), score=s) for k, y, s in claims),
    )


def test_a_claim_of_its_own_label_comes_first() -> None:
    pairs = pairs_of(truth(("cyst", 0)), claimed(("stone", 0, 0.9), ("cyst", 2, 0.5)), CONFIG)
    assert [(p.lesion and p.lesion.label, p.claim and p.claim.label) for p in pairs] == [
        ("cyst", "cyst"),
        (None, "stone"),
    ]
    assert agreement(pairs) == 2 / 3


def test_mistaken_missed_and_false() -> None:
    told = [truth(("cyst", 0), ("stone", 50))], [claimed(("nodule", 1, 0.9), ("cyst", 90, 0.4))]
    table = lesion_confusion(*told, LABELS, CONFIG)
    counts = np.array(table.counts)
    assert table.labels == (*LABELS, NOTHING)
    expected = np.zeros((4, 4), dtype=int)
    expected[0, 1] = 1  # a cyst taken for a nodule
    expected[2, 3] = 1  # a stone missed
    expected[3, 0] = 1  # a cyst claimed on nothing
    assert (counts == expected).all()
    assert table.only_used() == table


def test_claims_below_the_threshold_do_not_count() -> None:
    pairs = pairs_of(truth(("cyst", 0)), claimed(("cyst", 0, 0.1)), CONFIG)
    assert [p.claim for p in pairs] == [None]
    assert agreement(pairs) == 0.0
    assert agreement(pairs_of(truth(), claimed(), CONFIG)) == 1.0


def test_the_diagonal_holds_the_true_positives() -> None:
    truths, claims = random_cohort(3)
    result = evaluate_detection(truths, claims, CONFIG)
    assert result.lesion_confusion is not None
    counts = np.array(result.lesion_confusion.counts)
    hits = result.measure("box", "true_positives", MICRO, iou=CONFIG.match_iou).value
    assert counts.trace() == hits
    assert counts[:-1].sum() == result.lesions
    of_perfect = evaluate_detection(truths, perfect(truths), CONFIG).lesion_confusion
    assert of_perfect is not None
    assert np.array(of_perfect.counts).trace() == result.lesions
