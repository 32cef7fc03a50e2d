"""Put lesions with known truth into a CT, synthetic or real.

In: float32 HU, grid, organ map (raypipe.phantom.estimate_organs makes one for a real CT).
Out: HU with lesions, the truth of each, a map of their voxels.
Does not know: how the background was made.

The truth: a voxel belongs to a lesion where the lesion fills at least half as much of it as of
the lesion's fullest voxel (the half-contrast contour); the box is the tight box around those.
Spicules do not count, as they do not where a nodule is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.geometry import Box, Geometry
from raypipe.phantom.lesion_kinds import DEFAULT_LABELS, KINDS, LesionPlan, plan_lesion, severity
from raypipe.phantom.lesion_masks import Block, Cover
from raypipe.phantom.lesion_places import (
    find_room,
    half_contrast,
    tight_box,
)
from raypipe.phantom.organs import Organ

__all__ = ["DEFAULT_LABELS", "Inserted", "Lesion", "insert_lesion", "insert_lesions", "slice_boxes"]

Array = NDArray[np.floating[Any]]
Organs = NDArray[np.uint8]

SUBTLE_DIAMETER_MM = 6.0
SUBTLE_CONTRAST_HU = 60.0
MIDLINE_MM = 8.0
SKULL_EDGE_HU = 75.0


@dataclass(frozen=True, kw_only=True)
class Lesion:
    """The truth of one lesion.

    Args:
        label: key of a finding in the knowledge graph.
        box_zyx: tight box at half contrast, on the grid of the volume.
        center_lps_mm: centre of that box in the patient.
        diameter_mm: longest edge of the box within the slice plane.
        mean_hu: over the lesion's voxels, noise included.
        contrast_hu: mean of (HU with the lesion - HU without) over its voxels.
        side: "left", "right" or "midline".
        attributes: attribute -> value.
        subtle: below 6 mm, or less than 60 HU from what was there, whatever the sign.
        voxels: how many voxels it has.
    """

    label: str
    box_zyx: Box
    center_lps_mm: tuple[float, float, float]
    diameter_mm: float
    mean_hu: float
    contrast_hu: float
    side: str
    attributes: dict[str, str] = field(default_factory=dict)
    subtle: bool = False
    voxels: int = 0

    def measured(self, hu: NDArray[np.int16], lesion_map: Organs, number: int) -> "Lesion":
        """The same lesion with its mean HU taken from the final volume."""
        block = self.box_zyx.slices((hu.shape[0], hu.shape[1], hu.shape[2]))
        own = lesion_map[block] == number
        return replace(self, mean_hu=float(hu[block][own].mean()))


@dataclass(frozen=True, kw_only=True, eq=False)
class Inserted:
    """A CT with lesions: float32 HU, the truths, and a map (0, or 1 + index into lesions)."""

    hu: Array = field(repr=False)
    lesions: tuple[Lesion, ...]
    lesion_map: Organs = field(repr=False)


def insert_lesions(
    hu: NDArray[np.floating | np.integer],
    geometry: Geometry,
    organs: Organs,
    rng: np.random.Generator,
    *,
    labels: Sequence[str],
    count: int | None = None,
    thickness_mm: float | None = None,
    subtle: bool | None = None,
    noise_hu: float = 0.0,
) -> Inserted:
    """Insert one lesion a label, or count lesions with labels drawn from labels.

    Args:
        hu: (z, y, x) HU; it is not changed.
        geometry: its grid.
        organs: (z, y, x) codes of Organ.
        rng: the only source of chance.
        labels: keys of KINDS.
        count: how many to draw; None inserts every label once, in order.
        thickness_mm: slice thickness for partial volume; None: the slice spacing.
        subtle: True only subtle ones, False only plain ones, None a mixture.
        noise_hu: noise of a real background, kept inside the lesions; 0 where noise comes later.

    Raises:
        ValueError: an unknown label.

    A lesion that finds no room is left out.
    """
    unknown = sorted(set(labels) - set(KINDS))
    if unknown:
        raise ValueError(f"labels: {unknown} are not lesions of the phantom; known: {list(KINDS)}")
    wanted = list(labels) if count is None else _draw_labels(labels, count, organs, rng)
    result = np.array(hu, dtype=np.float32)
    lesion_map = np.zeros(result.shape, np.uint8)
    lesions: list[Lesion] = []
    for label in wanted:
        lesion = insert_lesion(
            result,
            lesion_map,
            geometry,
            organs,
            rng,
            label=label,
            number=len(lesions) + 1,
            thickness_mm=thickness_mm or geometry.spacing_zyx_mm[0],
            subtle=subtle,
            noise_hu=noise_hu,
        )
        if lesion is not None:
            lesions.append(lesion)
    return Inserted(hu=result, lesions=tuple(lesions), lesion_map=lesion_map)


def _draw_labels(
    labels: Sequence[str], count: int, organs: Organs, rng: np.random.Generator
) -> list[str]:
    """Labels whose organ is on the grid, each as likely as it is frequent in labels."""
    present = np.bincount(organs.reshape(-1)[:: max(1, organs.size // 400_000)], minlength=256) > 2
    fit = [label for label in labels if any(present[o] for o in KINDS[label].organs)]
    return [fit[i] for i in rng.integers(len(fit), size=count)] if fit else []


def insert_lesion(  # one place that knows every part of an insertion
    hu: Array,
    lesion_map: Organs,
    geometry: Geometry,
    organs: Organs,
    rng: np.random.Generator,
    *,
    label: str,
    number: int,
    thickness_mm: float,
    subtle: bool | None = None,
    noise_hu: float = 0.0,
) -> Lesion | None:
    """Insert one lesion into hu and lesion_map, in place; None where it finds no room."""
    for _ in range(5):  # a draw may be too large for the room there is: draw anew
        plan = plan_lesion(label, rng, subtle=subtle)
        cover = find_room(plan, geometry, organs, lesion_map, thickness_mm, rng)
        if cover is not None:
            return _apply(plan, cover, hu, lesion_map, geometry, organs, number, noise_hu)
    return None


def _apply(
    plan: LesionPlan,
    cover: Cover,
    hu: Array,
    lesion_map: Organs,
    geometry: Geometry,
    organs: Organs,
    number: int,
    noise_hu: float,
) -> Lesion:
    """Blend the lesion into hu and write down its truth."""
    block = cover.block
    before = hu[block].copy()
    mask = half_contrast(cover.measured)
    target = _target_hu(plan, before, cover.cover, organs[block])
    filling = np.full(before.shape, target, np.float32)
    if noise_hu > 0:
        grain = before - ndimage.gaussian_filter(before, (0, 1.5, 1.5))
        filling += np.clip(grain, -3 * noise_hu, 3 * noise_hu)
    if plan.density in ("ground_glass", "hyperdense"):  # vessels and the skull show through
        filling = np.maximum(filling, before)
    elif plan.label == "brain_infarct":
        filling = np.where(before > SKULL_EDGE_HU, before, filling)
    after: Array = before + _opacity(plan, cover) * (filling - before)
    if Organ.LUNG_LEFT in plan.kind.spread:  # no rim of air between the lesion and the pleura
        after = _closed_to_pleura(plan, cover, before, after, organs[block], target)
    if plan.label == "intracranial_haemorrhage":
        after = _with_oedema(plan, after, cover.cover, organs[block], geometry)
    hu[block] = after
    lesion_map[block][mask] = number
    return _truth(plan, block, mask, geometry, organs, (before, after))


def _closed_to_pleura(
    plan: LesionPlan, cover: Cover, before: Array, after: Array, codes: Organs, target: float
) -> Array:
    """Fill the half-airy voxels between a lesion and the chest wall as the lesion is filled."""
    ring = (codes != Organ.AIRWAY) & ~np.isin(codes, plan.kind.spread) & (before < target)
    beside = ndimage.maximum_filter(_opacity(plan, cover), size=(1, 3, 3))
    filled = before + beside * (target - before)
    return np.asarray(np.where(ring, np.maximum(after, filled), after), np.float32)


def _opacity(plan: LesionPlan, cover: Cover) -> Array:
    if cover.core is not None:
        return np.asarray(np.maximum(0.42 * cover.cover, cover.core), np.float32)
    return np.asarray(plan.opacity * cover.cover, np.float32)


def _target_hu(plan: LesionPlan, before: Array, cover: Array, codes: Organs) -> float:
    if plan.contrast_hu is None:
        assert plan.hu is not None
        return plan.hu
    around = np.isin(codes, plan.kind.organs) & (cover < 0.05)
    if not around.any():
        around = np.isin(codes, plan.kind.organs)
    return float(np.median(before[around])) + plan.contrast_hu


def _with_oedema(
    plan: LesionPlan, hu: Array, cover: Array, codes: Organs, geometry: Geometry
) -> Array:
    """A faint dark rim around fresh blood."""
    sigma = [0.18 * plan.diameter_mm / s for s in geometry.spacing_zyx_mm]
    halo = np.clip(ndimage.gaussian_filter(cover, sigma) * 2.0, 0, 1) * (1 - cover)
    return np.asarray(hu - 9.0 * halo * (codes == Organ.BRAIN), np.float32)


def _truth(
    plan: LesionPlan,
    block: Block,
    mask: NDArray[np.bool_],
    geometry: Geometry,
    organs: Organs,
    before_after: tuple[Array, Array],
) -> Lesion:
    before, after = before_after
    change = (after - before)[mask]
    box = tight_box(mask, block)
    center = geometry.to_lps_mm(box.center_zyx)
    diameter = geometry.diameter_mm(box)
    attributes = {
        "density": plan.density,
        "shape": plan.shape,
        "margin": plan.margin,
        "severity": severity(plan.label, plan.diameter_mm),
    }
    return Lesion(
        label=plan.label,
        box_zyx=box,
        center_lps_mm=(float(center[0]), float(center[1]), float(center[2])),
        diameter_mm=diameter,
        mean_hu=float(after[mask].mean()),
        contrast_hu=float(change.mean()),
        side=_side(center, geometry, organs),
        attributes=attributes,
        # half in bright kidney and half in fat, a lesion is darker here and brighter there
        subtle=bool(diameter < SUBTLE_DIAMETER_MM or np.abs(change).mean() < SUBTLE_CONTRAST_HU),
        voxels=int(mask.sum()),
    )


def _side(center: NDArray[np.float64], geometry: Geometry, organs: Organs) -> str:
    step = max(1, min(organs.shape[1:]) // 48)
    body = np.argwhere(organs[:, ::step, ::step] > Organ.TABLE) * (1, step, step)
    middle = geometry.to_lps_mm(body.mean(axis=0))[0] if len(body) else 0.0
    across = float(center[0] - middle)
    return "midline" if abs(across) <= MIDLINE_MM else "left" if across > 0 else "right"


def slice_boxes(lesion_map: Organs, z: int) -> list[tuple[int, Box]]:
    """Lesions on slice z: (index into lesions, tight box one slice thick)."""
    boxes = []
    for number, found in enumerate(ndimage.find_objects(lesion_map[z])):
        if found is not None:
            y, x = found
            boxes.append(
                (
                    number,
                    Box(
                        lower_zyx=(float(z), float(y.start), float(x.start)),
                        upper_zyx=(float(z + 1), float(y.stop), float(x.stop)),
                    ),
                )
            )
    return boxes
