"""Where the frames of one DICOM object lie.

In: a parsed header, single-frame or with functional groups. Out: one Plane a frame.
Does not know: other objects, pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from raypipe.archive.plausible import check_position_mm, check_spacing_mm, is_plausible_mm
from raypipe.errors import Reason, SeriesError

Vector = tuple[float, float, float]
_UNIT_TOLERANCE = 1e-2
"""How far cosines written with few digits may be from orthonormal."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One frame in the patient.

    Args:
        position_lps_mm: centre of the first voxel.
        direction: cosines of rows (along which x grows), then of columns, orthonormal.
        spacing_yx_mm: between rows, between columns.
        thickness_mm: nominal, None where unknown.
        temporal: what tells phases of one object apart.
    """

    position_lps_mm: Vector
    direction: tuple[float, float, float, float, float, float]
    spacing_yx_mm: tuple[float, float]
    thickness_mm: float | None = None
    temporal: int = 0

    @property
    def normal(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Unit vector along which slices are ordered."""
        return np.cross(self.direction[:3], self.direction[3:])


def frame_planes(dataset: Dataset) -> list[Plane]:
    """One Plane a frame.

    Raises:
        SeriesError: GEOMETRY_MISSING or GEOMETRY_INVALID.
    """
    per_frame = dataset.get("PerFrameFunctionalGroupsSequence")
    if not per_frame:
        frames = int(dataset.get("NumberOfFrames") or 1)
        if frames > 1:
            raise SeriesError(Reason.GEOMETRY_MISSING, f"{frames} frames without functional groups")
        return [_plane(dataset, dataset, dataset)]
    shared_items = dataset.get("SharedFunctionalGroupsSequence") or [Dataset()]
    shared = shared_items[0]
    return [
        _plane(
            _group(shared, own, "PlanePositionSequence"),
            _group(shared, own, "PlaneOrientationSequence"),
            _group(shared, own, "PixelMeasuresSequence"),
            temporal=int(
                _group(shared, own, "FrameContentSequence").get("TemporalPositionIndex") or 0
            ),
        )
        for own in per_frame
    ]


def slice_plane(header: Dataset, own: Dataset) -> Plane:
    """The Plane of a single-frame object whose position may lie apart from its header.

    Raises:
        SeriesError: GEOMETRY_MISSING or GEOMETRY_INVALID.
    """
    return _plane(own, header, header)


def at_own_position(plane: Plane, own: Dataset) -> Plane:
    """The Plane of another slice, which differs in its position alone.

    Raises:
        SeriesError: GEOMETRY_MISSING or GEOMETRY_INVALID.
    """
    return replace(plane, position_lps_mm=_position(own))


def _group(shared: Dataset, own: Dataset, keyword: str) -> Dataset:
    """A functional group of one frame: its own, else the shared one, else empty."""
    for source in (own, shared):
        items = source.get(keyword)
        if items:
            group: Dataset = items[0]
            return group
    return Dataset()


def _plane(position: Dataset, orientation: Dataset, measures: Dataset, temporal: int = 0) -> Plane:
    where = _position(position)
    cosines = _numbers(orientation, "ImageOrientationPatient", 6)
    spacing = _numbers(measures, "PixelSpacing", 2)
    check_spacing_mm("PixelSpacing", spacing)
    thickness: Any = measures.get("SliceThickness")
    try:
        thickness_mm = float(thickness)
    except (TypeError, ValueError):
        thickness_mm = 0.0
    row, column = _orthonormal(cosines)
    return Plane(
        position_lps_mm=where,
        direction=(*row, *column),
        spacing_yx_mm=(float(spacing[0]), float(spacing[1])),
        thickness_mm=thickness_mm if is_plausible_mm(thickness_mm) else None,
        temporal=temporal,
    )


def _position(dataset: Dataset) -> Vector:
    where = _numbers(dataset, "ImagePositionPatient", 3)
    check_position_mm("ImagePositionPatient", where)
    return float(where[0]), float(where[1]), float(where[2])


def _numbers(dataset: Dataset, keyword: str, count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    value = dataset.get(keyword)
    if value is None or isinstance(value, str | bytes) or len(value) == 0:
        raise SeriesError(Reason.GEOMETRY_MISSING, f"{keyword} is missing")
    try:
        numbers = np.array([float(v) for v in value], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SeriesError(Reason.GEOMETRY_INVALID, f"{keyword} holds no numbers") from error
    if len(numbers) != count or not np.all(np.isfinite(numbers)):
        raise SeriesError(Reason.GEOMETRY_INVALID, f"{keyword} has not {count} finite numbers")
    return numbers


def _orthonormal(cosines: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[Vector, Vector]:
    row, column = cosines[:3], cosines[3:]
    lengths = float(np.linalg.norm(row)), float(np.linalg.norm(column))
    skewed = float(np.abs([lengths[0] - 1, lengths[1] - 1, float(row @ column)]).max())
    if skewed > _UNIT_TOLERANCE:
        raise SeriesError(
            Reason.GEOMETRY_INVALID,
            f"ImageOrientationPatient is off orthonormal by {skewed:.3f}",
        )
    row = row / lengths[0]
    column = column - (column @ row) * row
    column = column / np.linalg.norm(column)
    x, y = row.tolist(), column.tolist()
    return (x[0], x[1], x[2]), (y[0], y[1], y[2])


def frame_distance_mm(planes: Sequence[Plane]) -> float | None:
    """Median distance of neighbouring frames along the normal, None for a single frame."""
    if len(planes) < 2:
        return None
    along = np.sort(np.array([p.position_lps_mm for p in planes]) @ planes[0].normal)
    return float(np.median(np.diff(along)))
