"""Read the objects of one DICOM series into a SliceStack.

In: a SeriesRef of kind DICOM. Out: HU and the place of every slice, in the order of the manifest.
Does not know: what a good volume is; order, gaps and tilt are volume's business.

One slice is decoded at a time, into one array that is made beforehand.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from raypipe.archive.dicom_facts import GEOMETRY_KEYWORDS
from raypipe.archive.elements import text_of
from raypipe.archive.manifest import nominal_thickness_mm
from raypipe.archive.pixels import (
    PIXEL_KEYWORDS,
    DicomObject,
    check_length,
    open_object,
    stored_frames,
)
from raypipe.archive.planes import Plane, at_own_position, frame_planes, slice_plane
from raypipe.archive.rescale import Scale, clean_bits, is_already_hu, scale_of, to_hu
from raypipe.archive.storage import StorageConfig, read_bytes, read_each
from raypipe.errors import Reason, SeriesError, source_changed
from raypipe.types import Flag, HuArray, SeriesRef, SliceStack

_KEYWORDS = tuple(dict.fromkeys((*GEOMETRY_KEYWORDS, *PIXEL_KEYWORDS)))
_OWN_KEYWORDS = ("SOPInstanceUID", "ImagePositionPatient")
_SAME_COSINE = 1e-3
_SAME_SPACING = 1e-3
_DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError, ArithmeticError),
    *(NotImplementedError, OSError, EOFError, RecursionError, struct.error),
)
"""What pydicom raises where a value breaks its VR, at whatever place it is asked for."""


@dataclass(frozen=True)
class _Shared:
    """What slices with the same header have in common.

    Args:
        header: of them all.
        scale: how their pixels become HU.
        plane: of one of them.
        enhanced: whether positions lie in functional groups, and with them in the header.
    """

    header: Dataset
    scale: Scale
    plane: Plane
    enhanced: bool


@dataclass
class _Builder:
    """The stack while it is being filled; `hu` grows only for multi-frame objects."""

    hu: HuArray
    planes: list[Plane | None] = field(default_factory=list)
    instance_uids: list[str] = field(default_factory=list)
    flags: set[Flag] = field(default_factory=set)
    shared: _Shared | None = None

    def shared_of(self, item: DicomObject) -> _Shared:
        """What a slice has in common with the one before, or with those to come."""
        if self.shared is None or self.shared.header is not item.header:
            enhanced = bool(item.header.get("PerFrameFunctionalGroupsSequence"))
            plane = frame_planes(item.header)[0] if enhanced else slice_plane(item.header, item.own)
            self.shared = _Shared(item.header, _frame_scales(item)[0], plane, enhanced)
        return self.shared


def read_dicom(ref: SeriesRef, storage: StorageConfig, *, max_voxels: int) -> SliceStack:
    """Decode a series.

    Args:
        ref: single-frame instances, or one or several multi-frame objects.
        storage: how to reach them.
        max_voxels: refuse larger series before they are decoded.

    Raises:
        SeriesError: any reason of geometry, pixels or source.
    """
    with _damage_as_series_error():
        return _read(_Source(ref, storage, max_voxels), ref)


@contextmanager
def _damage_as_series_error() -> Iterator[None]:
    """Turn what damaged values of a header raise into SeriesError; values are read when needed."""
    try:
        yield
    except _DAMAGE as error:
        kind = type(error).__name__
        raise SeriesError(
            Reason.HEADER_UNREADABLE, f"a value of the header is damaged ({kind})"
        ) from error


@dataclass(frozen=True)
class _Source:
    """The objects of one series, opened when they are asked for."""

    ref: SeriesRef
    storage: StorageConfig
    max_voxels: int

    def open(self, i: int) -> DicomObject:
        """One object by its place in the manifest."""
        return self._opened(i, read_bytes(self.ref.instances[i].uri, self.storage))

    def open_each(self) -> Iterator[tuple[int, DicomObject]]:
        """Every object, in the order in which they come fastest."""
        uris = [i.uri for i in self.ref.instances]
        for i, content in read_each(uris, self.storage):
            yield i, self._opened(i, content)

    def _opened(self, i: int, content: bytes) -> DicomObject:
        """Parse an object, and see that it is the one that was indexed."""
        listed = self.ref.instances[i]
        if len(content) != listed.byte_size:
            raise source_changed(listed.byte_size, len(content))
        item = open_object(content, _KEYWORDS, _OWN_KEYWORDS, max_voxels=self.max_voxels)
        if listed.instance_uid and text_of(item.own, "SOPInstanceUID") != listed.instance_uid:
            raise SeriesError(
                Reason.SOURCE_CHANGED, "an object has another SOPInstanceUID than in the manifest"
            )
        return item


def _read(source: _Source, ref: SeriesRef) -> SliceStack:
    first, max_voxels = source.open(0), source.max_voxels
    rows, columns = int(first.header.get("Rows") or 0), int(first.header.get("Columns") or 0)
    # the last part of a concatenation may have a single frame
    multi = first.frames > 1 or bool(first.header.get("ConcatenationUID"))
    n = first.frames if multi else len(ref.instances)
    if n * rows * columns > max_voxels:
        raise SeriesError(Reason.TOO_LARGE, f"{n} x {rows} x {columns}, limit {max_voxels} voxels")
    check_length(first)
    already_hu = _stored_hu(source, first)
    if multi:
        numbers = range(len(ref.instances))
        parts = [_read_frames(source.open(i), already_hu, max_voxels) for i in numbers]
        builder = parts[0] if len(parts) == 1 else _joined(parts)
    else:
        builder = _Builder(np.empty((n, rows, columns), dtype=np.int16), [None] * n, [""] * n)
        for i, item in source.open_each():
            _read_slice(item, i, builder, already_hu)
    if already_hu:
        builder.flags.add(Flag.HU_ALREADY_RESCALED)
    return _stack(builder, ref)


def _stored_hu(source: _Source, first: DicomObject) -> bool:
    """Whether the intercept must be left out, judged by three slices where it may be so."""
    scale = _frame_scales(first)[0]
    if not scale.signed or scale.intercept >= 0:
        return False
    samples = []
    n = len(source.ref.instances)
    for k in sorted({0, n // 2, 3 * n // 4}):
        item = first if k == 0 else source.open(k)
        middle = item.frames // 2
        samples += [
            clean_bits(raw, scale) for i, raw in enumerate(stored_frames(item)) if i == middle
        ]
    return is_already_hu(samples, scale)


def _frame_scales(item: DicomObject) -> list[Scale]:
    """One Scale a frame; functional groups may hold their own."""
    header = item.header
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    groups = len(per_frame or ())
    if item.frames > 1 and groups != item.frames:
        raise SeriesError(
            Reason.HEADER_UNREADABLE, f"{groups} functional groups for {item.frames} frames"
        )
    if not per_frame:
        return [scale_of(header)] * item.frames
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    common = shared.get("PixelValueTransformationSequence")
    scales: dict[int, Scale] = {}
    result = []
    for own in per_frame:
        items = own.get("PixelValueTransformationSequence") or common
        key = id(items)
        if key not in scales or items is not common:
            scales[key] = scale_of(header, items[0] if items else None)
        result.append(scales[key])
    return result


def _read_slice(item: DicomObject, i: int, builder: _Builder, already_hu: bool) -> None:
    if item.frames != 1:
        raise SeriesError(Reason.SHAPE_MISMATCH, "single-frame and multi-frame objects are mixed")
    shared = builder.shared_of(item)
    builder.planes[i] = shared.plane if shared.enhanced else at_own_position(shared.plane, item.own)
    builder.instance_uids[i] = str(item.own.get("SOPInstanceUID") or "")
    for raw in stored_frames(item):
        _convert(raw, shared.scale, builder, i, already_hu)


def _convert(raw: Any, scale: Scale, builder: _Builder, i: int, already_hu: bool) -> None:
    if raw.shape != builder.hu.shape[1:]:
        raise SeriesError(
            Reason.SHAPE_MISMATCH, f"a slice of {raw.shape} among {builder.hu.shape[1:]}"
        )
    if already_hu:
        scale = replace(scale, intercept=0.0)
    builder.flags |= to_hu(raw, scale, builder.hu[i])


def _read_frames(item: DicomObject, already_hu: bool, max_voxels: int) -> _Builder:
    """All frames of one multi-frame object."""
    header, n = item.header, item.frames
    shape = (n, int(header.get("Rows") or 0), int(header.get("Columns") or 0))
    if n * shape[1] * shape[2] > max_voxels:
        raise SeriesError(Reason.TOO_LARGE, f"{shape}, limit {max_voxels} voxels")
    scales, planes = _frame_scales(item), frame_planes(header)
    check_length(item)
    uid = str(item.own.get("SOPInstanceUID") or "")
    builder = _Builder(np.empty(shape, dtype=np.int16), list(planes), [uid] * n)
    for i, raw in enumerate(stored_frames(item)):
        _convert(raw, scales[i], builder, i, already_hu)
    return builder


def _joined(parts: list[_Builder]) -> _Builder:
    if len({p.hu.shape[1:] for p in parts}) > 1:
        raise SeriesError(Reason.SHAPE_MISMATCH, "parts of one object differ in rows or columns")
    return _Builder(
        np.concatenate([p.hu for p in parts]),
        [plane for p in parts for plane in p.planes],
        [uid for p in parts for uid in p.instance_uids],
        set().union(*(p.flags for p in parts)),
    )


def _stack(builder: _Builder, ref: SeriesRef) -> SliceStack:
    planes = [p for p in builder.planes if p is not None]
    assert len(planes) == builder.hu.shape[0], "every slice was read"
    first = planes[0]
    for plane in planes:
        turned = np.abs(np.subtract(plane.direction, first.direction)).max()
        resized = np.abs(np.subtract(plane.spacing_yx_mm, first.spacing_yx_mm)).max()
        if turned > _SAME_COSINE or resized > _SAME_SPACING:
            raise SeriesError(
                Reason.GEOMETRY_INVALID, "orientation or pixel spacing differs between slices"
            )
    x, y = first.direction[:3], first.direction[3:]
    return SliceStack(
        hu=builder.hu,
        positions_lps_mm=np.array([p.position_lps_mm for p in planes], dtype=np.float64),
        row_direction=x,
        column_direction=(y[0], y[1], y[2]),
        spacing_yx_mm=first.spacing_yx_mm,
        thickness_mm=nominal_thickness_mm(p.thickness_mm for p in planes),
        instance_uids=tuple(builder.instance_uids),
        flags=tuple(dict.fromkeys((*ref.flags, *sorted(builder.flags)))),
    )
