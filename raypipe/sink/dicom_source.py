"""The stored slices that a finding lies on, and what DICOM objects about them share.

In: a result row, the stored slices of its series (headers and planes). Out: the outline of a box on
each slice, headers that hold what new objects copy, UIDs.
Does not know: structured reports, segmentations, where headers come from.

A result's boxes lie on the grid of the Volume, which may be resampled or run the other way than the
stored slices; the way between them is the patient's space.
"""

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Geometry
from raypipe.sink.schema import Row, typed_finding
from raypipe.types import Finding

NOT_FOR_DIAGNOSIS = "Research use only. Not for diagnosis or treatment."
MANUFACTURER = "raypipe"
_DUMMY_TIME = datetime(1900, 1, 1)
_FACE_TOLERANCE_MM = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceSlice:
    """One stored slice of a series.

    Args:
        header: gives the header of its instance, without pixels; called only where an object copies
            from it.
        shape_yx: rows and columns.
        frame: number inside a multi-frame instance, from 1; None in a single-frame one.
        position_lps_mm: centre of the first voxel.
        direction: cosines of rows, then of columns.
        spacing_yx_mm: between rows, between columns.
    """

    header: Callable[[], Dataset]
    shape_yx: tuple[int, int]
    frame: int | None
    position_lps_mm: tuple[float, float, float]
    direction: tuple[float, float, float, float, float, float]
    spacing_yx_mm: tuple[float, float]

    def points(self, lps_mm: Any) -> NDArray[np.float64]:
        """(n, 3): column and row in voxels from the image's corner, depth along the normal, mm."""
        row, column = np.array(self.direction[:3]), np.array(self.direction[3:])
        away = np.asarray(lps_mm, dtype=np.float64) - np.array(self.position_lps_mm)
        x = away @ row / self.spacing_yx_mm[1] + 0.5
        y = away @ column / self.spacing_yx_mm[0] + 0.5
        return np.stack([x, y, away @ np.cross(row, column)], axis=-1)


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A finding's box on one stored slice: half-open, in voxels from the image's corner.

    Args:
        index: of the slice.
        lower_yx, upper_yx: the rectangle, inside the image.
    """

    index: int
    lower_yx: tuple[float, float]
    upper_yx: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A finding and where it lies.

    Args:
        finding: the finding.
        outlines: on every slice that the box touches, at least one, by index.
        key: the outline on the slice that shows the finding best.
    """

    finding: Finding
    outlines: tuple[Outline, ...]
    key: Outline


def place_findings(row: Row, slices: Sequence[SourceSlice]) -> tuple[Placed, ...]:
    """Where the findings of a row lie on the stored slices.

    Args:
        row: a result row with status "ok".
        slices: all slices of the series, which share one orientation.
    """
    affine = np.array(row["affine_zyx_to_lps"], dtype=np.float64).reshape(4, 4)
    geometry = Geometry(shape_zyx=tuple(row["shape_zyx"]), affine_zyx_to_lps=affine)
    return tuple(_place(typed_finding(f), geometry, slices) for f in row["findings"] or ())


def _place(finding: Finding, geometry: Geometry, slices: Sequence[SourceSlice]) -> Placed:
    corners = geometry.corners_lps_mm(finding.box_zyx)
    _, y, x = finding.box_zyx.center_zyx
    center = geometry.to_lps_mm((float(finding.key_slice), y, x))
    depths = [float(s.points(center)[2]) for s in slices]
    nearest = int(np.argmin(np.abs(depths)))
    outlines = {}
    for index, stored in enumerate(slices):
        points = stored.points(corners)
        low, high = points.min(axis=0), points.max(axis=0)
        crossed = low[2] <= _FACE_TOLERANCE_MM and high[2] >= -_FACE_TOLERANCE_MM
        if crossed or index == nearest:
            outlines[index] = _outline(index, stored, low, high)
    return Placed(finding=finding, outlines=tuple(outlines.values()), key=outlines[nearest])


def _outline(index: int, stored: SourceSlice, low: Any, high: Any) -> Outline:
    limits = np.array(stored.shape_yx, dtype=np.float64)
    lower = np.clip(low[[1, 0]], 0.0, limits - 1.0)
    upper = np.clip(high[[1, 0]], lower + 1e-3, limits)
    return Outline(
        index=index,
        lower_yx=(float(lower[0]), float(lower[1])),
        upper_yx=(float(upper[0]), float(upper[1])),
    )


_EMPTY_IF_MISSING = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)

_DATE = r"(\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01]))?"
_PLAIN = {
    "PatientBirthDate": _DATE,
    "StudyDate": _DATE,
    "StudyTime": r"(([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?)?",
    "PatientSex": r"[MFO]?",
}
"""Values that highdicom takes; what is none of them is left empty."""


def completed_headers(slices: Sequence[SourceSlice], series_key: str) -> list[Dataset]:
    """A completed header a slice; frames of one instance share one, as theirs is long.

    Raises:
        SeriesError: HEADER_UNREADABLE, an instance has no UIDs to refer to it by.
    """
    headers = [stored.header() for stored in slices]
    once = {id(header): header for header in headers}
    completed = {key: completed_header(header, series_key) for key, header in once.items()}
    return [completed[id(header)] for header in headers]


def completed_header(header: Dataset, series_key: str) -> Dataset:
    """A copy that holds all that a new object has to copy, empty where the source has nothing.

    Real archives leave out attributes that the standard demands. A missing UID of series, study or
    frame of reference is made from the series key, so that all objects about it agree.

    Raises:
        SeriesError: HEADER_UNREADABLE, the instance has no UIDs to refer to it by.
    """
    new = deepcopy(header)
    meta = getattr(new, "file_meta", Dataset())
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not new.get(keyword):
            setattr(new, keyword, meta.get(f"MediaStorage{keyword}") or "")
        if not new.get(keyword):
            raise SeriesError(
                Reason.HEADER_UNREADABLE, f"{keyword} is missing: nothing can refer to the instance"
            )
    for keyword in _EMPTY_IF_MISSING:
        if keyword not in new:
            setattr(new, keyword, "")
    for keyword, pattern in _PLAIN.items():
        if not re.fullmatch(pattern, str(new.get(keyword) or "")):
            setattr(new, keyword, "")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not new.get(keyword):
            setattr(new, keyword, derived_uid(keyword, series_key))
    return new


def derived_uid(*parts: object) -> str:
    """A UID that depends on nothing but its arguments."""
    return str(generate_uid(entropy_srcs=["raypipe export", *map(str, parts)]))


def content_of(row: Row) -> str:
    """What an object about a row says: a UID changes with it and with nothing else."""
    return repr([row[name] for name in ("series_key", "findings", "report", "provenance")])


def stamp(dataset: Dataset, made_at: datetime | None) -> None:
    """Date a new object; None gives a plain dummy, where a date could lead to a patient."""
    when = made_at or _DUMMY_TIME
    for keyword in ("InstanceCreation", "Content", "Series"):
        if f"{keyword}Date" in dataset:
            setattr(dataset, f"{keyword}Date", f"{when:%Y%m%d}")
            setattr(dataset, f"{keyword}Time", f"{when:%H%M%S}")
    library = dataset.ContributingEquipmentSequence[-1]  # highdicom dates its own part
    library.ContributionDateTime = f"{when:%Y%m%d%H%M%S}"


def software_of(row: Row) -> str:
    """Version of the software that made a row."""
    return str((row["provenance"] or {}).get("raypipe") or "unknown")


def parameters_of(row: Row) -> list[str]:
    """What made a row, as "name=value"."""
    provenance = row["provenance"] or {}
    return [
        f"{name}={provenance[name]}"
        for name in ("weights_hash", "preprocessing", "config_hash", "language_model")
        if provenance.get(name)
    ]


def encoded(document: Dataset) -> bytes:
    """A new object as the content of a DICOM file."""
    buffer = io.BytesIO()
    with quiet_dicom():
        document.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@contextmanager
def quiet_dicom() -> Iterator[None]:
    """Silence warnings and logs of highdicom and pydicom: they name values, maybe a patient's.

    For the outermost call of one thread: both are shared by all threads.
    """
    loggers = [logging.getLogger(name) for name in ("highdicom", "pydicom")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
