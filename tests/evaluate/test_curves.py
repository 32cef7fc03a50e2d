"""ROC, PR and FROC against torchmetrics and by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from raypipe.evaluate.curves import (
    Curve,
    area,
    average_precision,
    froc,
    precision_recall,
    roc,
    sensitivity_at,
    thinned,
)


def ranked(seed: int, *, ties: bool) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    positive = rng.random(200) < 0.3
    score = np.clip(rng.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    score = score.round(1) if ties else score
    order = np.argsort(-score, kind="stable")
    return score[order], positive[order]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_auc_and_step_ap_equal_torchmetrics(seed: int, ties: bool) -> None:
    score, positive = ranked(seed, ties=ties)
    weight = np.ones(len(score))
    scores, target = torch.tensor(score), torch.tensor(positive, dtype=torch.long)
    assert area(roc(score, positive, weight)) == pytest.approx(float(binary_auroc(scores, target)))
    recall, precision, _ = precision_recall(score, positive, weight, float(positive.sum()))
    steps = np.sum(np.diff(recall, prepend=0.0) * precision)  # without the envelope
    assert steps == pytest.approx(float(binary_average_precision(scores, target)), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_weight_two_is_the_entry_twice(seed: int) -> None:
    score, positive = ranked(seed, ties=False)
    weight = np.random.default_rng(seed).integers(0, 3, len(score))
    twice = np.repeat(score, weight), np.repeat(positive, weight)
    ones = np.ones(len(twice[0]))
    truths = float(twice[1].sum())
    weighed = roc(score, positive, weight.astype(float))
    assert area(weighed) == pytest.approx(area(roc(*twice, ones)))
    first = precision_recall(score, positive, weight.astype(float), truths)
    second = precision_recall(*twice, ones, truths)
    for kind in ("coco", "area"):
        assert average_precision(first, kind) == pytest.approx(average_precision(second, kind))


def test_roc_without_negatives_is_empty() -> None:
    curve = roc(np.array([0.9, 0.1]), np.array([True, True]), np.ones(2))
    assert len(curve.x) == 0
    assert np.isnan(area(curve))


def test_froc_by_hand() -> None:
    """Four series, 4 lesions; by score: hit, miss, hit, miss, miss, hit."""
    score = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    hit = np.array([True, False, True, False, False, True])
    curve = froc(score, hit, np.ones(6), truths=4, series=4)
    assert sensitivity_at(curve, (0.125, 0.25, 0.5, 0.75, 8)) == pytest.approx(
        [0.25, 0.5, 0.5, 0.75, 0.75]
    )


def test_thinning_keeps_the_area() -> None:
    score, positive = ranked(5, ties=False)
    whole = roc(score, positive, np.ones(len(score)))
    turns = thinned(whole, 150)
    assert len(turns.x) <= 150
    assert area(turns) == pytest.approx(area(whole))
    few = thinned(Curve(*(np.arange(1000.0) ** p for p in (1, 2, 3))), 10)
    assert len(few.x) == 10
    assert few.x[0] == 0
    assert few.x[-1] == 999
