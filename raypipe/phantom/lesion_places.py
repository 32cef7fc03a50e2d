"""Find a place for a planned lesion.

In: a plan, a grid, an organ map, the lesions that are there. Out: its cover, or None.
Does not know: Hounsfield units.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.geometry import Box, Geometry
from raypipe.phantom.lesion_kinds import LesionPlan
from raypipe.phantom.lesion_masks import (
    Block,
    Cover,
    blob_cover,
    effusion_cover,
    subdural_cover,
)

Array = NDArray[np.floating[Any]]
Organs = NDArray[np.uint8]


def find_room(
    plan: LesionPlan,
    geometry: Geometry,
    organs: Organs,
    lesion_map: Organs,
    thickness_mm: float,
    rng: np.random.Generator,
) -> Cover | None:
    """The cover of a planned lesion at a place that suits it; None where none was found."""
    if plan.kind.form == "effusion":
        side = plan.kind.organs[rng.integers(2)]
        found = effusion_cover(plan, side, geometry, organs)
        return _checked(found, plan, geometry, organs, lesion_map)
    if plan.kind.form == "subdural":
        sign = float(rng.choice([-1.0, 1.0]))
        found = subdural_cover(plan, sign, geometry, organs)
        return _checked(found, plan, geometry, organs, lesion_map)
    for center in _centers(plan, geometry, organs, rng):
        found = blob_cover(plan, center, geometry, thickness_mm)
        checked = _checked(found, plan, geometry, organs, lesion_map)
        if checked is not None:
            return checked
    return None


def _centers(
    plan: LesionPlan, geometry: Geometry, organs: Organs, rng: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Up to eight places where enough of the lesion lies in its organs, best draws first."""
    own = np.zeros(256, bool)
    own[list(plan.kind.organs)] = True
    near = np.zeros(256, bool)
    near[list(plan.kind.near)] = True
    voxels = np.flatnonzero(near[organs]) if plan.kind.near else np.empty(0, np.int64)
    reach = 0.0
    if len(voxels):
        reach = plan.diameter_mm / 2 + 14.0
    else:
        voxels = np.flatnonzero(own[organs])
    if not len(voxels):
        return []
    picks = voxels[rng.integers(len(voxels), size=60)]
    index = np.stack(np.unravel_index(picks, organs.shape), axis=1) + rng.uniform(
        -0.4, 0.4, (60, 3)
    )
    centers = geometry.to_lps_mm(index) + rng.uniform(-reach, reach, (60, 3))
    offsets = rng.normal(size=(80, 3))
    offsets *= (rng.uniform(0, 1, 80) ** (1 / 3) / np.linalg.norm(offsets, axis=1))[:, None]
    offsets = (offsets * plan.radii_mm) @ plan.turn.T
    probes = np.rint(geometry.to_index(centers[:, None, :] + offsets)).astype(int)
    size = np.array(organs.shape)
    on_grid = np.all((probes >= 0) & (probes < size), axis=2)
    clipped = np.clip(probes, 0, size - 1)
    codes = organs[clipped[..., 0], clipped[..., 1], clipped[..., 2]]
    seen = np.maximum(on_grid.sum(axis=1), 1)
    inside = (own[codes] & on_grid).sum(axis=1) / seen
    spread = np.zeros(256, bool)
    spread[list(plan.kind.spread)] = True
    roomy = ((spread | own)[codes] & on_grid).sum(axis=1) / seen
    good = (inside >= plan.kind.inside) & (roomy >= max(0.7, plan.kind.inside))
    good &= on_grid.mean(axis=1) > 0.3
    return list(centers[good][:8])


def _checked(
    found: Cover | None,
    plan: LesionPlan,
    geometry: Geometry,
    organs: Organs,
    lesion_map: Organs,
) -> Cover | None:
    """The cover inside tissue where it may spread; None where too little, taken or misnamed."""
    if found is None:
        return None
    allowed = np.zeros(256, bool)
    allowed[list(plan.kind.spread) + list(plan.kind.organs)] = True
    gate = allowed[organs[found.block]].astype(np.float32)
    cover = found.cover * gate
    mask = half_contrast(cover)
    if not mask.any() or cover.max() < 0.2 or (lesion_map[found.block][mask] > 0).any():
        return None
    if plan.kind.form != "blob" and mask.sum() < 60:
        return None
    within = Cover(
        block=found.block,
        cover=cover,
        core=None if found.core is None else found.core * gate,
        body=None if found.body is None else found.body * gate,
    )
    return within if _earns_its_label(plan, within, geometry, organs, lesion_map) else None


def _earns_its_label(
    plan: LesionPlan, cover: Cover, geometry: Geometry, organs: Organs, lesion_map: Organs
) -> bool:
    """Whether a reader would call it so: by its size in the plane, and by what surrounds it.

    A lesion told by its contrast leaves, with those that are there, at least half of its organ on
    every slice: where they take more, the rest of the organ looks like the lesion.
    """
    mask = half_contrast(cover.measured)
    if not mask.any():  # all that lies in tissue are spicules
        return False
    low, high = plan.kind.measured_mm
    if not low <= geometry.diameter_mm(tight_box(mask, cover.block)) <= high:
        return False
    if plan.contrast_hu is None:
        return True
    organ = np.isin(organs[cover.block[0]], plan.kind.organs)
    taken = (organ & (lesion_map[cover.block[0]] > 0)).sum(axis=(1, 2)) + mask.sum(axis=(1, 2))
    own = mask.any(axis=(1, 2))
    return bool((taken <= organ.sum(axis=(1, 2)) / 2)[own].all())


def half_contrast(cover: Array) -> NDArray[np.bool_]:
    """The voxels filled at least half as much as the fullest."""
    return np.asarray(cover >= 0.5 * max(float(cover.max()), 1e-6))


def tight_box(mask: NDArray[np.bool_], block: Block) -> Box:
    """The box around the voxels of a block that are set, of which there is one at least."""
    spans = ndimage.find_objects(mask.astype(np.int8))[0]
    z, y, x = (
        (float(part.start + span.start), float(part.start + span.stop))
        for part, span in zip(block, spans, strict=True)
    )
    return Box(lower_zyx=(z[0], y[0], x[0]), upper_zyx=(z[1], y[1], x[1]))
