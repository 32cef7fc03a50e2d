"""From decoded slices to a Volume on a straight regular grid, repaired where that is honest.

In: a SliceStack, or a Volume from a format that carries a grid. Out: a Volume with flags.
Does not know: file formats, networks.

Slices are ordered by their position along the normal (rows x columns of the stack), ascending. A
stack that is straight and regular within the tolerances is not touched: its HU are those of the
file, bit by bit. What is repaired carries a flag: a sheared stack (gantry tilt) and uneven spacing
are resampled; slices missing or stored twice are a matter of policy.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Geometry
from raypipe.settings import Settings
from raypipe.types import Flag, HuArray, SliceStack, Volume
from raypipe.volume.checks import Spacing, check_ct_values, measure_spacing
from raypipe.volume.resample import Layout, resample_stack, straight_geometry, straighten


class VolumeConfig(Settings):
    """What is repaired, what is refused."""

    missing_slices: Literal["reject", "interpolate"] = Field(
        "reject",
        description="What happens to a series with missing slices: refused, or filled linearly "
        "with the flag slice_gaps. Interpolated slices show nothing that lay between.",
    )
    max_gap_mm: float = Field(
        30.0, gt=0, description="Widest gap that interpolation may fill, in mm."
    )
    duplicate_slices: Literal["reject", "keep_first"] = Field(
        "reject",
        description="What happens where one position has several different slices. Identical "
        "ones are always reduced to the first.",
    )
    spacing_tolerance_mm: float = Field(
        0.1, gt=0, description="How far a slice may lie from a regular grid, in mm."
    )
    shear_tolerance_mm: float = Field(
        0.5,
        gt=0,
        description="How far the last slice may be shifted sideways against the first, in mm, "
        "before the stack counts as sheared. Smaller shear stays in the affine.",
    )
    same_position_mm: float = Field(
        0.01, gt=0, description="Slices closer than this have one position, in mm."
    )
    max_voxels: int = Field(
        2_000_000_000, ge=1, description="Largest volume, in voxels of two bytes."
    )
    check_hu: bool = Field(True, description="Refuse label maps and values that cannot be CT.")
    min_range_hu: float = Field(
        50.0, ge=0, description="HU between the 0.1 and 99.9 percentile, at least."
    )
    min_soft_share: float = Field(
        0.001, ge=0, le=1, description="Share of voxels from -300 to 300 HU, at least."
    )
    min_negative_share: float = Field(
        0.0001, ge=0, le=1, description="Share of voxels below 0 HU, at least."
    )


def to_volume(read: SliceStack | Volume, config: VolumeConfig) -> Volume:
    """Check and, where needed and allowed, repair what was read.

    Raises:
        SeriesError: SLICE_GAP, DUPLICATE_SLICE, GEOMETRY_INVALID, TOO_LARGE, LABEL_MAP or
            HU_IMPLAUSIBLE.
    """
    _check_size(read.hu.shape, config.max_voxels)
    if config.check_hu and Flag.NO_HU not in read.flags:
        check_ct_values(
            read.hu,
            min_range_hu=config.min_range_hu,
            min_soft_share=config.min_soft_share,
            min_negative_share=config.min_negative_share,
        )
    return _of_stack(read, config) if isinstance(read, SliceStack) else _of_volume(read, config)


def _check_size(shape: tuple[int, ...], max_voxels: int) -> None:
    voxels = int(np.prod(shape, dtype=np.int64))
    if voxels > max_voxels:
        raise SeriesError(Reason.TOO_LARGE, f"{voxels} voxels, max_voxels is {max_voxels}")


def _of_volume(volume: Volume, config: VolumeConfig) -> Volume:
    """Straighten a sheared grid; leave every other volume as it is."""
    straight = straight_geometry(volume.geometry)
    if _drift_mm(volume.geometry) <= config.shear_tolerance_mm:
        return volume
    _check_size(straight.shape_zyx, config.max_voxels)
    hu, geometry = straighten(volume.hu, volume.geometry)
    return Volume(
        hu=hu,
        geometry=geometry,
        thickness_mm=volume.thickness_mm,
        flags=_flags(volume.flags, {Flag.GANTRY_TILT, Flag.RESAMPLED}),
    )


def _drift_mm(geometry: Geometry) -> float:
    """How far the far end of each axis leaves the right angle to the others."""
    axes = geometry.affine_zyx_to_lps[:3, :3] * (np.array(geometry.shape_zyx) - 1)
    units = geometry.affine_zyx_to_lps[:3, :3] / np.array(geometry.spacing_zyx_mm)
    drift = np.abs(axes.T @ units)
    np.fill_diagonal(drift, 0.0)
    return float(drift.max())


def _flags(before: tuple[Flag, ...], new: set[Flag]) -> tuple[Flag, ...]:
    return tuple(dict.fromkeys((*before, *sorted(new))))


@dataclass(frozen=True, eq=False)
class _Frame:
    """The stack's own axes and where its slices lie on them, in mm."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    normal: NDArray[np.float64]
    along: NDArray[np.float64]


def _frame(stack: SliceStack) -> _Frame:
    x, y = np.array(stack.row_direction), np.array(stack.column_direction)
    normal = np.cross(x, y)
    return _Frame(x, y, normal, stack.positions_lps_mm @ normal)


def _of_stack(stack: SliceStack, config: VolumeConfig) -> Volume:
    frame = _frame(stack)
    order, flags = _order(stack, frame.along, config)
    if len(order) == 1:
        return _single(stack, frame, int(order[0]), flags)
    along, positions = frame.along[order], stack.positions_lps_mm[order]
    spacing = measure_spacing(along, config.spacing_tolerance_mm)
    if spacing.missing:
        _check_gaps(spacing.missing, spacing.widest_mm, config)
        flags.add(Flag.SLICE_GAPS)
    elif not spacing.even:
        flags.add(Flag.UNEVEN_SPACING)
    if stack.thickness_mm and stack.thickness_mm > spacing.base_mm + config.spacing_tolerance_mm:
        flags.add(Flag.OVERLAPPING_SLICES)
    inplane = np.stack([positions @ frame.y, positions @ frame.x], axis=1)
    drift = inplane - inplane[0]
    sheared = float(np.abs(drift).max()) > config.shear_tolerance_mm
    if sheared:
        flags.add(Flag.GANTRY_TILT)
    if spacing.even and not sheared:
        return _regular(stack, order, positions, flags)
    flags.add(Flag.RESAMPLED)
    volume = _resampled(stack, order, drift, spacing, config.max_voxels)
    return replace(volume, flags=_flags(stack.flags, flags))


def _order(
    stack: SliceStack, along: NDArray[np.float64], config: VolumeConfig
) -> tuple[NDArray[np.int64], set[Flag]]:
    """Slices by position, each position once."""
    order = np.argsort(along, kind="stable")
    flags: set[Flag] = set()
    if len(order) > 1 and along[order[-1]] - along[order[0]] <= config.same_position_mm:
        raise SeriesError(Reason.GEOMETRY_INVALID, f"{len(order)} slices at one position")
    kept: list[int] = []
    for i in order:
        if kept and along[i] - along[kept[-1]] <= config.same_position_mm:
            same = np.array_equal(stack.hu[i], stack.hu[kept[-1]])
            if not same and config.duplicate_slices == "reject":
                raise SeriesError(
                    Reason.DUPLICATE_SLICE,
                    "one position has slices that differ; duplicate_slices: keep_first takes one",
                )
            flags.add(Flag.DUPLICATE_SLICES)
            continue
        kept.append(int(i))
    return np.array(kept, dtype=np.int64), flags


def _check_gaps(missing: int, widest_mm: float, config: VolumeConfig) -> None:
    if config.missing_slices == "reject":
        raise SeriesError(
            Reason.SLICE_GAP, f"{missing} slices are missing, the widest gap is {widest_mm:.2f} mm"
        )
    if widest_mm > config.max_gap_mm:
        raise SeriesError(
            Reason.SLICE_GAP, f"a gap of {widest_mm:.2f} mm, max_gap_mm is {config.max_gap_mm:g}"
        )


def _single(stack: SliceStack, frame: _Frame, i: int, flags: set[Flag]) -> Volume:
    depth = stack.thickness_mm or 1.0
    affine = _affine(frame, stack, stack.positions_lps_mm[i], frame.normal * depth)
    return Volume(
        hu=stack.hu[i : i + 1],
        geometry=Geometry(shape_zyx=(1, *stack.hu.shape[1:]), affine_zyx_to_lps=affine),
        thickness_mm=stack.thickness_mm,
        instance_uids=(stack.instance_uids[i],),
        flags=_flags(stack.flags, flags | {Flag.SINGLE_SLICE}),
    )


def _affine(
    frame: _Frame,
    stack: SliceStack,
    origin: NDArray[np.float64],
    step: NDArray[np.float64],
) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = frame.y * stack.spacing_yx_mm[0]
    affine[:3, 2] = frame.x * stack.spacing_yx_mm[1]
    affine[:3, 3] = origin
    return affine


def _regular(
    stack: SliceStack, order: NDArray[np.int64], positions: NDArray[np.float64], flags: set[Flag]
) -> Volume:
    """Nothing to repair: the voxels of the file."""
    step = (positions[-1] - positions[0]) / (len(order) - 1)
    affine = _affine(_frame(stack), stack, positions[0], step)
    in_order = len(order) == len(stack.hu) and bool(np.all(np.diff(order) == 1))
    hu: HuArray = stack.hu if in_order else stack.hu[order]
    return Volume(
        hu=hu,
        geometry=Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine),
        thickness_mm=stack.thickness_mm,
        instance_uids=tuple(stack.instance_uids[i] for i in order),
        flags=_flags(stack.flags, flags),
    )


def _resampled(
    stack: SliceStack,
    order: NDArray[np.int64],
    drift_yx_mm: NDArray[np.float64],
    measured: Spacing,
    max_voxels: int,
) -> Volume:
    """Slices onto planes a base distance apart; the plane is as wide as all slices together."""
    frame = _frame(stack)
    along, base_mm = frame.along[order], measured.base_mm  # exact where the spacing is even
    count = len(order) if measured.even else int((along[-1] - along[0]) / base_mm + 1e-6) + 1
    targets = along[0] + base_mm * np.arange(count)
    spacing = np.array(stack.spacing_yx_mm)
    drift = drift_yx_mm / spacing
    low = np.minimum(np.floor(drift.min(axis=0) + 1e-3), 0)
    high = np.maximum(np.ceil(drift.max(axis=0) - 1e-3), 0)
    rows, columns = (int(n) for n in np.array(stack.hu.shape[1:]) + high - low)
    _check_size((count, rows, columns), max_voxels)
    layout = Layout(along_mm=along, offset_yx=drift - low)
    hu = resample_stack(stack.hu[order], layout, targets, (rows, columns))
    origin = (
        stack.positions_lps_mm[order[0]]
        + frame.y * (low[0] * spacing[0])
        + frame.x * (low[1] * spacing[1])
    )
    affine = _affine(frame, stack, origin, frame.normal * base_mm)
    nearest = np.abs(targets[:, None] - along[None, :]).argmin(axis=1)
    return Volume(
        hu=hu,
        geometry=Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine),
        thickness_mm=stack.thickness_mm,
        instance_uids=tuple(stack.instance_uids[order[i]] for i in nearest),
    )
