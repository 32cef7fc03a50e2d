"""Put slices that lie unevenly, or sheared, onto a straight regular grid.

In: decoded slices and where they lie, or a sheared grid. Out: HU on a straight grid.
Does not know: policies, file formats.

All interpolation is linear; what lies outside every slice is air. A target slice that falls on a
source slice which is not shifted is copied bit by bit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.geometry import Geometry
from raypipe.types import HuArray

AIR_HU = -1024
_ON_SLICE = 1e-3
"""A target this close to a source slice, in parts of their distance, is a copy of it."""
_NO_SHIFT = 1e-3
"""A shift within the plane below this part of a pixel is none."""

_ON_FACE = 1e-6
"""A target this close outside of the grid, in voxels, is on its face: rounding moved it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """Where the slices of a stack lie, in the frame of its own planes.

    Args:
        along_mm: (n,) position along the normal, ascending.
        offset_yx: (n, 2) where each slice's first voxel lies within the plane, in pixels of the
            target grid; all 0 for a straight stack.
    """

    along_mm: NDArray[np.float64]
    offset_yx: NDArray[np.float64]


def resample_stack(
    hu: HuArray,
    layout: Layout,
    targets_mm: NDArray[np.float64],
    shape_yx: tuple[int, int],
) -> HuArray:
    """Linear interpolation of slices onto planes at other positions.

    Args:
        hu: (n, y, x) slices in the order of the layout.
        layout: where they lie.
        targets_mm: (m,) positions of the planes wanted, within the range of the slices.
        shape_yx: size of the target planes; the target's first voxel lies at the offset 0, 0.

    Returns:
        (m, y, x) int16 HU.
    """
    out = np.empty((len(targets_mm), *shape_yx), dtype=np.int16)
    shifted: dict[int, NDArray[np.float32] | HuArray] = {}
    for k, target in enumerate(targets_mm):
        below, weight = _neighbours(layout.along_mm, float(target))
        needed = {below} if weight == 0.0 else {below, below + 1}
        shifted = {i: s for i, s in shifted.items() if i in needed}
        for i in needed - shifted.keys():
            shifted[i] = _shift(hu[i], layout.offset_yx[i], shape_yx)
        if weight == 0.0:
            plane = shifted[below]
        else:
            plane = (1.0 - weight) * shifted[below].astype(np.float32) + np.float32(
                weight
            ) * shifted[below + 1].astype(np.float32)
        out[k] = plane if plane.dtype == np.int16 else np.rint(plane)
    return out


def _neighbours(along_mm: NDArray[np.float64], target: float) -> tuple[int, float]:
    """The slice at or below a target, and the weight of the one above it."""
    last = len(along_mm) - 1
    below = int(np.clip(np.searchsorted(along_mm, target, side="right") - 1, 0, max(0, last - 1)))
    if last == 0:
        return 0, 0.0
    weight = (target - along_mm[below]) / (along_mm[below + 1] - along_mm[below])
    if weight <= _ON_SLICE:
        return below, 0.0
    if weight >= 1.0 - _ON_SLICE:
        return below + 1, 0.0
    return below, float(weight)


def _shift(
    plane: HuArray, offset_yx: NDArray[np.float64], shape_yx: tuple[int, int]
) -> NDArray[np.float32] | HuArray:
    """A slice on the target plane: target index = slice index + offset."""
    if np.all(np.abs(offset_yx) < _NO_SHIFT) and plane.shape == shape_yx:
        return plane
    result: NDArray[np.float32] = plane.astype(np.float32)
    for axis in (0, 1):
        result = _shift_axis(result, float(offset_yx[axis]), shape_yx[axis], axis)
    return result


def _shift_axis(
    plane: NDArray[np.float32], offset: float, size: int, axis: int
) -> NDArray[np.float32]:
    """Linear interpolation along one axis; air beyond the slice."""
    plane = np.moveaxis(plane, axis, 0)
    whole = int(np.floor(offset + _NO_SHIFT))
    part = max(0.0, offset - whole)
    shape = (size, *plane.shape[1:])
    moved = np.full((2, *shape), AIR_HU, dtype=np.float32)
    for k in (0, 1):  # the two whole shifts between which the wanted one lies
        start = whole + k
        low, high = max(0, start), min(size, start + plane.shape[0])
        if low < high:
            moved[k, low:high] = plane[low - start : high - start]
        if part < _NO_SHIFT:
            return np.moveaxis(moved[0], 0, axis)
    return np.moveaxis((1.0 - np.float32(part)) * moved[0] + np.float32(part) * moved[1], 0, axis)


def straighten(hu: HuArray, geometry: Geometry) -> tuple[HuArray, Geometry]:
    """A sheared grid onto the straight grid that spans the same region.

    The x axis keeps its direction, y turns into the plane of x and y, z into their normal; the
    spacing along each is that of the sheared grid, measured along the new axis.
    """
    from scipy import ndimage

    target = straight_geometry(geometry)
    matrix = geometry._lps_to_zyx @ target.affine_zyx_to_lps
    out = np.empty(target.shape_zyx, dtype=np.int16)
    last = np.array(hu.shape)[:, None, None] - 1
    for z in range(target.shape_zyx[0]):  # plane by plane: one float plane in memory
        offset = matrix[:3, 3] + matrix[:3, 0] * z
        index = (
            offset[:, None, None]
            + matrix[:3, 1][:, None, None] * np.arange(target.shape_zyx[1])[None, :, None]
            + matrix[:3, 2][:, None, None] * np.arange(target.shape_zyx[2])[None, None, :]
        )
        inside = np.clip(index, 0, last)
        index = np.where(np.abs(index - inside) < _ON_FACE, inside, index)
        plane = ndimage.map_coordinates(
            hu, index, output=np.float32, order=1, mode="constant", cval=AIR_HU
        )
        out[z] = np.rint(plane)
    return out, target


def straight_geometry(geometry: Geometry) -> Geometry:
    """The straight grid that `straighten` fills."""
    affine = geometry.affine_zyx_to_lps[:3, :3]
    x = affine[:, 2] / np.linalg.norm(affine[:, 2])
    y = affine[:, 1] - (affine[:, 1] @ x) * x
    y /= np.linalg.norm(y)
    z = np.cross(x, y)
    z *= np.sign(z @ affine[:, 0])
    axes = np.stack([z, y, x], axis=1)
    spacing = np.abs(np.einsum("ij,ij->j", axes, affine))
    corners = np.array(
        [
            geometry.to_lps_mm((k, j, i))
            for k in (0, geometry.shape_zyx[0] - 1)
            for j in (0, geometry.shape_zyx[1] - 1)
            for i in (0, geometry.shape_zyx[2] - 1)
        ]
    )
    along = corners @ axes
    low, high = along.min(axis=0), along.max(axis=0)
    shape = np.maximum(1, np.round((high - low) / spacing).astype(int) + 1)
    matrix = np.eye(4)
    matrix[:3, :3] = axes * spacing
    matrix[:3, 3] = axes @ low
    return Geometry(
        shape_zyx=(int(shape[0]), int(shape[1]), int(shape[2])), affine_zyx_to_lps=matrix
    )
