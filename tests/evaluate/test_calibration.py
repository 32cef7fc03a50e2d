"""Calibration: what is measured, and what a fit repairs."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from raypipe.evaluate.calibration import (
    Platt,
    brier,
    expected_calibration_error,
    fit_platt,
    reliability,
)


def apply_platt(score: np.ndarray, platt: Platt) -> np.ndarray:
    logit = np.log(score / (1.0 - score))
    return np.asarray(1.0 / (1.0 + np.exp(-(platt.slope * logit + platt.intercept))))


def skewed(slope: float, intercept: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Scores whose true probability is sigmoid(slope * logit + intercept)."""
    rng = np.random.default_rng(1)
    score = rng.uniform(0.02, 0.98, n)
    return score, rng.random(n) < apply_platt(score, Platt(slope, intercept))


def test_ece_equals_torchmetrics_and_brier_is_the_mean_square() -> None:
    score, true = skewed(0.5, -1.0, 500)
    weight = np.ones(len(score))
    bins = reliability(score, true, weight, 10)
    theirs = binary_calibration_error(torch.tensor(score), torch.tensor(true), n_bins=10)
    assert expected_calibration_error(bins) == pytest.approx(float(theirs), abs=1e-6)
    assert brier(score, true, weight) == pytest.approx(np.mean((score - true) ** 2))


def test_platt_finds_slope_and_intercept() -> None:
    score, true = skewed(0.5, -1.0)
    platt = fit_platt(score, true)
    assert platt is not None
    assert platt == pytest.approx((0.5, -1.0), abs=0.06)
    weight = np.ones(len(score))
    before = expected_calibration_error(reliability(score, true, weight, 10))
    after = expected_calibration_error(reliability(apply_platt(score, platt), true, weight, 10))
    assert before > 0.1
    assert after < 0.02


def test_temperature_alone() -> None:
    score, true = skewed(2.0, 0.0)
    platt = fit_platt(score, true, temperature_only=True)
    assert platt is not None
    assert platt.slope == pytest.approx(2.0, abs=0.1)
    assert platt.intercept == 0.0


def test_separable_scores_keep_a_finite_slope_and_their_order() -> None:
    score = np.array([0.1, 0.2, 0.8, 0.9])
    platt = fit_platt(score, score > 0.5)
    assert platt is not None
    probability = apply_platt(score, platt)
    assert np.all(np.diff(probability) > 0)
    # the least log loss holds the mean over the logits at Platt's targets, 3/4 and 1/4
    logit = np.log(score / (1 - score))
    assert np.average(probability[2:], weights=logit[2:]) == pytest.approx(3 / 4, abs=1e-3)
    assert np.average(probability[:2], weights=logit[:2]) == pytest.approx(1 / 4, abs=1e-3)


def test_one_sided_data_tell_nothing() -> None:
    score = np.array([0.2, 0.9])
    assert fit_platt(score, np.array([True, True])) is None
    assert fit_platt(score, np.array([False, False])) is None
    empty = reliability(np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0), 10)
    assert np.isnan(expected_calibration_error(empty))
