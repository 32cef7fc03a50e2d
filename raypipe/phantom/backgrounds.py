"""A rough organ map of a real CT, good enough to place lesions on it.

In: HU and grid. Out: an organ map with body, lungs, fat, muscle, bone, brain and perhaps liver.
Does not know: lesions. By thresholds and morphology alone, worked out on a grid of about 3 mm;
where a structure is not plainly there, its code is left out rather than guessed.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.geometry import Geometry
from raypipe.phantom.organs import Organ

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

WORKING_MM = 3.0
SKULL_HU, SOFT_HU = 450.0, (-20.0, 90.0)


def estimate_organs(hu: NDArray[np.floating | np.integer], geometry: Geometry) -> NDArray[np.uint8]:
    """Codes of Organ (z, y, x) for a real CT."""
    steps = [max(1, round(WORKING_MM / s)) for s in geometry.spacing_zyx_mm]
    small = np.asarray(hu[:: steps[0], :: steps[1], :: steps[2]], np.float32)
    small = ndimage.gaussian_filter(small, 0.6)
    voxel_mm = np.array(geometry.spacing_zyx_mm) * steps
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in small.shape], indexing="ij"), axis=-1)
    lps = geometry.to_lps_mm(grid * steps).astype(np.float32)
    body = _body(small)
    codes = np.zeros(small.shape, np.uint8)
    codes[body] = Organ.MUSCLE
    codes[body & (small < -30)] = Organ.SUBCUTANEOUS_FAT
    brain = _brain(small, body, voxel_mm)
    lungs = np.zeros_like(body) if brain.any() else _lungs(small, body, voxel_mm)
    _add_lungs(codes, small, lungs, lps)
    _add_liver(codes, small, lungs, lps, voxel_mm)
    bone = body & (small > 250)
    codes[bone] = Organ.BONE
    codes[brain] = Organ.BRAIN
    codes[brain & (small < 14)] = Organ.CSF
    large = codes
    for axis, (step, n) in enumerate(zip(steps, hu.shape, strict=True)):
        large = np.take(large, np.minimum(np.arange(n) // step, large.shape[axis] - 1), axis)
    return _sharpened(large, hu)


def _sharpened(
    codes: NDArray[np.uint8], hu: NDArray[np.floating | np.integer]
) -> NDArray[np.uint8]:
    """Correct on the fine grid what one look at the HU tells."""
    out = codes.copy()
    lung = (codes == Organ.LUNG_LEFT) | (codes == Organ.LUNG_RIGHT)
    out[lung & (hu > -500)] = Organ.LUNG_VESSEL
    return out


def _largest(mask: Mask) -> Mask:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def _body(hu: Array) -> Mask:
    """The largest thing denser than air, slice by slice without holes; the table falls off."""
    dense = _largest(ndimage.binary_opening(hu > -300, structure=np.ones((1, 3, 3))))
    # mend the gaps where a thin wall fell to the opening
    wide = np.pad(dense, ((0, 0), (4, 4), (4, 4)))
    wide = ndimage.binary_closing(wide, structure=np.ones((1, 3, 3)), iterations=3)
    closed = wide[:, 4:-4, 4:-4] | dense
    return np.asarray(np.stack([ndimage.binary_fill_holes(s) for s in closed]))


def _lungs(hu: Array, body: Mask, voxel_mm: NDArray[np.float64]) -> Mask:
    """Air inside the body in pieces of at least 150 ml, without the large airways' lumen."""
    air = body & (hu < -500) & (hu > -985)
    air = ndimage.binary_opening(air)
    labels, count = ndimage.label(air)
    keep = np.zeros(count + 1, dtype=np.bool_)
    if count:
        volume_ml = np.bincount(labels.ravel()) * np.prod(voxel_mm) / 1000
        middle = np.bincount(labels.ravel(), hu.ravel()) / np.maximum(
            np.bincount(labels.ravel()), 1
        )
        # bowel gas is darker than aerated lung
        keep[:] = (volume_ml > 150) & (middle < -600) & (middle > -930)
        keep[0] = False
    lungs = keep[labels]
    return np.asarray(ndimage.binary_closing(lungs, iterations=2) & body)


def _add_lungs(codes: NDArray[np.uint8], hu: Array, lungs: Mask, lps: Array) -> None:
    if not lungs.any():
        return
    middle = _midline(lungs, lps)
    left = lps[..., 0] > middle
    codes[lungs & left] = Organ.LUNG_LEFT
    codes[lungs & ~left] = Organ.LUNG_RIGHT
    codes[lungs & (hu > -500)] = Organ.LUNG_VESSEL
    # between the lungs lies the mediastinum: its fat is where nodes grow
    z_has = np.asarray(lungs.any(axis=(1, 2)))
    x = lps[..., 0]
    central = (np.abs(x - middle) < 45) & z_has[:, None, None]
    hull = ndimage.binary_closing(lungs, structure=np.ones((1, 3, 3)), iterations=12) & ~lungs
    codes[central & hull & (hu < -30) & (hu > -150)] = Organ.MEDIASTINAL_FAT


def _midline(mask: Mask, lps: Array) -> float:
    x = lps[..., 0][mask]
    return float((np.percentile(x, 1) + np.percentile(x, 99)) / 2)


def _add_liver(
    codes: NDArray[np.uint8], hu: Array, lungs: Mask, lps: Array, voxel_mm: NDArray[np.float64]
) -> None:
    """The large even mass of soft tissue on the right, if there is one."""
    even = ndimage.uniform_filter(hu, 3)
    soft = (even > 25) & (even < 160) & (codes == Organ.MUSCLE)
    radius = np.maximum(np.round(15.0 / voxel_mm / 2), 1).astype(int)
    core = ndimage.binary_erosion(soft, structure=np.ones(2 * radius + 1))
    body = codes > 0
    if not core.any() or not body.any():
        return
    right = lps[..., 0] < _midline(body, lps) - 10
    core = _largest(core & right)
    volume_ml = float(core.sum() * np.prod(voxel_mm) / 1000)
    spread = float(hu[core].std()) if core.any() else 99.0
    if volume_ml < 120 or spread > 35:
        return
    value = float(np.median(hu[core]))
    grown = ndimage.binary_dilation(core, structure=np.ones(2 * radius + 1))
    liver = grown & soft & (np.abs(even - value) < 30)
    codes[liver] = Organ.LIVER


def _brain(hu: Array, body: Mask, voxel_mm: NDArray[np.float64]) -> Mask:
    """Soft tissue that bone encloses slice by slice, of at least 150 ml."""
    skull = hu > SKULL_HU
    inside = np.zeros_like(body)
    for z, bone in enumerate(skull):
        closed = ndimage.binary_closing(np.pad(bone, 6), iterations=3)[6:-6, 6:-6]
        inside[z] = ndimage.binary_fill_holes(closed) & ~closed
    soft = inside & (hu > SOFT_HU[0]) & (hu < SOFT_HU[1]) & body
    soft = ndimage.binary_opening(soft, structure=np.ones((1, 3, 3)))
    brain = _largest(soft)
    area_cm2 = brain.sum(axis=(1, 2)).max(initial=0) * np.prod(voxel_mm[1:]) / 100
    # the spinal canal and the marrow of large bones are enclosed too, but never this wide
    return np.asarray(brain if area_cm2 > 45 else np.zeros_like(brain))


def estimate_noise(hu: NDArray[np.floating | np.integer], organs: NDArray[np.uint8]) -> float:
    """Noise in HU: the spread of fine detail in soft tissue, robust against edges."""
    values = np.asarray(hu, np.float32)
    smooth = ndimage.uniform_filter(values, (1, 5, 5))
    soft = np.isin(organs, (Organ.MUSCLE, Organ.LIVER, Organ.BRAIN)) & (np.abs(smooth - 45) < 45)
    soft = ndimage.binary_erosion(soft, structure=np.ones((1, 5, 5)))  # away from edges
    detail = values - ndimage.uniform_filter(values, (1, 3, 3))
    found = detail[soft]
    if found.size < 100:
        return 10.0
    return float(1.4826 * np.median(np.abs(found - np.median(found))) / np.sqrt(8 / 9))
