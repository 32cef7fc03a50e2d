"""Measures of series (or pictures) as a whole: accuracy, F1, AUC-ROC, confusion, calibration.

In: truth and scores as matrices (series, labels), weights of the series. Out: values under keys.
Does not know: boxes, where scores come from, intervals.

A truth of NaN is not known and takes no part. In mode "single" a series has one label, and the
label with the highest score is claimed, none where all are 0; in "multilabel" each label is claimed
from its threshold.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import ConfigError
from raypipe.evaluate.box_measures import macro
from raypipe.evaluate.calibration import brier, expected_calibration_error, reliability
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.curves import area, average_precision, precision_recall, roc
from raypipe.evaluate.measures import MACRO, MICRO, Confusion, Key, Value, Values
from raypipe.evaluate.records import ClaimSeries, TruthSeries

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
NAN = float("nan")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageScores:
    """Truth, scores and decisions of series.

    Args:
        labels: columns.
        truth: (n, labels) 1 present, 0 absent, NaN not known.
        score: (n, labels)
        claimed: (n, labels) what the scores say.
        order: (n, labels) series by falling score, label by label.
    """

    labels: tuple[str, ...]
    truth: FloatArray
    score: FloatArray
    claimed: BoolArray
    order: NDArray[np.int64]


def image_scores(
    truths: Sequence[TruthSeries],
    claims: Sequence[ClaimSeries],
    labels: tuple[str, ...],
    config: DetectionEvaluationConfig,
) -> ImageScores:
    """Arrange truth and scores; both sides are in the same order of series.

    Raises:
        ConfigError: image_mode is "single" and a series has no label, or several.
    """
    truth = np.array([[_present(t, label) for label in labels] for t in truths], dtype=np.float64)
    score = np.array([[c.image_score(label) for label in labels] for c in claims], dtype=np.float64)
    truth, score = (m.reshape(len(truths), len(labels)) for m in (truth, score))
    if config.image_mode == "single":
        if np.any(np.nansum(truth, axis=1) != 1):
            raise ConfigError(
                "evaluation: image_mode single needs exactly one present label a series; "
                "name a label for normal series, or use image_mode multilabel"
            )
        claimed = np.zeros_like(score, dtype=np.bool_)
        claimed[np.arange(len(score)), score.argmax(axis=1)] = score.max(axis=1, initial=0.0) > 0
    else:
        claimed = score >= np.array([config.image_threshold_of(label) for label in labels])
    order = np.argsort(-score, axis=0, kind="stable")
    return ImageScores(labels=labels, truth=truth, score=score, claimed=claimed, order=order)


def image_measures(
    images: ImageScores, weight: FloatArray, config: DetectionEvaluationConfig
) -> Values:
    """All image-level measures under weights (series,)."""
    tables = {label: _of_label(images, j, weight) for j, label in enumerate(images.labels)}
    values: Values = {}
    for label, table in tables.items():
        values |= {Key("image", name, label): value for name, value in table.items()}
    positives = {label: table["recall"].support for label, table in tables.items()}
    for name in ("accuracy", "precision", "recall", "specificity", "f1", "auc_roc", "ap"):
        each = {label: table[name] for label, table in tables.items()}
        values[Key("image", name, MACRO)] = macro(each, support=positives)
    pooled = _rates(*_counts(images, slice(None), weight))
    values |= {Key("image", name, MICRO): value for name, value in pooled.items()}
    values[Key("image", "exact_match", MICRO)] = _exact(images, weight)
    return {**values, **_calibration(images, weight, config)}


def confusion(images: ImageScores) -> Confusion:
    """Counts of truth (rows) and claim (columns); for image_mode "single"."""
    truth, claim = np.nan_to_num(images.truth).astype(np.int64), images.claimed.astype(np.int64)
    table = truth.T @ claim
    return Confusion(
        labels=images.labels, counts=tuple(tuple(int(n) for n in row) for row in table)
    )


def certainty(
    images: ImageScores, weight: FloatArray, config: DetectionEvaluationConfig
) -> tuple[FloatArray, BoolArray, FloatArray]:
    """Probability, outcome and weight of each decision, flat.

    "single": the claimed label of each series, and whether it is right (Guo et al. 2017).
    "multilabel": every known pair of series and label, and whether the label is present.
    """
    known = ~np.isnan(images.truth)
    if config.image_mode == "single":
        right = np.any(images.claimed & (images.truth == 1), axis=1)
        return np.max(images.score, axis=1, initial=0.0), right, weight
    every = np.broadcast_to(weight[:, None], known.shape)
    return images.score[known], images.truth[known] == 1, every[known]


def _present(truth: TruthSeries, label: str) -> float:
    if truth.image_labels is None:
        return float(any(lesion.label == label for lesion in truth.lesions))
    return float(truth.image_labels[label]) if label in truth.image_labels else NAN


def _of_label(images: ImageScores, column: int, weight: FloatArray) -> dict[str, Value]:
    order = images.order[:, column]
    truth = images.truth[order, column]
    order = order[~np.isnan(truth)]
    positive = images.truth[order, column] == 1
    score, w = images.score[order, column], weight[order]
    total = float(np.sum(w * positive))
    rates = _rates(*_counts(images, column, weight))
    ap = average_precision(precision_recall(score, positive, w, total), "area")
    return {
        **rates,
        "auc_roc": Value(area(roc(score, positive, w)), total),
        "ap": Value(ap if total > 0 else NAN, total),
    }


def _counts(
    images: ImageScores, column: int | slice, weight: FloatArray
) -> tuple[float, float, float, float]:
    truth, claimed = images.truth[:, column], images.claimed[:, column]
    w = weight if truth.ndim == 1 else weight[:, None]
    present, absent = truth == 1, truth == 0
    hits, misses = float(np.sum(w * (present & claimed))), float(np.sum(w * (present & ~claimed)))
    false, rejected = float(np.sum(w * (absent & claimed))), float(np.sum(w * (absent & ~claimed)))
    return hits, misses, false, rejected


def _rates(hits: float, misses: float, false: float, rejected: float) -> dict[str, Value]:
    total, positives, claims = hits + misses + false + rejected, hits + misses, hits + false
    precision = hits / claims if claims > 0 else (0.0 if positives > 0 else NAN)
    return {
        "accuracy": Value((hits + rejected) / total if total > 0 else NAN, total),
        "precision": Value(precision, claims),
        "recall": Value(hits / positives if positives > 0 else NAN, positives),
        "specificity": Value(
            rejected / (false + rejected) if false + rejected > 0 else NAN, false + rejected
        ),
        "f1": Value(2 * hits / (claims + positives) if claims + positives > 0 else NAN, positives),
    }


def _exact(images: ImageScores, weight: FloatArray) -> Value:
    known = ~np.isnan(images.truth)
    right = np.all(~known | (images.claimed == (images.truth == 1)), axis=1)
    w = weight * known.any(axis=1)
    total = float(w.sum())
    return Value(float(np.sum(w * right) / total) if total > 0 else NAN, total)


def _calibration(
    images: ImageScores, weight: FloatArray, config: DetectionEvaluationConfig
) -> Values:
    probability, true, w = certainty(images, weight, config)
    bins = reliability(probability, true, w, config.calibration_bins)
    ece, total = expected_calibration_error(bins), float(w.sum())
    return {
        Key("image_calibration", "ece", MICRO): Value(ece, total),
        Key("image_calibration", "brier", MICRO): Value(brier(probability, true, w), total),
    }
