"""Thresholds and calibration that a checkpoint takes along, found on validation data.

In: truth and claims of series that the network was not trained on. Out: per label a threshold,
slope and intercept. Does not know: checkpoints, networks.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import Field

from raypipe.evaluate.calibration import fit_platt
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import prepare
from raypipe.evaluate.matching import LabelMatches
from raypipe.evaluate.records import ClaimSeries, TruthSeries
from raypipe.settings import Settings


class Tuning(Settings):
    """What validation data say about scores; labels that they say too little about are left out."""

    thresholds: dict[str, float] = Field(description="label -> score with the best F1")
    slope: dict[str, float] = Field(description="label -> slope of Platt scaling")
    intercept: dict[str, float] = Field(description="label -> intercept of Platt scaling")


def tune(
    truths: Sequence[TruthSeries],
    claims: Sequence[ClaimSeries],
    config: DetectionEvaluationConfig | None = None,
    *,
    least: int = 10,
) -> Tuning:
    """Find thresholds and calibration, label by label.

    Args:
        truths: series of validation data.
        claims: above a low floor, so that thresholds and curves are whole.
        config: match_iou says what a hit is.
        least: hits and misses that a label needs each for its calibration, hits for its threshold.
    """
    config = config or DetectionEvaluationConfig()
    matched = prepare(truths, claims, config).boxes.by_label[config.match_iou]
    thresholds: dict[str, float] = {}
    slope: dict[str, float] = {}
    intercept: dict[str, float] = {}
    for label, matches in matched.items():
        hits, misses = int(matches.hit.sum()), int((~matches.hit).sum())
        if hits >= least:
            thresholds[label] = best_f1_threshold(matches)
        platt = fit_platt(matches.score, matches.hit) if min(hits, misses) >= least else None
        if platt is not None:
            slope[label], intercept[label] = platt
    return Tuning(thresholds=thresholds, slope=slope, intercept=intercept)


def best_f1_threshold(matches: LabelMatches) -> float:
    """The score with the best F1, halfway to the next lower score so that rounding is harmless.

    Of equal F1 the highest score. Needs at least one claim.
    """
    last = np.append(matches.score[1:] != matches.score[:-1], True)
    claims = np.arange(1, len(matches.score) + 1)[last]
    hits = np.cumsum(matches.hit)[last]
    f1 = 2.0 * hits / (claims + len(matches.lesion_series))
    score = matches.score[last]
    best = int(np.argmax(f1))
    below = float(score[best + 1]) if best + 1 < len(score) else 0.0
    return (float(score[best]) + below) / 2.0
