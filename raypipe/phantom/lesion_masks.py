"""How much of every voxel a lesion fills.

In: a plan, a place, a grid. Out: cover from 0 to 1 on a block of voxels, partial volume and slice
thickness included.
Does not know: Hounsfield units, labels' meaning.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.geometry import Geometry
from raypipe.phantom.lesion_kinds import LesionPlan
from raypipe.phantom.organs import Organ

Array = NDArray[np.floating[Any]]
Block = tuple[slice, slice, slice]

_ROUGHNESS = {
    "smooth": 0.03,
    "lobulated": 0.16,
    "irregular": 0.3,
    "spiculated": 0.14,
    "ill_defined": 0.16,
}


SHALLOW_MM = 3.0
"""A thinner film of fluid or blood looks like pleura or skull, and is not called anything."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cover:
    """How much a lesion fills of each voxel of a block, 0 to 1.

    Args:
        block: where the voxels lie.
        cover: of the whole lesion.
        core: of its dense core, where it has one.
        body: of the lesion without its spicules, where it has some.
    """

    block: Block
    cover: Array
    core: Array | None = None
    body: Array | None = None

    @property
    def measured(self) -> Array:
        """What a reader measures: spicules do not count."""
        return self.cover if self.body is None else self.body


def block_coordinates(geometry: Geometry, block: Block, z_offset: float = 0.0) -> Array:
    """Patient coordinates (3, z, y, x) in mm of a block's voxels, moved by a part of a slice."""
    affine = geometry.affine_zyx_to_lps
    axes = [np.arange(s.start, s.stop, dtype=np.float64) for s in block]
    axes[0] = axes[0] + z_offset
    steps = [affine[:3, i][:, None] * axes[i][None, :] for i in range(3)]
    grid = (
        steps[0][:, :, None, None]
        + steps[1][:, None, :, None]
        + steps[2][:, None, None, :]
        + affine[:3, 3][:, None, None, None]
    )
    return np.asarray(grid, np.float32)


def blob_cover(
    plan: LesionPlan, center_lps_mm: NDArray[np.float64], geometry: Geometry, thickness_mm: float
) -> Cover | None:
    """A rounded lesion with the plan's margin; None where the grid does not touch it."""
    reach = max(plan.radii_mm) * 1.5 + (14.0 if plan.margin == "spiculated" else 2.0)
    block = _block_around(geometry, center_lps_mm, reach, thickness_mm)
    if block is None:
        return None
    spacing_z = geometry.spacing_zyx_mm[0]
    parts = int(np.clip(np.ceil(thickness_mm / max(0.2 * plan.diameter_mm, 0.4)), 1, 7))
    offsets = ((np.arange(parts) + 0.5) / parts - 0.5) * thickness_mm / spacing_z
    edge = max(0.8, float(np.mean(geometry.spacing_zyx_mm[1:])))
    if plan.margin == "ill_defined":
        edge = max(edge, 0.35 * min(plan.radii_mm))
    shape = tuple(s.stop - s.start for s in block)
    spiculated, part_solid = plan.margin == "spiculated", plan.density == "part_solid"
    cover, core, body = (np.zeros(shape, np.float32) for _ in range(3))
    for offset in offsets:
        points = block_coordinates(geometry, block, float(offset))
        of_body, distance = _blob_distances(plan, points, center_lps_mm)
        cover += np.clip(0.5 - distance / np.float32(edge), 0, 1) / parts
        if spiculated:
            body += np.clip(0.5 - of_body / np.float32(edge), 0, 1) / parts
        if part_solid:
            inner = distance + np.float32(0.45 * min(plan.radii_mm))
            core += np.clip(0.5 - inner / np.float32(edge), 0, 1) / parts
    if plan.label == "pulmonary_consolidation":  # patchy, as air stays in some lobules
        patches = ndimage.gaussian_filter(
            np.random.default_rng(plan.seed).standard_normal(cover.shape, np.float32), 1.2
        )
        cover = np.clip(cover * (1 + 1.6 * patches), 0, 1)
    return Cover(
        block=block,
        cover=cover,
        core=core if part_solid else None,
        body=body if spiculated else None,
    )


def _block_around(
    geometry: Geometry, center: NDArray[np.float64], reach_mm: float, thickness_mm: float
) -> Block | None:
    inverse = np.linalg.inv(geometry.affine_zyx_to_lps[:3, :3])
    half = reach_mm * np.linalg.norm(inverse, axis=1)
    half[0] += 0.5 * thickness_mm / geometry.spacing_zyx_mm[0]
    index = geometry.to_index(center)
    parts = []
    for middle, h, n in zip(index, half, geometry.shape_zyx, strict=True):
        lower, upper = max(0, int(np.floor(middle - h))), min(n, int(np.ceil(middle + h)) + 1)
        if upper <= lower:
            return None
        parts.append(slice(lower, upper))
    return (parts[0], parts[1], parts[2])


def _blob_distances(
    plan: LesionPlan, points: Array, center: NDArray[np.float64]
) -> tuple[Array, Array]:
    """Distance in mm from the surface of the body, and of the body with its spicules."""
    rng = np.random.default_rng(plan.seed)
    local = points - center.astype(np.float32)[:, None, None, None]
    local = np.tensordot(plan.turn.T.astype(np.float32), local, axes=(1, 0))
    scaled = local / np.asarray(plan.radii_mm, np.float32)[:, None, None, None]
    rho = np.sqrt(np.einsum("i...,i...->...", scaled, scaled)) + np.float32(1e-4)
    direction = scaled / rho
    surface = np.ones_like(rho)
    amplitude = _ROUGHNESS[plan.margin] * (1.8 if plan.label == "pulmonary_consolidation" else 1)
    for _ in range(6):
        wave = rng.normal(size=3) * rng.uniform(1.3, 3.4)
        ripple = np.tensordot(wave.astype(np.float32), direction, axes=(0, 0))
        surface += np.float32(amplitude / 2) * np.sin(ripple + np.float32(rng.uniform(0, 6.3)))
    length = np.sqrt(np.einsum("i...,i...->...", local, local))
    body = np.asarray(length * (1 - surface / rho), np.float32)
    if plan.margin != "spiculated":
        return body, body
    return body, np.asarray(np.minimum(body, _spicules(plan, local, length, rng)), np.float32)


def _spicules(plan: LesionPlan, local: Array, length: Array, rng: np.random.Generator) -> Array:
    radius = float(np.mean(plan.radii_mm))
    nearest = np.full(length.shape, 1e3, np.float32)
    for _ in range(int(rng.integers(10, 20))):
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        reach = radius + rng.uniform(0.5, 1.3) * float(np.clip(radius, 3.0, 12.0))
        along = np.tensordot(way.astype(np.float32), local, axes=(0, 0))
        beside = np.sqrt(np.clip(length**2 - along**2, 0, None))
        width = rng.uniform(0.9, 1.7) * np.clip(1.5 - along / reach, 0.25, 1)
        spike = np.maximum(beside - width, np.maximum(-along, along - reach))
        nearest = np.minimum(nearest, spike)
    return nearest


def effusion_cover(
    plan: LesionPlan, side: Organ, geometry: Geometry, organs: NDArray[np.uint8]
) -> Cover | None:
    """Fluid that has sunk to the back of one pleural space, deepest at the base.

    It ends where it is too shallow to be seen.
    """
    lung = organs == side
    found = ndimage.find_objects(lung.astype(np.uint8))
    if not found or found[0] is None:
        return None
    block: Block = found[0]
    points = block_coordinates(geometry, block)
    inside = lung[block]
    x, y, z = (axis[inside] for axis in points)
    if len(x) < 500:
        return None
    bins = np.floor((z - z.min()) / 6.0).astype(int)
    rear = np.full(bins.max() + 1, -1e3, np.float32)
    np.maximum.at(rear, bins, y)
    rear = ndimage.gaussian_filter1d(rear, 1.0)
    base, top = np.percentile(z, (1, 99))
    heights = z.min() + 6.0 * (np.arange(len(rear)) + 0.5)
    rear_y = np.interp(points[2], heights, rear)
    thin = np.clip((points[2] - base) / max(0.75 * (top - base), 40.0), 0, 1.2)
    deepest = plan.diameter_mm * (1 - thin)
    level = rear_y - deepest
    middle, half = (x.min() + x.max()) / 2, max(1.0, (x.max() - x.min()) / 2)
    meniscus = 0.3 * plan.diameter_mm * np.clip(1 - thin, 0, 1)
    depth = points[1] - level + meniscus * ((points[0] - middle) / half) ** 2 - 0.1 * meniscus
    edge = max(1.0, geometry.spacing_zyx_mm[1])
    cover = np.clip(0.5 + depth / edge, 0, 1) * (deepest >= SHALLOW_MM)
    return Cover(block=block, cover=np.asarray(cover, np.float32))


def subdural_cover(
    plan: LesionPlan, sign: float, geometry: Geometry, organs: NDArray[np.uint8]
) -> Cover | None:
    """Blood in a crescent between the skull and one hemisphere, as far as it is seen."""
    brain = (organs == Organ.BRAIN) | (organs == Organ.CSF)
    found = ndimage.find_objects(brain.astype(np.uint8))
    if not found or found[0] is None:
        return None
    block: Block = found[0]
    steps = [max(1, round(2.0 / s)) for s in geometry.spacing_zyx_mm]
    thin = brain[block][:: steps[0], :: steps[1], :: steps[2]]
    # the grid's first and last slice are no surface of the head: go on beyond them
    thin = np.pad(np.pad(thin, ((2, 2), (0, 0), (0, 0)), mode="edge"), ((0, 0), (2, 2), (2, 2)))
    head = ndimage.binary_closing(thin, iterations=2)[2:-2, 2:-2, 2:-2]
    padded = np.pad(head, ((0, 0), (1, 1), (1, 1)))
    sampling = [s * n for s, n in zip(geometry.spacing_zyx_mm, steps, strict=True)]
    inward = ndimage.distance_transform_edt(padded, sampling=sampling)[:, 1:-1, 1:-1]
    depth = _enlarge(inward.astype(np.float32), steps, brain[block].shape)
    points = block_coordinates(geometry, block)
    inside = brain[block]
    center = np.array([axis[inside].mean() for axis in points], np.float32)
    rng = np.random.default_rng(plan.seed)
    way = np.array([sign, rng.uniform(-0.7, 0.7), rng.uniform(0.0, 0.5)])
    way /= np.linalg.norm(way)
    local = points - center[:, None, None, None]
    toward = np.tensordot(way.astype(np.float32), local, axes=(0, 0))
    cosine = toward / (np.sqrt(np.einsum("i...,i...->...", local, local)) + 1e-3)
    spread = float(rng.uniform(0.15, 0.45))
    thickness = plan.diameter_mm * np.clip((cosine - spread) / (1 - spread), 0, 1) ** 0.6
    thickness = thickness * np.clip((local[2] + 22.0) / 22.0, 0, 1)  # above the tentorium
    edge = max(1.0, geometry.spacing_zyx_mm[1])
    cover = np.clip(0.5 + (thickness - depth) / edge, 0, 1) * (thickness >= SHALLOW_MM)
    cover *= sign * local[0] > 2.0
    return Cover(block=block, cover=np.asarray(cover, np.float32))


def _enlarge(small: Array, steps: list[int], shape: tuple[int, ...]) -> Array:
    """Linear interpolation back to a grid that was thinned by whole steps."""
    large = small
    for axis, (step, n) in enumerate(zip(steps, shape, strict=True)):
        at = np.minimum(np.arange(n) / step, large.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, large.shape[axis] - 1)
        wide = [1, 1, 1]
        wide[axis] = n
        part = (at - low).astype(np.float32).reshape(wide)
        large = np.take(large, low, axis) * (1 - part) + np.take(large, high, axis) * part
    return np.asarray(large, np.float32)
