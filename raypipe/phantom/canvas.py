"""A voxel grid on which signed-distance shapes are painted with smooth edges.

In: shapes as functions of template coordinates (mm), or tubes as sampled centre lines.
Out: float32 HU and a uint8 organ map.
Does not know: which organs exist.

Smooth fields are evaluated on a coarse grid and interpolated, because a signed distance is
nearly linear over 5 mm; that makes a large volume cheap. Distances are negative inside.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.geometry import Geometry
from raypipe.phantom.organs import Organ
from raypipe.phantom.pose import Pose

Array = NDArray[np.floating[Any]]
Shape = Callable[[Array, Array, Array], Array]
Bounds = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]
"""(low, high) of template x, y, z in mm."""

COARSE_MM = 5.0
FAR_MM = 1e3


@dataclass(frozen=True, kw_only=True)
class Region:
    """A block of voxels and the block of coarse nodes that spans it."""

    fine: tuple[slice, slice, slice]
    coarse: tuple[slice, slice, slice]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        z, y, x = (s.stop - s.start for s in self.fine)
        return (z, y, x)


class Canvas:
    """The HU and organ arrays of one phantom while it is painted."""

    def __init__(self, geometry: Geometry, pose: Pose, seed: int) -> None:
        self.geometry = geometry
        self.pose = pose
        self.seed = seed
        self.hu: Array = np.full(geometry.shape_zyx, -1000.0, np.float32)
        self.organs: NDArray[np.uint8] = np.zeros(geometry.shape_zyx, np.uint8)
        spacing = geometry.spacing_zyx_mm
        self.pixel_mm = float(np.sort(spacing)[:2].mean())
        self._steps = [max(1, round(COARSE_MM / s)) for s in spacing]
        self._nodes = [
            np.arange(0, n + step - 1, step) if n > 1 else np.zeros(1, np.int64)
            for n, step in zip(geometry.shape_zyx, self._steps, strict=True)
        ]
        self._weights = [
            _hat_weights(n, nodes, step)
            for n, nodes, step in zip(geometry.shape_zyx, self._nodes, self._steps, strict=True)
        ]
        index = np.stack(np.meshgrid(*self._nodes, indexing="ij"), axis=-1)
        lps = geometry.to_lps_mm(index)
        template = pose.to_template(lps)
        self._coarse_lps = [np.ascontiguousarray(lps[..., i], np.float32) for i in range(3)]
        self._coarse_xyz = [np.ascontiguousarray(template[..., i], np.float32) for i in range(3)]

    def rng(self, name: str) -> np.random.Generator:
        """A random stream of its own, so that one organ's draws never shift another's."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    @property
    def whole(self) -> Region:
        """Every voxel."""
        return self._region([(0, n) for n in self.geometry.shape_zyx])

    def region(self, bounds: Bounds) -> Region | None:
        """The voxels that may lie in a box of the template; None where none does."""
        grid = np.array(np.meshgrid(*[np.linspace(lo, hi, 3) for lo, hi in bounds]))
        index = self.geometry.to_index(self.pose.to_patient(grid.reshape(3, -1).T))
        margin = 6.0 / np.array(self.geometry.spacing_zyx_mm)
        lower = np.floor(index.min(axis=0) - margin).astype(int)
        upper = np.ceil(index.max(axis=0) + margin).astype(int) + 1
        limits = [
            (max(0, int(lo)), min(n, int(up)))
            for lo, up, n in zip(lower, upper, self.geometry.shape_zyx, strict=True)
        ]
        return self._region(limits) if all(up > lo for lo, up in limits) else None

    def _region(self, limits: list[tuple[int, int]]) -> Region:
        fine, coarse = [], []
        for (lo, up), step, nodes in zip(limits, self._steps, self._nodes, strict=True):
            fine.append(slice(lo, up))
            coarse.append(slice(lo // step, min(len(nodes), (up - 1) // step + 2)))
        return Region(fine=(fine[0], fine[1], fine[2]), coarse=(coarse[0], coarse[1], coarse[2]))

    def upsample(self, field: Array, region: Region) -> Array:
        """Interpolate a field on the region's coarse nodes to its voxels."""
        wz, wy, wx = (
            w[f, c] for w, f, c in zip(self._weights, region.fine, region.coarse, strict=True)
        )
        narrow = np.matmul(wy, np.tensordot(wz, field, axes=(1, 0)))
        return np.asarray(np.matmul(narrow, wx.T))

    def coarse(self, shape: Shape, region: Region) -> Array:
        """A field of template coordinates on the region's coarse nodes."""
        x, y, z = (c[region.coarse] for c in self._coarse_xyz)
        return np.asarray(shape(x, y, z), np.float32)

    def smooth(self, shape: Shape, region: Region) -> Array:
        """A slowly varying field on the region's voxels, by way of the coarse nodes."""
        return self.upsample(self.coarse(shape, region), region)

    def rigid(self, shape: Shape, region: Region) -> Array:
        """A field of patient coordinates on the region's voxels: for what is not of the body."""
        x, y, z = (self.upsample(c[region.coarse], region) for c in self._coarse_lps)
        return np.asarray(shape(x, y, z), np.float32)

    def sharp(self, shape: Shape, region: Region) -> Array:
        """A field with fine detail on the region's voxels, evaluated at each of them."""
        x, y, z = (self.upsample(c[region.coarse], region) for c in self._coarse_xyz)
        return np.asarray(shape(x, y, z), np.float32)

    def noise(self, name: str, region: Region, *, step: int = 1) -> Array:
        """Smooth noise of unit deviation on the voxels, with cells of step coarse nodes."""
        shape = [c.stop - c.start for c in region.coarse]
        cells = [(n + step - 1) // step for n in shape]
        draw = self.rng(name).standard_normal(cells, np.float32)
        for axis in range(3) if step > 1 else ():  # a running mean makes the steps a ramp
            draw = ndimage.uniform_filter1d(np.repeat(draw, step, axis=axis), step, axis=axis)
        return self.upsample(draw[: shape[0], : shape[1], : shape[2]] * np.float32(1.6), region)

    def paint(
        self,
        region: Region,
        distance: Array,
        hu: float | Array,
        organ: Organ | None = None,
        *,
        edge_mm: float | None = None,
    ) -> None:
        """Blend HU into the voxels inside a signed distance (mm), and label them."""
        edge = edge_mm if edge_mm is not None else max(1.2, self.pixel_mm)
        cover = np.clip(0.5 - distance / np.float32(edge), 0.0, 1.0)
        target = self.hu[region.fine]
        target += cover * (np.asarray(hu, np.float32) - target)
        if organ is not None:
            self.organs[region.fine][distance < 0] = organ

    def paint_shape(
        self, shape: Shape, bounds: Bounds, hu: float, organ: Organ | None = None
    ) -> None:
        """Paint a smooth shape of uniform HU inside bounds that enclose it."""
        region = self.region(bounds)
        if region is not None:
            self.paint(region, self.smooth(shape, region), hu, organ)

    def tube(self, points_mm: NDArray[np.float64], radii_mm: NDArray[np.float64]) -> "Tube | None":
        """The signed distance to spheres (n, 3 template mm; n radii); None outside the grid."""
        index = self.geometry.to_index(self.pose.to_patient(np.asarray(points_mm)))
        radii = np.broadcast_to(np.asarray(radii_mm, np.float64), (len(index),))
        reach = np.maximum(radii, 0.0) + self.pixel_mm + 0.6
        to_mm = self.geometry.affine_zyx_to_lps[:3, :3]
        per_mm = np.linalg.norm(np.linalg.inv(to_mm), axis=1)
        size = np.array(self.geometry.shape_zyx)
        near = np.all((index > -reach[:, None] * per_mm - 1), axis=1) & np.all(
            index < size + reach[:, None] * per_mm, axis=1
        )
        if not near.any():
            return None
        index, radii, reach = index[near], radii[near], reach[near]
        lower = np.clip(np.floor((index - reach[:, None] * per_mm).min(axis=0)), 0, size - 1)
        upper = np.clip(np.ceil((index + reach[:, None] * per_mm).max(axis=0)) + 1, 1, size)
        lower, upper = lower.astype(int), upper.astype(int)
        upper = np.maximum(upper, lower + 1)
        region = self._region([(int(lo), int(up)) for lo, up in zip(lower, upper, strict=True)])
        distance = np.full(region.shape, FAR_MM, np.float32)
        _splat(distance, index - lower, radii, reach, to_mm)
        return Tube(region=region, distance=distance)

    def within(self, tube: "Tube", *organs: Organ) -> Array:
        """The distance to a tube where one of these organs is; far away elsewhere."""
        own = np.isin(self.organs[tube.region.fine], organs)
        return np.where(own, tube.distance, np.float32(FAR_MM))

    def paint_tube(
        self,
        points_mm: NDArray[np.float64],
        radii_mm: NDArray[np.float64],
        hu: float,
        organ: Organ | None = None,
    ) -> None:
        """Paint a tube of uniform HU."""
        tube = self.tube(points_mm, radii_mm)
        if tube is not None:
            self.paint(tube.region, tube.distance, hu, organ)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tube:
    """The signed distance to a tube on a block of voxels; FAR_MM away from it."""

    region: Region
    distance: Array


def _hat_weights(n: int, nodes: NDArray[np.int64], step: int) -> Array:
    """(n, nodes) weights of linear interpolation."""
    gap = np.abs(np.arange(n)[:, None] - nodes[None, :]) / step
    return np.asarray(np.clip(1.0 - gap, 0.0, 1.0), np.float32)


def _splat(
    distance: Array,
    index: NDArray[np.float64],
    radii: NDArray[np.float64],
    reach: NDArray[np.float64],
    to_mm: NDArray[np.float64],
) -> None:
    """Lower distance to the nearest sphere's, sphere by sphere, in groups of like radius."""
    per_mm = np.linalg.norm(np.linalg.inv(to_mm), axis=1)
    shape = np.array(distance.shape)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    flat = distance.reshape(-1)
    nearest = np.rint(index).astype(np.int64)
    rest_mm = np.asarray((nearest - index) @ to_mm.T, np.float32)
    group = np.round(np.log(reach) / 0.25).astype(int)
    for g in np.unique(group):
        members = np.flatnonzero(group == g)
        far = float(reach[members].max())
        half = np.ceil(far * per_mm).astype(int)
        axes = [np.arange(-h, h + 1) for h in half]
        offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        offset_mm = np.asarray(offsets @ to_mm.T, np.float32)
        slack = float(np.linalg.norm(to_mm, axis=0).sum()) / 2
        close = np.linalg.norm(offset_mm, axis=1) <= far + slack
        offsets, offset_mm = offsets[close], offset_mm[close]
        for part in np.array_split(members, max(1, len(members) * len(offsets) // 400_000)):
            square = np.zeros((len(part), len(offsets)), np.float32)
            for axis in range(3):
                square += (rest_mm[part, axis, None] + offset_mm[None, :, axis]) ** 2
            value = np.sqrt(square) - radii[part, None].astype(np.float32)
            where = (nearest[part] @ strides)[:, None] + offsets @ strides
            at = nearest[part]
            if np.all(at.min(axis=0) >= half) and np.all(at.max(axis=0) + half < shape):
                np.minimum.at(flat, where.reshape(-1), value.reshape(-1))
                continue
            inside = np.ones(square.shape, bool)
            for axis in range(3):
                voxel = at[:, axis, None] + offsets[None, :, axis]
                inside &= (voxel >= 0) & (voxel < shape[axis])
            np.minimum.at(flat, where[inside], value[inside])
