"""Which raw boxes of each slice are worth linking: a floor on the score, then suppression.

In: detections on slices. Out: fewer detections, slice by slice. Does not know: volumes, HU,
millimetres.

Labels do not compete here: whether a lesion is a cyst or a mass is told by all its slices.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import Field, field_validator

from raypipe.knowledge.graph import load_graph
from raypipe.settings import Settings
from raypipe.types import Detection

DEFAULT_THRESHOLD = 0.3
"""Where neither the config nor the weights name one."""


class FindingsConfig(Settings):
    """How raw boxes become findings."""

    threshold: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="score above which a finding is claimed; null: what the weights say, label by "
        "label, else 0.3",
    )
    thresholds: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        default={}, description="label -> score, instead of `threshold`; 1: never claimed"
    )
    slice_floor: float = Field(
        default=0.12, ge=0, lt=1, description="score above which a box of one slice is linked"
    )
    overlap_iou: float = Field(
        default=0.4, gt=0, le=1, description="boxes of one label and slice that overlap more merge"
    )
    cross_label_iou: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="findings of different labels whose boxes in three dimensions overlap more "
        "are one: the better scored stays",
    )
    contour_pixels: float = Field(
        default=12.0,
        ge=0,
        description="boxes whose longer edge is at most so many pixels of the network's grid are "
        "drawn along the half-contrast contour of what they hold; 0: none",
    )
    link_iou: float = Field(
        default=0.2, gt=0, le=1, description="overlap at which boxes of neighbouring slices link"
    )
    max_gap_slices: int = Field(
        default=1, ge=0, description="slices that a lesion may miss between two boxes"
    )
    aggregate_slices: int = Field(
        default=3, gt=0, description="best slices whose scores are averaged"
    )
    least_extent_mm: float = Field(
        default=3.0, ge=0, description="a finding seen along less is scored down"
    )
    max_findings: int = Field(default=50, gt=0, description="at most so many a series")
    plausible_only: bool = Field(
        default=True,
        description="drop findings whose mean HU the knowledge graph calls impossible",
    )
    hu_margin: float = Field(
        default=100.0, ge=0, description="HU beyond the graph's range that are still plausible"
    )
    calibration_slope: dict[str, float] = Field(default={}, description="label -> Platt slope")
    calibration_intercept: dict[str, float] = Field(
        default={}, description="label -> Platt intercept"
    )

    @field_validator("thresholds", "calibration_slope", "calibration_intercept")
    @classmethod
    def _known_labels(cls, told: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(told) - set(load_graph().findings)):
            labels = ", ".join(load_graph().detected)
            raise ValueError(f"{unknown[0]!r} is no finding; those that get boxes are {labels}")
        return told

    def completed_by(
        self,
        *,
        thresholds: Mapping[str, float],
        slope: Mapping[str, float],
        intercept: Mapping[str, float],
    ) -> Self:
        """Fill in what a checkpoint knows; what this config says itself wins."""
        return self.model_copy(
            update={
                "thresholds": {**(thresholds if self.threshold is None else {}), **self.thresholds},
                "calibration_slope": {**slope, **self.calibration_slope},
                "calibration_intercept": {**intercept, **self.calibration_intercept},
            }
        )

    def threshold_of(self, label: str) -> float:
        """Score above which a finding of this label is claimed."""
        plain = DEFAULT_THRESHOLD if self.threshold is None else self.threshold
        return self.thresholds.get(label, plain)


def decode(
    detections: Sequence[Detection], config: FindingsConfig
) -> dict[int, tuple[Detection, ...]]:
    """Slice index -> its boxes above the floor after suppression, best first."""
    of_slice: dict[int, list[Detection]] = defaultdict(list)
    for detection in detections:
        if detection.score > config.slice_floor:
            of_slice[slice_of(detection)].append(detection)
    return {z: _suppress(of_slice[z], config) for z in sorted(of_slice)}


def _suppress(candidates: list[Detection], config: FindingsConfig) -> tuple[Detection, ...]:
    """Greedy suppression; ties break by label and place, so the input's order does not matter."""
    order = sorted(candidates, key=lambda d: (-d.score, d.label, d.box_zyx.lower_zyx))
    kept: list[Detection] = []
    for candidate in order:
        if not any(_repeats(candidate, better, config) for better in kept):
            kept.append(candidate)
    return tuple(kept)


def _repeats(candidate: Detection, better: Detection, config: FindingsConfig) -> bool:
    """Whether a box tells of the lesion that a better one of its label told of already."""
    return candidate.label == better.label and (
        candidate.box_zyx.iou(better.box_zyx) > config.overlap_iou
        or _contained(candidate, better) > 0.8
    )


def _contained(inner: Detection, outer: Detection) -> float:
    """Share of the inner box's area that lies in the outer box, on one slice."""
    area, _, common = areas(inner, outer)
    return common / area if area > 0 else 0.0


def areas(a: Detection, b: Detection) -> tuple[float, float, float]:
    """Of the one box, of the other, and of what they share, each within its slice's plane."""
    (_, ay0, ax0), (_, ay1, ax1) = a.box_zyx.lower_zyx, a.box_zyx.upper_zyx
    (_, by0, bx0), (_, by1, bx1) = b.box_zyx.lower_zyx, b.box_zyx.upper_zyx
    common = max(min(ay1, by1) - max(ay0, by0), 0.0) * max(min(ax1, bx1) - max(ax0, bx0), 0.0)
    return (ay1 - ay0) * (ax1 - ax0), (by1 - by0) * (bx1 - bx0), common


def slice_of(detection: Detection) -> int:
    """Index of the slice that a detection lies on."""
    return int(detection.box_zyx.lower_zyx[0])
