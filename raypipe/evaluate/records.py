"""What an evaluation compares: the truth of series and what was claimed of them.

In: plain numbers. Out: frozen records that are valid once built.
Does not know: networks, files, how claims came about.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from raypipe.geometry import Box


@dataclass(frozen=True, kw_only=True)
class TruthLesion:
    """One lesion that is there.

    Args:
        label: key of a finding in the knowledge graph.
        box_zyx: around the lesion in three dimensions, on the series' grid.
        slice_boxes_zyx: the lesion slice by slice, each box one slice thick; needed only where
            slices are evaluated. Empty: box_zyx is cut into slices of the same outline.
        diameter_mm: longest edge within the slice plane, None where unknown.
        contrast_hu: difference to what surrounds it (signed), None where unknown.
        subtle: whether it is hard to see; None: derived from diameter and contrast.
    """

    label: str
    box_zyx: Box
    slice_boxes_zyx: tuple[Box, ...] = ()
    diameter_mm: float | None = None
    contrast_hu: float | None = None
    subtle: bool | None = None

    def __post_init__(self) -> None:
        if not self.label:
            raise ValueError("TruthLesion: label is not empty")
        if any(box.size_zyx[0] != 1.0 for box in self.slice_boxes_zyx):
            raise ValueError("TruthLesion: each of slice_boxes_zyx is one slice thick")
        if self.diameter_mm is not None and not self.diameter_mm > 0:
            raise ValueError("TruthLesion: diameter_mm is positive, or None where unknown")


@dataclass(frozen=True, kw_only=True)
class TruthSeries:
    """All that is true of one series.

    Args:
        series_key: id, the same as in its ClaimSeries.
        lesions: every lesion of the evaluated labels; none means that there is none.
        image_labels: label -> present; a label that is missing is not known and is left out of
            image-level measures. None: derived from the lesions.
        cluster_key: what belongs together when series are drawn again, as a rule the patient;
            "": the series stands for itself.
    """

    series_key: str
    lesions: tuple[TruthLesion, ...] = ()
    image_labels: Mapping[str, bool] | None = None
    cluster_key: str = ""

    def __post_init__(self) -> None:
        if not self.series_key:
            raise ValueError("TruthSeries: series_key is not empty")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One box that was claimed.

    Args:
        label: key of a finding in the knowledge graph.
        box_zyx: on the same grid as the truth; one slice thick where slices are evaluated.
        score: what claims are ranked by, from 0 to 1.
        probability: calibrated, None without a calibration.
    """

    label: str
    box_zyx: Box
    score: float
    probability: float | None = None

    def __post_init__(self) -> None:
        if not self.label:
            raise ValueError("Claim: label is not empty")
        for name, value in (("score", self.score), ("probability", self.probability)):
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"Claim: {name} lies between 0 and 1, not {value}")


@dataclass(frozen=True, kw_only=True)
class ClaimSeries:
    """All that was claimed of one series.

    Args:
        series_key: id, the same as in its TruthSeries.
        claims: above the detector's floor; a low floor gives whole curves.
        image_scores: label -> score of the whole series, 0 to 1; a label that is missing has the
            score of its best claim, or 0.
    """

    series_key: str
    claims: tuple[Claim, ...] = ()
    image_scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, score in self.image_scores.items():
            if not 0.0 <= score <= 1.0:
                raise ValueError(f"ClaimSeries: image score of {label} is not in 0..1: {score}")

    def image_score(self, label: str) -> float:
        """Score of the series for a label."""
        if label in self.image_scores:
            return self.image_scores[label]
        return max((c.score for c in self.claims if c.label == label), default=0.0)


def labels_of(truths: Iterable[TruthSeries], claims: Iterable[ClaimSeries]) -> tuple[str, ...]:
    """Every label that either side names, sorted."""
    labels: set[str] = set()
    for truth in truths:
        labels.update(lesion.label for lesion in truth.lesions)
        labels.update(truth.image_labels or ())
    for series in claims:
        labels.update(claim.label for claim in series.claims)
        labels.update(series.image_scores)
    return tuple(sorted(labels))
