"""Curves over a falling threshold and the numbers read off them.

In: scores ranked best first, hits, weights. Out: precision-recall, ROC and FROC curves; AP, AUC,
sensitivity at false-positive rates. Does not know: boxes, labels, series.

Weights say how often the series of an entry was drawn (1 everywhere for the plain measure).
Entries of equal score are one operating point, so no measure depends on the order of the input.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
COCO_RECALLS = np.linspace(0.0, 1.0, 101)


class Curve(NamedTuple):
    """Points of a curve, by falling threshold: x, y and the threshold of each, all (k,)."""

    x: FloatArray
    y: FloatArray
    threshold: FloatArray


def precision_recall(score: FloatArray, hit: BoolArray, weight: FloatArray, truths: float) -> Curve:
    """Precision (y) over recall (x).

    Args:
        score: (n,) falling.
        hit: (n,) true positives.
        weight: (n,) at least 0.
        truths: weighted number of positives, found or not.
    """
    hits, total, threshold = _operating_points(score, hit, weight)
    if truths <= 0:
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    made = total > 0
    return Curve(hits[made] / truths, hits[made] / total[made], threshold[made])


def average_precision(curve: Curve, interpolation: Literal["coco", "area"] = "coco") -> float:
    """AP of a precision-recall curve, 0 where it has no points.

    Precision at a recall is the best precision at that recall or beyond. "coco" takes its mean at
    recall 0, 0.01, ... 1 (cocoapi, COCOeval.accumulate), "area" the exact area under it (PASCAL
    VOC 2010 and later).
    """
    recall, precision, _ = curve
    if not len(recall):
        return 0.0
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    if interpolation == "area":
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    at = np.searchsorted(recall, COCO_RECALLS, side="left")
    return float(np.append(envelope, 0.0)[at].mean())


def roc(score: FloatArray, positive: BoolArray, weight: FloatArray) -> Curve:
    """True positive rate (y) over false positive rate (x), from (0, 0) to (1, 1).

    Empty where one of the two sides has no weight. Scores fall.
    """
    positives, total, threshold = _operating_points(score, positive, weight)
    if not len(total) or positives[-1] <= 0 or total[-1] <= positives[-1]:
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    negatives = total - positives
    return Curve(
        np.append(0.0, negatives / negatives[-1]),
        np.append(0.0, positives / positives[-1]),
        np.append(np.inf, threshold),
    )


def area(curve: Curve) -> float:
    """Area under a ROC curve, NaN if it is empty; ties count half, as in Mann-Whitney's U."""
    return float(np.trapezoid(curve.y, curve.x)) if len(curve.x) else float("nan")


def froc(
    score: FloatArray, hit: BoolArray, weight: FloatArray, truths: float, series: float
) -> Curve:
    """Sensitivity (y) over false positives per series (x), from (0, 0).

    Free-response ROC (Bunch et al. 1978).

    Args:
        score: (n,) falling.
        hit: (n,)
        weight: (n,)
        truths: weighted number of lesions.
        series: weighted number of series, those without lesions included.
    """
    hits, total, threshold = _operating_points(score, hit, weight)
    if truths <= 0 or series <= 0:
        return Curve(np.zeros(0), np.zeros(0), np.zeros(0))
    return Curve(
        np.append(0.0, (total - hits) / series),
        np.append(0.0, hits / truths),
        np.append(np.inf, threshold),
    )


def sensitivity_at(curve: Curve, rates: Sequence[float]) -> FloatArray:
    """Best sensitivity with at most so many false positives per series; NaN for an empty curve.

    The curve is read as steps, without interpolation between operating points: what is reported
    can be reached by a threshold. The mean over 1/8, 1/4, 1/2, 1, 2, 4, 8 is the competition
    performance metric, CPM (Niemeijer et al., IEEE TMI 2011; Setio et al., MedIA 2017).
    """
    if not len(curve.x):
        return np.full(len(rates), np.nan)
    at = np.searchsorted(curve.x, np.asarray(rates) + 1e-9, side="right") - 1
    return curve.y[at]


def thinned(curve: Curve, points: int) -> Curve:
    """At most so many points: the first, the last, and those where the curve turns, evenly."""
    x, y, _ = curve
    if len(x) > points:
        turns = np.ones(len(x), dtype=np.bool_)
        step_x, step_y = np.diff(x), np.diff(y)
        turns[1:-1] = (step_x[:-1] * step_y[1:]) != (step_y[:-1] * step_x[1:])
        curve = Curve(*(values[turns] for values in curve))
    if len(curve.x) > points:
        pick = np.unique(np.linspace(0, len(curve.x) - 1, points).round().astype(int))
        curve = Curve(*(values[pick] for values in curve))
    return curve


def _operating_points(
    score: FloatArray, hit: BoolArray, weight: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Weighted hits, weighted entries and threshold at each distinct score."""
    last = np.append(score[1:] != score[:-1], True) if len(score) else np.zeros(0, np.bool_)
    hits = np.cumsum(weight * hit)[last]
    return hits, np.cumsum(weight)[last], score[last]
