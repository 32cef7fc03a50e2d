"""The curves, bins and counts of an evaluation in the form in which they are stored.

In: matched boxes, image scores. Out: StoredCurve, ReliabilityBin, Confusion.
Does not know: intervals, figures.
"""

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluate.box_measures import MatchedBoxes
from raypipe.evaluate.calibration import Bins, reliability
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.curves import Curve, froc, precision_recall, roc, thinned
from raypipe.evaluate.image_measures import ImageScores, certainty, confusion
from raypipe.evaluate.measures import MICRO, Confusion, Level, ReliabilityBin, StoredCurve

FloatArray = NDArray[np.float64]


def curves_of(
    boxes: MatchedBoxes, images: ImageScores, config: DetectionEvaluationConfig
) -> tuple[StoredCurve, ...]:
    """ROC and PR of series, PR and FROC of boxes, per label; FROC of all labels together."""
    ones = np.ones(boxes.series)
    stored = []
    for label, m in boxes.by_label[config.match_iou].items():
        pr = precision_recall(m.score, m.hit, ones[m.series], float(len(m.lesion_series)))
        stored.append(_stored(pr, "pr", "box", label, config, config.match_iou))
    pooled = boxes.pooled[config.froc_iou]
    for label, m in {**boxes.by_label[config.froc_iou], MICRO: pooled}.items():
        lesions = float(len(m.lesion_series))
        curve = froc(m.score, m.hit, ones[m.series], lesions, float(boxes.series))
        stored.append(_stored(curve, "froc", "box", label, config, config.froc_iou))
    for j, label in enumerate(images.labels):
        order = images.order[:, j]
        order = order[~np.isnan(images.truth[order, j])]
        score, positive = images.score[order, j], images.truth[order, j] == 1
        weight = np.ones(len(order))
        stored.append(_stored(roc(score, positive, weight), "roc", "image", label, config))
        pr = precision_recall(score, positive, weight, float(positive.sum()))
        stored.append(_stored(pr, "pr", "image", label, config))
    return tuple(curve for curve in stored if curve.x)


def reliability_of(
    boxes: MatchedBoxes, images: ImageScores, config: DetectionEvaluationConfig
) -> tuple[ReliabilityBin, ...]:
    """The bins that are not empty, of boxes and of series."""
    matches = boxes.pooled[config.match_iou]
    of_boxes = reliability(
        matches.probability, matches.hit, np.ones(len(matches.score)), config.calibration_bins
    )
    of_images = reliability(
        *certainty(images, np.ones(boxes.series), config), config.calibration_bins
    )
    return (*_bins(of_boxes, "box_calibration"), *_bins(of_images, "image_calibration"))


def confusion_of(images: ImageScores, config: DetectionEvaluationConfig) -> Confusion | None:
    """The confusion matrix where every series has one label."""
    return confusion(images) if config.image_mode == "single" else None


def _stored(
    curve: Curve,
    kind: str,
    level: Level,
    label: str,
    config: DetectionEvaluationConfig,
    iou: float | None = None,
) -> StoredCurve:
    x, y, threshold = thinned(curve, config.curve_points)
    return StoredCurve.model_validate(
        {
            "kind": kind,
            "level": level,
            "label": label,
            "iou": iou,
            "x": tuple(float(v) for v in x),
            "y": tuple(float(v) for v in y),
            "threshold": tuple(float(v) if np.isfinite(v) else None for v in threshold),
        }
    )


def _bins(bins: Bins, level: Level) -> list[ReliabilityBin]:
    edges = np.linspace(0.0, 1.0, len(bins.weight) + 1)
    return [
        ReliabilityBin(
            level=level,
            low=float(edges[i]),
            high=float(edges[i + 1]),
            mean_probability=float(bins.mean_probability[i]),
            observed=float(bins.observed[i]),
            count=round(float(bins.weight[i])),
        )
        for i in np.flatnonzero(bins.weight > 0)
    ]
