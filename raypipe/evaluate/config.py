"""How detection is evaluated.

In: keyword arguments. Out: a frozen config. Does not know: the data.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from raypipe.settings import Settings

FROC_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per series at which the CPM reads the FROC curve (Niemeijer et al. 2011)."""
COCO_IOUS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


class DetectionEvaluationConfig(Settings):
    """What counts as a hit, where scores are cut, how intervals are made."""

    labels: tuple[str, ...] = Field(
        default=(), description="evaluated labels; empty: all that truth or claims name"
    )
    boxes: Literal["volume", "slice"] = Field(
        default="volume",
        description="volume: 3D boxes; slice: boxes one slice thick, matched within a slice",
    )
    iou_thresholds: tuple[float, ...] = Field(
        default=(0.1, 0.3, 0.5), min_length=1, description="IoUs at which AP is reported"
    )
    match_iou: float = Field(
        default=0.5, gt=0, le=1, description="IoU of a hit for precision, recall, F1, calibration"
    )
    froc_iou: float = Field(
        default=0.1,
        gt=0,
        le=1,
        description="IoU of a hit for FROC, CPM and sensitivity by size; 0.1 is usual in 3D",
    )
    coco_mean: bool = Field(
        default=False, description="also AP averaged over IoU 0.50, 0.55, ... 0.95"
    )
    interpolation: Literal["coco", "area"] = Field(
        default="coco",
        description="AP from 101 recall levels (COCO), or the area under the precision envelope",
    )
    threshold: float = Field(
        default=0.5, ge=0, le=1, description="score from which a claim or label counts as made"
    )
    thresholds: dict[str, float] = Field(default={}, description="label -> its own threshold")
    image_threshold: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="score from which a label of a whole series counts as made; null: as for boxes",
    )
    froc_rates: tuple[float, ...] = Field(
        default=FROC_RATES, min_length=1, description="false positives per series read off FROC"
    )
    size_edges_mm: tuple[float, ...] = Field(
        default=(6.0, 10.0, 20.0, 30.0), description="borders of the size bins, diameter in mm"
    )
    subtle_diameter_mm: float = Field(
        default=6.0, ge=0, description="lesions below this diameter (mm) are subtle"
    )
    subtle_contrast_hu: float = Field(
        default=60.0, ge=0, description="lesions below this absolute contrast (HU) are subtle"
    )
    image_mode: Literal["multilabel", "single"] = Field(
        default="multilabel",
        description="single: one label a series, the one with the highest score; else by threshold",
    )
    calibration_bins: int = Field(default=10, ge=2, description="equal bins of probability")
    bootstrap: int = Field(
        default=1000, ge=0, description="resamples for intervals; 0: no intervals"
    )
    interval: float = Field(default=0.95, gt=0, lt=1, description="coverage of the intervals")
    seed: int = Field(default=0, ge=0, description="of the resampling")
    curve_points: int = Field(default=400, ge=10, description="at most so many points a curve")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in ("iou_thresholds", "froc_rates", "size_edges_mm"):
            values: tuple[float, ...] = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name} rises strictly: {values}")
            if values and values[0] <= 0:
                raise ValueError(f"{name} is positive: {values}")
        if self.iou_thresholds[-1] > 1:
            raise ValueError(f"iou_thresholds lie between 0 and 1: {self.iou_thresholds}")
        if any(not 0 <= value <= 1 for value in self.thresholds.values()):
            raise ValueError("thresholds lie between 0 and 1")
        return self

    def threshold_of(self, label: str) -> float:
        """Score from which a claim of this label counts as made."""
        return self.thresholds.get(label, self.threshold)

    def image_threshold_of(self, label: str) -> float:
        """Score from which this label of a whole series counts as made."""
        return self.threshold_of(label) if self.image_threshold is None else self.image_threshold

    @property
    def ap_ious(self) -> tuple[float, ...]:
        """Every IoU at which AP is reported; that of the operating point is one of them."""
        return tuple(sorted({*self.iou_thresholds, self.match_iou}))

    @property
    def all_ious(self) -> tuple[float, ...]:
        """Every IoU at which claims are matched."""
        coco = COCO_IOUS if self.coco_mean else ()
        return tuple(sorted({*self.ap_ious, self.froc_iou, *coco}))
