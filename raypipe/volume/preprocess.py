"""THE preprocessing: the one way from a Volume to what networks see.

In: a Volume. Out: a ModelInput: int16 HU, z towards the head, y to the back, x to the patient's
left, every slice resized in its plane until its field of view fits one grid; air fills the rest.
Does not know: networks. They window the HU themselves, on their device, with the windows that
stand here, so that weights and windows cannot drift apart: both carry the fingerprint.

Axes are reordered and turned to the closest anatomical ones, never rotated, so that no voxel is
interpolated for it; the affine stays exact. Shrinking averages areas, enlarging is linear; both
are sums in a fixed order, so that a volume gives the same bits on every machine.
"""

import hashlib
import itertools
import json
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse

from raypipe.geometry import Geometry
from raypipe.knowledge.windows import NETWORK_WINDOWS, Window
from raypipe.settings import Settings
from raypipe.types import HuArray, ModelInput, Volume
from raypipe.volume.resample import AIR_HU

VERSION = 2
"""Counts up whenever the same config would give other bits."""

_TARGET_AXES = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Directions in LPS of z, y and x."""


class PreprocessConfig(Settings):
    """The grid and the windows of the networks."""

    size_yx: tuple[int, int] = Field(
        (256, 256), description="Rows and columns of a slice for the networks, in pixels."
    )
    windows: tuple[Window, ...] = Field(
        NETWORK_WINDOWS, min_length=1, description="HU windows, one a channel."
    )

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change when the networks would see something else."""
        content = json.dumps([VERSION, self.model_dump(mode="json")], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def preprocess(volume: Volume, config: PreprocessConfig) -> ModelInput:
    """Reorient and resize a volume; its proportions stay as they are.

    Returns:
        ModelInput with hu (z, *size_yx) int16, the field of view in the middle of each slice.
    """
    hu, geometry = reorient(volume.hu, volume.geometry)
    depth, rows, columns = shape = (geometry.shape_zyx[0], *_fitting(geometry, config.size_yx))
    hu, geometry = _resize_slices(hu, (rows, columns)), geometry.resized(shape)
    if (rows, columns) != config.size_yx:
        top, left = (config.size_yx[0] - rows) // 2, (config.size_yx[1] - columns) // 2
        inner, hu = hu, np.full((depth, *config.size_yx), AIR_HU, dtype=np.int16)
        hu[:, top : top + rows, left : left + columns] = inner
        affine = geometry.affine_zyx_to_lps.copy()
        affine[:3, 3] = geometry.to_lps_mm((0, -top, -left))
        geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine)
    return ModelInput(hu=hu, geometry=geometry, fingerprint=config.fingerprint)


def _fitting(geometry: Geometry, size_yx: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of square pixels that show the field of view as large as the grid lets."""
    edges_mm = np.array(geometry.shape_zyx[1:]) * geometry.spacing_zyx_mm[1:]
    rows, columns = np.rint(edges_mm / (edges_mm / size_yx).max()).astype(int).clip(1)
    return int(rows), int(columns)


def reorient(hu: HuArray, geometry: Geometry) -> tuple[HuArray, Geometry]:
    """A view of the volume along the closest anatomical axes, and its grid."""
    directions = geometry.affine_zyx_to_lps[:3, :3] / np.array(geometry.spacing_zyx_mm)
    along = _TARGET_AXES @ directions  # row: wanted axis, column: stored axis
    order = max(
        itertools.permutations(range(3)),
        key=lambda p: sum(abs(float(along[i, axis])) for i, axis in enumerate(p)),
    )
    affine = geometry.affine_zyx_to_lps.copy()
    affine[:, :3] = affine[:, list(order)]
    view = hu.transpose(order)
    for i, axis in enumerate(order):
        if along[i, axis] < 0:
            affine[:3, 3] += affine[:3, i] * (view.shape[i] - 1)
            affine[:3, i] *= -1.0
            view = np.flip(view, axis=i)
    return view, Geometry(shape_zyx=view.shape, affine_zyx_to_lps=affine)


def _resize_slices(hu: HuArray, size_yx: tuple[int, int]) -> HuArray:
    """(z, y, x) int16 to (z, *size_yx) int16."""
    if hu.shape[1:] == size_yx:
        return np.ascontiguousarray(hu)
    if hu.shape[1:] == (2 * size_yx[0], 2 * size_yx[1]):
        return _halve_slices(hu)
    rows, columns = resize_weights(hu.shape[1], size_yx[0]), resize_weights(hu.shape[2], size_yx[1])
    out = np.empty((hu.shape[0], *size_yx), dtype=np.int16)
    for z in range(hu.shape[0]):
        plane = rows @ hu[z].astype(np.float32)
        plane = columns @ np.ascontiguousarray(plane.T)
        out[z] = np.rint(plane, out=plane).T
    return out


def _halve_slices(hu: HuArray) -> HuArray:
    """The resize of most archives, 512 to 256: bit by bit the same, and three times as fast."""
    depth, height, width = hu.shape
    out = np.empty((depth, height // 2, width // 2), dtype=np.int16)
    for z in range(depth):
        pairs = np.add(hu[z, 0::2], hu[z, 1::2], dtype=np.int32)
        plane = (pairs[:, 0::2] + pairs[:, 1::2]).astype(np.float32)
        plane *= np.float32(0.25)
        out[z] = np.rint(plane, out=plane)
    return out


@lru_cache(maxsize=32)
def resize_weights(before: int, after: int) -> sparse.csr_array:
    """(after, before) weights of a resize along one axis whose outer faces coincide.

    Shrinking: the share of each old voxel in the new one. Enlarging: linear between the centres of
    old voxels, the outermost held beyond them. Rows sum to 1.
    """
    dense: NDArray[np.float64] = np.zeros((after, before))
    if after < before:
        edges = np.arange(after + 1) * (before / after)
        for i in range(after):
            first, last = int(edges[i]), min(before, int(np.ceil(edges[i + 1] - 1e-9)))
            cells = np.arange(first, last)
            shares = np.minimum(edges[i + 1], cells + 1) - np.maximum(edges[i], cells)
            dense[i, cells] = shares / shares.sum()
    else:
        centres = np.clip((np.arange(after) + 0.5) * (before / after) - 0.5, 0, before - 1)
        low = np.minimum(centres.astype(int), max(0, before - 2))
        part = centres - low
        dense[np.arange(after), low] = 1.0 - part
        if before > 1:
            dense[np.arange(after), low + 1] += part
    return sparse.csr_array(dense.astype(np.float32))
