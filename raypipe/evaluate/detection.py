"""How well boxes and labels agree with the truth: the entry of the package.

In: truth and claims of the same series. Out: a DetectionEvaluation: every measure with its
interval, curves, confusion, reliability. Does not know: networks, files, how results are shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raypipe.errors import ConfigError
from raypipe.evaluate.bootstrap import intervals, resamples
from raypipe.evaluate.box_measures import MatchedBoxes, box_measures
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.confusion import lesion_confusion
from raypipe.evaluate.curve_records import confusion_of, curves_of, reliability_of
from raypipe.evaluate.image_measures import ImageScores, image_measures, image_scores
from raypipe.evaluate.matching import Overlaps, by_series, overlaps, pool
from raypipe.evaluate.measures import (
    Confusion,
    Key,
    Level,
    Measure,
    ReliabilityBin,
    StoredCurve,
    Value,
    Values,
)
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries, labels_of
from raypipe.geometry import Box
from raypipe.settings import Settings

FloatArray = NDArray[np.float64]


class DetectionEvaluation(Settings):
    """The result of an evaluation; `model_dump_json` stores it whole."""

    config: DetectionEvaluationConfig
    labels: tuple[str, ...]
    series: int
    clusters: int = Field(description="patients, or series where nothing belongs together")
    lesions: int
    claims: int
    series_without_claims: int = Field(description="no ClaimSeries was handed in; all is missed")
    calibrated: bool = Field(description="every claim carries a calibrated probability")
    measures: tuple[Measure, ...]
    curves: tuple[StoredCurve, ...]
    reliability: tuple[ReliabilityBin, ...]
    confusion: Confusion | None = Field(description="null unless image_mode is single")
    lesion_confusion: Confusion | None = Field(
        description="lesions and claims of any label; null where slices are evaluated"
    )

    def measure(
        self, level: Level, name: str, label: str, *, iou: float | None = None, group: str = ""
    ) -> Measure:
        """One measure.

        Raises:
            KeyError: it was not made.
        """
        wanted = Key(level, name, label, iou or 0.0, group)
        for measure in self.measures:
            if measure.key == wanted:
                return measure
        raise KeyError(wanted)

    def telling_labels(self) -> tuple[str, ...]:
        """Labels that some series have, those first that others lack, then by number of lesions."""
        series = {label: self.measure("image", "recall", label).support for label in self.labels}
        lesions = {
            label: self.measure("box", "recall", label, iou=self.config.match_iou).support
            for label in self.labels
        }
        no_curve = {
            label: self.measure("image", "auc_roc", label).value is None for label in self.labels
        }
        present = [label for label in self.labels if series[label] or lesions[label]]
        return tuple(sorted(present, key=lambda k: (no_curve[k], -lesions[k], -series[k], k)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Truth and claims, matched and arranged; measures only weigh it."""

    boxes: MatchedBoxes
    images: ImageScores
    claims: tuple[ClaimSeries, ...]
    without_claims: int

    def measured(self, config: DetectionEvaluationConfig) -> Callable[[FloatArray], Values]:
        """The function from weights of the series to all measures."""

        def measure(weight: FloatArray) -> Values:
            return {
                **box_measures(self.boxes, weight, config),
                **image_measures(self.images, weight, config),
            }

        return measure


def evaluate_detection(
    truths: Sequence[TruthSeries],
    claims: Sequence[ClaimSeries],
    config: DetectionEvaluationConfig | None = None,
) -> DetectionEvaluation:
    """Measure claims against the truth.

    Args:
        truths: every evaluated series, those without lesions included.
        claims: what was claimed; a series of truths that is missing here claimed nothing.
        config: what counts as a hit, where scores are cut, how intervals are made.

    Raises:
        ConfigError: no series, a series twice, claims without truth, boxes of the wrong kind.
    """
    config = config or DetectionEvaluationConfig()
    prepared = prepare(truths, claims, config)
    measured = prepared.measured(config)
    point = measured(np.ones(len(truths)))
    clusters = [truth.cluster_key or truth.series_key for truth in truths]
    draws = resamples(clusters, config.bootstrap, config.seed)
    ends = intervals(measured, draws, config.interval)
    every = [c for s in prepared.claims for c in s.claims if c.label in prepared.boxes.labels]
    return DetectionEvaluation(
        config=config,
        labels=prepared.boxes.labels,
        series=len(truths),
        clusters=len(set(clusters)),
        lesions=len(prepared.boxes.pooled[config.match_iou].lesion_series),
        claims=len(every),
        series_without_claims=prepared.without_claims,
        calibrated=bool(every) and all(c.probability is not None for c in every),
        measures=tuple(_measure(key, value, ends.get(key)) for key, value in point.items()),
        curves=curves_of(prepared.boxes, prepared.images, config),
        reliability=reliability_of(prepared.boxes, prepared.images, config),
        confusion=confusion_of(prepared.images, config),
        lesion_confusion=lesion_confusion(truths, prepared.claims, prepared.boxes.labels, config)
        if config.boxes == "volume"
        else None,
    )


def prepare(
    truths: Sequence[TruthSeries],
    claims: Sequence[ClaimSeries],
    config: DetectionEvaluationConfig,
) -> Prepared:
    """Match and arrange once what all measures and resamples share."""
    if not truths:
        raise ConfigError("evaluation: hand in the truth of at least one series")
    ordered, missing = by_series(truths, claims)
    labels = config.labels or labels_of(truths, claims)
    if not labels:
        raise ConfigError("evaluation: neither truth nor claims name a label; set labels")
    of_label = {
        label: [_overlaps(t, c, label, config) for t, c in zip(truths, ordered, strict=True)]
        for label in labels
    }
    by_label = {
        iou: {label: pool(series, iou) for label, series in of_label.items()}
        for iou in config.all_ious
    }
    return Prepared(
        boxes=MatchedBoxes.of(by_label, len(truths), config),
        images=image_scores(truths, ordered, labels, config),
        claims=ordered,
        without_claims=missing,
    )


def _overlaps(
    truth: TruthSeries, series: ClaimSeries, label: str, config: DetectionEvaluationConfig
) -> Overlaps:
    lesions = [lesion for lesion in truth.lesions if lesion.label == label]
    claims = [claim for claim in series.claims if claim.label == label]
    if config.boxes == "slice":
        lesions = [part for lesion in lesions for part in _slices(lesion)]
        _check_one_slice(claims)
    return overlaps(claims, lesions, [is_subtle(lesion, config) for lesion in lesions])


def is_subtle(lesion: TruthLesion, config: DetectionEvaluationConfig) -> bool:
    """Whether a lesion is hard to see: as the truth says, else small or faint by the config."""
    if lesion.subtle is not None:
        return lesion.subtle
    small = lesion.diameter_mm is not None and lesion.diameter_mm < config.subtle_diameter_mm
    faint = lesion.contrast_hu is not None and abs(lesion.contrast_hu) < config.subtle_contrast_hu
    return small or faint


def _slices(lesion: TruthLesion) -> list[TruthLesion]:
    boxes: Sequence[Box] = lesion.slice_boxes_zyx
    if not boxes:
        (z0, y0, x0), (z1, y1, x1) = lesion.box_zyx.lower_zyx, lesion.box_zyx.upper_zyx
        boxes = [
            Box(lower_zyx=(float(z), y0, x0), upper_zyx=(z + 1.0, y1, x1))
            for z in range(int(np.floor(z0)), int(np.ceil(z1)))
        ]
    return [
        TruthLesion(
            label=lesion.label,
            box_zyx=box,
            diameter_mm=lesion.diameter_mm,
            contrast_hu=lesion.contrast_hu,
            subtle=lesion.subtle,
        )
        for box in boxes
    ]


def _check_one_slice(claims: Sequence[Claim]) -> None:
    for claim in claims:
        lower, thickness = claim.box_zyx.lower_zyx[0], claim.box_zyx.size_zyx[0]
        if thickness != 1.0 or not float(lower).is_integer():
            raise ConfigError(
                "evaluation: with boxes=slice every claim covers exactly one slice; evaluate "
                "three-dimensional claims with boxes=volume"
            )


def _measure(key: Key, value: Value, ends: tuple[float, float] | None) -> Measure:
    low, high = ends or (None, None)
    number = known(value.value)
    return Measure(
        level=key.level,
        name=key.name,
        label=key.label,
        iou=key.iou or None,
        group=key.group,
        value=number,
        low=low if number is not None else None,
        high=high if number is not None else None,
        support=round(value.support),
    )


def known(value: float) -> float | None:
    """A number to store: None for NaN."""
    return None if np.isnan(value) else float(value)
