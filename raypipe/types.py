"""What flows through raypipe, from a row of the manifest to a report.

    SeriesRef -> SliceStack -> Volume -> ModelInput -> Prediction (Detection) -> Finding -> Report

Frozen and valid once built. Does not know: files, networks, Ray.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from raypipe.geometry import Box, Geometry

HuArray = NDArray[np.int16]


class Kind(StrEnum):
    """The format that a series is stored in."""

    DICOM = "dicom"
    NIFTI = "nifti"
    IMAGE = "image"


class Flag(StrEnum):
    """What was measured or repaired on the way to a Volume; a series may carry several."""

    GANTRY_TILT = "gantry_tilt"  # slices are sheared; resampled onto a straight grid
    UNEVEN_SPACING = "uneven_spacing"  # distances between slices differ; resampled
    OVERLAPPING_SLICES = "overlapping_slices"  # thickness exceeds spacing
    SLICE_GAPS = "slice_gaps"  # slices are missing; interpolated
    DUPLICATE_SLICES = "duplicate_slices"  # one position, several slices; one was kept
    RESAMPLED = "resampled"  # the voxel grid is not the stored one
    SPLIT_SERIES = "split_series"  # one UID held several volumes
    SERIES_UID_MISSING = "series_uid_missing"
    SINGLE_SLICE = "single_slice"
    NO_GEOMETRY = "no_geometry"  # a 2D image: spacing and position are not known
    NO_HU = "no_hu"  # grey values without a scale; windows are not meaningful
    HU_ALREADY_RESCALED = "hu_already_rescaled"  # the stored intercept was not applied again
    PADDING = "padding"  # padding value replaced by air
    HU_CLIPPED = "hu_clipped"  # values outside int16 or the plausible range were clipped
    SFORM_QFORM_DIFFER = "sform_qform_differ"


@dataclass(frozen=True, kw_only=True)
class InstanceRef:
    """One stored object of a series: a DICOM instance, a NIfTI file or a picture.

    Args:
        uri: path or s3:// address; "!/" parts an archive from the member inside it.
        byte_size: size of the object in bytes.
        instance_uid: SOPInstanceUID, "" where the format has none.
    """

    uri: str
    byte_size: int
    instance_uid: str = ""


@dataclass(frozen=True, kw_only=True)
class SeriesRef:
    """One series of the manifest: where it is and how to read it.

    Args:
        series_key: keyed hash, the id of the series in every output.
        kind: the format.
        instances: in slice order.
        flags: what the index already noticed.
    """

    series_key: str
    kind: Kind
    instances: tuple[InstanceRef, ...]
    flags: tuple[Flag, ...] = ()

    def __post_init__(self) -> None:
        if not self.series_key:
            raise ValueError("SeriesRef: series_key is not empty")
        if not self.instances:
            raise ValueError("SeriesRef: a series has at least one instance")


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceStack:
    """The decoded slices of one series as they were stored: nothing sorted out, nothing repaired.

    Args:
        hu: (n, y, x) int16 HU, in the order of the manifest.
        positions_lps_mm: (n, 3) float64; the centre of each slice's first voxel.
        row_direction: unit vector in LPS along which x grows (columns of one row).
        column_direction: unit vector in LPS along which y grows.
        spacing_yx_mm: distance between rows, distance between columns.
        thickness_mm: nominal slice thickness, None where unknown.
        instance_uids: one a slice.
        flags: what reading noticed.
    """

    hu: HuArray = field(repr=False)
    positions_lps_mm: NDArray[np.float64] = field(repr=False)
    row_direction: tuple[float, float, float]
    column_direction: tuple[float, float, float]
    spacing_yx_mm: tuple[float, float]
    thickness_mm: float | None
    instance_uids: tuple[str, ...]
    flags: tuple[Flag, ...] = ()

    def __post_init__(self) -> None:
        n = self.hu.shape[0]
        if self.hu.dtype != np.int16 or self.hu.ndim != 3:
            raise ValueError("SliceStack: hu is int16 with three axes")
        if self.positions_lps_mm.shape != (n, 3) or len(self.instance_uids) != n:
            raise ValueError("SliceStack: one position and one instance uid a slice")


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A CT volume on a regular grid.

    Args:
        hu: (z, y, x) int16 in Hounsfield units.
        geometry: its grid.
        thickness_mm: slice thickness, None where unknown; differs from the spacing.
        instance_uids: one SOPInstanceUID a slice (the nearest source slice where resampled),
            or empty where the format has none.
        flags: what was measured and repaired.
    """

    hu: HuArray = field(repr=False)
    geometry: Geometry
    thickness_mm: float | None = None
    instance_uids: tuple[str, ...] = ()
    flags: tuple[Flag, ...] = ()

    def __post_init__(self) -> None:
        if self.hu.dtype != np.int16 or self.hu.shape != self.geometry.shape_zyx:
            shape = self.geometry.shape_zyx
            raise ValueError(f"Volume: hu is int16 {shape}, not {self.hu.dtype} {self.hu.shape}")
        if self.instance_uids and len(self.instance_uids) != self.hu.shape[0]:
            raise ValueError("Volume: instance_uids has one entry a slice")


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelInput:
    """A series on the grid that networks see, made by volume.preprocess alone.

    Args:
        hu: (z, y, x) int16 HU; z runs towards the head, y to the back, x to the patient's left.
        geometry: its grid; boxes of detections are on this one.
        fingerprint: hash of the preprocessing that made it.
    """

    hu: HuArray = field(repr=False)
    geometry: Geometry
    fingerprint: str


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One raw box of the network on one slice, on the grid of its ModelInput.

    Args:
        label: key of a finding in the knowledge graph.
        box_zyx: one slice thick.
        score: uncalibrated, from 0 to 1.
        attributes: attribute -> value, as the graph names them.
    """

    label: str
    box_zyx: Box
    score: float
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What the detector says of one series.

    Args:
        detections: of all slices, above the network's floor, before suppression of overlaps.
        features: (d,) float32, one vector for the series.
        label_scores: image-level label -> score from 0 to 1, the highest over the slices.
    """

    detections: tuple[Detection, ...]
    features: NDArray[np.float32] = field(repr=False)
    label_scores: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One abnormality that raypipe claims, in three dimensions.

    Args:
        finding_id: "F1", "F2", ... by falling probability; what sentences cite.
        label: key of a finding in the knowledge graph.
        box_zyx: on the grid of the Volume.
        center_lps_mm: centre of the box in the patient.
        size_zyx_mm: edge lengths of the box.
        diameter_mm: longest edge within the slice plane.
        mean_hu: over the box's inner half; None where the series has no HU.
        side: "left", "right", "midline", or None where not known.
        level: anatomical level or region, None where not known.
        score: uncalibrated, from 0 to 1.
        probability: calibrated, None without a calibration.
        key_slice: index z on the Volume's grid where the finding shows best.
        instance_uid: SOPInstanceUID of that slice, "" where there is none.
        attributes: attribute -> value, as the graph names them.
    """

    finding_id: str
    label: str
    box_zyx: Box
    center_lps_mm: tuple[float, float, float]
    size_zyx_mm: tuple[float, float, float]
    diameter_mm: float
    mean_hu: float | None
    side: str | None
    level: str | None
    score: float
    probability: float | None = None
    key_slice: int
    instance_uid: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SeriesContext:
    """What a report may say of how a series was made; closed vocabularies and numbers only.

    Args:
        modality: "CT".
        body_part: "chest", "abdomen", "head", ... from a closed list, None where unknown.
        shape_zyx: voxels of the Volume.
        spacing_zyx_mm: of the Volume.
        thickness_mm: None where unknown.
        kvp: tube voltage, None where unknown.
        contrast: whether contrast medium was recorded, None where unknown.
        flags: what was measured and repaired.
        header_text: (keyword, text) of DICOM text fields that the config allows; what a person
            typed, so whoever passes it on escapes it.
    """

    modality: str = "CT"
    body_part: str | None = None
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    thickness_mm: float | None = None
    kvp: float | None = None
    contrast: bool | None = None
    flags: tuple[Flag, ...] = ()
    header_text: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """One sentence of a report and the findings that it rests on (none for normal statements).

    Args:
        text: the sentence.
        finding_ids: of the findings that it cites.
        score: the lowest of its findings' scores, uncalibrated; None without findings.
    """

    text: str
    finding_ids: tuple[str, ...] = ()
    score: float | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """A report and where each of its sentences comes from.

    Args:
        technique: how the series was acquired and read.
        findings: sentences of the section "Findings".
        impression: sentences of the section "Impression".
        needs_review: whether a check failed and a person has to read it with care.
        review_reasons: why.
        model: the language model (and adapter) that wrote it.
        tokens: tokens generated.
    """

    technique: str
    findings: tuple[Sentence, ...]
    impression: tuple[Sentence, ...]
    needs_review: bool = False
    review_reasons: tuple[str, ...] = ()
    model: str = ""
    tokens: int = 0
