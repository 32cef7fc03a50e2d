"""How good weights are on slices with truth: average precision at IoU 0.5, label by label.

In: a detector and a SampleStore. Out: named numbers. Does not know: training, series.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.findings.decode import FindingsConfig, decode
from raypipe.geometry import Box
from raypipe.model.detector import Detector
from raypipe.train.dataset import SampleStore
from raypipe.types import Detection

MATCH_IOU = 0.5


@dataclass(frozen=True, kw_only=True)
class Match:
    """One scored box, or one true box that none found."""

    label: str
    score: float
    hit: bool
    subtle: bool = False
    missed: bool = False


def validate(detector: Detector, store: SampleStore, indices: Sequence[int]) -> dict[str, float]:
    """Mean AP at IoU 0.5 over labels ("map50"), the same for subtle lesions, AP by label.

    Without subtle lesions "map50_subtle" is left out.
    """
    matches = match_slices(detector, store, indices)
    labels = sorted({m.label for m in matches if m.hit or m.missed})
    by_label = {
        label: average_precision([m for m in matches if m.label == label]) for label in labels
    }
    subtle = [
        average_precision(
            [
                m
                for m in matches
                if m.label == label and (m.subtle or not m.hit) and not (m.missed and not m.subtle)
            ]
        )
        for label in labels
        if any(m.label == label and m.subtle for m in matches)
    ]
    out = {f"ap50/{label}": value for label, value in by_label.items()}
    out["map50"] = float(np.mean(list(by_label.values()))) if by_label else 0.0
    if subtle:
        out["map50_subtle"] = float(np.mean(subtle))
    out["sensitivity_at_1"] = froc_point(matches, len(indices), 1.0)
    return out


def match_slices(detector: Detector, store: SampleStore, indices: Sequence[int]) -> list[Match]:
    """Every box of every slice, matched to the truth, best scores first."""
    prediction = detector.predict_stacks(store.hu[np.sort(np.asarray(indices))])
    config = FindingsConfig(slice_floor=detector.config.score_floor)
    of_slice = decode(prediction.detections, config)
    matches: list[Match] = []
    for z, index in enumerate(sorted(indices)):
        sample = store[index]
        boxes = [_box(row, z) for row in sample.boxes_m4]
        matches += match_boxes(of_slice.get(z, ()), boxes, sample.labels, sample.subtle_m)
    return matches


def match_boxes(
    detections: Sequence[Detection],
    boxes: Sequence[Box],
    labels: Sequence[str],
    subtle: NDArray[np.bool_],
) -> list[Match]:
    """Greedy: best scores first, each true box is found once."""
    taken: set[int] = set()
    matches = []
    for detection in sorted(detections, key=lambda d: -d.score):
        overlaps = [
            detection.box_zyx.iou(box) if label == detection.label and m not in taken else 0.0
            for m, (box, label) in enumerate(zip(boxes, labels, strict=True))
        ]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hit = best >= 0 and overlaps[best] >= MATCH_IOU
        if hit:
            taken.add(best)
        matches.append(
            Match(
                label=detection.label,
                score=detection.score,
                hit=hit,
                subtle=bool(hit and subtle[best]),
            )
        )
    for m, label in enumerate(labels):
        if m not in taken:
            matches.append(
                Match(label=label, score=0.0, hit=False, subtle=bool(subtle[m]), missed=True)
            )
    return matches


def average_precision(matches: Sequence[Match]) -> float:
    """Area under the interpolated precision-recall curve (every point, as in Pascal VOC 2010)."""
    truths = sum(m.hit or m.missed for m in matches)
    scored = sorted((m for m in matches if not m.missed), key=lambda m: -m.score)
    if not truths or not scored:
        return 0.0
    hits = np.cumsum([m.hit for m in scored])
    precision = hits / np.arange(1, len(scored) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    recall = np.concatenate([[0.0], hits / truths])
    return float(np.sum(np.diff(recall) * precision))


def froc_point(matches: Sequence[Match], units: int, false_per_unit: float) -> float:
    """Share of lesions found where so many false boxes a slice (or series) are allowed."""
    truths = sum(m.hit or m.missed for m in matches)
    found, false = 0, 0
    for m in sorted((m for m in matches if not m.missed), key=lambda m: (-m.score, m.hit)):
        false += not m.hit
        if false > false_per_unit * units:
            break
        found += m.hit
    return found / truths if truths else 0.0


def _box(row: NDArray[np.float32], z: int) -> Box:
    x, y, w, h = (float(v) for v in row)
    return Box(
        lower_zyx=(float(z), y - h / 2, x - w / 2),
        upper_zyx=(float(z + 1), y + h / 2, x + w / 2),
    )
