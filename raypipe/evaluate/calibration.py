"""Whether probabilities mean what they say, and how to make scores into such probabilities.

In: scores or probabilities and what turned out true. Out: ECE, Brier score, reliability bins;
slope and intercept of Platt scaling for a checkpoint. Does not know: boxes, labels' names.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
EDGE = 1e-4  # scores are held this far from 0 and 1, where the logit is infinite


class Bins(NamedTuple):
    """Per bin of equal width over 0..1: weight, mean probability, share that is true."""

    weight: FloatArray
    mean_probability: FloatArray
    observed: FloatArray


class Platt(NamedTuple):
    """probability = sigmoid(slope * logit(score) + intercept)."""

    slope: float
    intercept: float


def reliability(probability: FloatArray, true: BoolArray, weight: FloatArray, bins: int) -> Bins:
    """What a reliability diagram shows; an empty bin has weight 0 and NaN for the rest."""
    index = np.clip((probability * bins).astype(np.int64), 0, bins - 1)
    total = np.bincount(index, weight, bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(index, weight * probability, bins) / total
        observed = np.bincount(index, weight * true, bins) / total
    return Bins(total, mean, observed)


def expected_calibration_error(bins: Bins) -> float:
    """Mean distance of probability and share, weighted by bin (Guo et al., ICML 2017); or NaN."""
    total = bins.weight.sum()
    if total <= 0:
        return float("nan")
    gap = np.nan_to_num(np.abs(bins.observed - bins.mean_probability))
    return float(np.sum(bins.weight * gap) / total)


def brier(probability: FloatArray, true: BoolArray, weight: FloatArray) -> float:
    """Mean squared distance of probability and outcome (Brier 1950), 0 is best; or NaN."""
    total = weight.sum()
    return float(np.sum(weight * (probability - true) ** 2) / total) if total > 0 else float("nan")


def fit_platt(
    score: FloatArray, true: BoolArray, *, temperature_only: bool = False
) -> Platt | None:
    """Slope and intercept that make scores probabilities, or None where they cannot be told.

    Least log loss against Platt's smoothed targets, (hits + 1) / (hits + 2) and 1 / (misses + 2)
    (Platt 1999), which keep a separable sample from an infinite slope. The slope stays positive,
    so the ranking is kept. With temperature_only the intercept is 0 and 1 / slope is the
    temperature of Guo et al. (ICML 2017).

    Args:
        score: (n,) from 0 to 1, of data that the network was not trained on.
        true: (n,)
        temperature_only: fit the slope alone.

    Returns:
        None where hits or misses are missing.
    """
    from scipy.optimize import minimize

    hits, misses = int(np.sum(true)), int(np.sum(~true))
    if hits == 0 or misses == 0:
        return None
    logit = _logit(score)
    target = np.where(true, (hits + 1.0) / (hits + 2.0), 1.0 / (misses + 2.0))

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        slope = float(np.exp(parameters[0]))
        intercept = 0.0 if temperature_only else float(parameters[1])
        margin = slope * logit + intercept
        slack = 1.0 / (1.0 + np.exp(-margin)) - target
        value = float(np.mean(np.logaddexp(0.0, margin) - target * margin))
        gradient = np.array([np.mean(slack * logit) * slope, np.mean(slack)])
        return value, gradient[: len(parameters)]

    start = np.zeros(1 if temperature_only else 2)
    bounds = [(-4.0, 4.0), (-20.0, 20.0)][: len(start)]
    best = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    return Platt(float(np.exp(best[0])), 0.0 if temperature_only else float(best[1]))


def _logit(score: FloatArray) -> FloatArray:
    held = np.clip(score, EDGE, 1.0 - EDGE)
    logit: FloatArray = np.log(held) - np.log1p(-held)
    return logit
