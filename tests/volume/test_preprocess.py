"""raypipe/volume/preprocess.py: one orientation, one grid, exact geometry, the same bits."""

import itertools
from typing import Any

import numpy as np
import pytest

from raypipe.geometry import Geometry
from raypipe.knowledge.windows import BRAIN
from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.types import Volume
from raypipe.volume.preprocess import PreprocessConfig, preprocess, reorient, resize_weights
from raypipe.volume.resample import AIR_HU

SHAPE = (7, 40, 36)


def canonical() -> Volume:
    """A volume that lies as networks want it; every voxel differs."""
    hu = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    affine = np.array([[0, 0, 1.5, -30], [0, 2.0, 0, -40], [5.0, 0, 0, 100], [0, 0, 0, 1]])
    return Volume(hu=hu, geometry=Geometry(shape_zyx=SHAPE, affine_zyx_to_lps=affine))


def turned(volume: Volume, order: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same patient stored with other axes."""
    affine = volume.geometry.affine_zyx_to_lps.copy()
    affine[:, :3] = affine[:, list(order)]
    hu = volume.hu.transpose(order)
    for i, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, i] * (hu.shape[i] - 1)
            affine[:3, i] *= -1
            hu = np.flip(hu, i)
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine)  # type: ignore[arg-type]
    return Volume(hu=np.ascontiguousarray(hu), geometry=geometry)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("flips", list(itertools.product((False, True), repeat=3)))
def test_every_storage_order_gives_the_same_input(
    order: tuple[int, ...], flips: tuple[bool, ...]
) -> None:
    config = PreprocessConfig(size_yx=(20, 24))
    wanted = preprocess(canonical(), config)
    found = preprocess(turned(canonical(), order, flips), config)
    np.testing.assert_array_equal(found.hu, wanted.hu)
    assert found.geometry.same_grid(wanted.geometry, tolerance_mm=1e-9)


@pytest.mark.parametrize("orientation", ["axial", "coronal", "oblique"])
def test_axes_run_to_head_back_and_left(orientation: Any) -> None:
    phantom = make_phantom(PhantomSpec(shape_zyx=(6, 24, 20), orientation=orientation, lesions=0))
    hu, geometry = reorient(phantom.volume.hu, phantom.volume.geometry)
    directions = geometry.affine_zyx_to_lps[:3, :3] / np.array(geometry.spacing_zyx_mm)
    assert directions[2, 0] > 0.7 and directions[1, 1] > 0.7 and directions[0, 2] > 0.7
    there = phantom.volume.geometry.to_index(geometry.to_lps_mm((1, 2, 3)))
    np.testing.assert_allclose(there, np.round(there), atol=1e-6)
    z, y, x = np.round(there).astype(int)
    assert hu[1, 2, 3] == phantom.volume.hu[z, y, x]


def test_halving_averages_blocks() -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(-1000, 3000, (3, 64, 48), dtype=np.int16)
    volume = Volume(hu=hu, geometry=_plain(hu.shape))
    found = preprocess(volume, PreprocessConfig(size_yx=(32, 24))).hu
    wanted = hu.reshape(3, 32, 2, 24, 2).mean(axis=(2, 4))
    assert np.abs(found - wanted).max() <= 0.5 + 1e-3


def _plain(shape: Any, spacing_yx: tuple[float, float] = (1.0, 1.0)) -> Geometry:
    y, x = spacing_yx
    affine = np.array([[0, 0, x, 0], [0, y, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    return Geometry(shape_zyx=shape, affine_zyx_to_lps=affine)


@pytest.mark.parametrize("size", [(96, 80), (37, 53), (64, 48), (128, 20)])
def test_places_stay_where_they_are(size: tuple[int, int]) -> None:
    """A ramp in millimetres stays that ramp on the new grid, but for the outermost voxels."""
    shape = (2, 64, 48)
    geometry = _plain(shape)
    y_mm, x_mm = np.meshgrid(np.arange(64), np.arange(48), indexing="ij")
    ramp = np.stack([10 * y_mm + 7 * x_mm] * 2).astype(np.int16)
    found = preprocess(Volume(hu=ramp, geometry=geometry), PreprocessConfig(size_yx=size))
    assert found.hu.dtype == np.int16 and found.hu.shape == (2, *size)
    index = np.argwhere(np.ones(found.hu.shape, dtype=bool)).reshape(*found.hu.shape, 3)
    lps = found.geometry.to_lps_mm(index)
    wanted = 10 * lps[..., 1] + 7 * lps[..., 0]
    own = geometry.to_index(lps)[..., 1:]
    edge = found.geometry.spacing_zyx_mm[1]
    inner = ((own > 2 * edge) & (own < np.array(shape[1:]) - 1 - 2 * edge)).all(axis=-1)
    assert inner.any()
    # half a unit of rounding, a tenth of a mm
    assert np.abs(found.hu[inner] - wanted[inner]).max() <= 1.5
    outside = ((own < -0.5 - edge) | (own > np.array(shape[1:]) - 0.5 + edge)).any(axis=-1)
    assert np.all(found.hu[outside] == AIR_HU)


def test_proportions_stay_and_air_fills_the_rest() -> None:
    """A slab of 160 by 400 mm, as a coronal series turned to axial slices has it."""
    shape = (2, 80, 100)
    hu = np.random.default_rng(0).integers(0, 100, shape).astype(np.int16)
    geometry = _plain(shape, spacing_yx=(2.0, 4.0))
    found = preprocess(Volume(hu=hu, geometry=geometry), PreprocessConfig(size_yx=(100, 100)))
    assert found.geometry.spacing_zyx_mm == pytest.approx((1.0, 4.0, 4.0))
    assert np.all(found.hu[:, :30] == AIR_HU) and np.all(found.hu[:, 70:] == AIR_HU)
    np.testing.assert_allclose(found.hu[:, 30:70], hu.reshape(2, 40, 2, 100).mean(axis=2), atol=0.5)
    corners = [(0.0, -0.5, -0.5), (1.0, 79.5, 99.5)]
    there = found.geometry.to_index(geometry.to_lps_mm(corners))
    np.testing.assert_allclose(there, [(0, 29.5, -0.5), (1, 69.5, 99.5)], atol=1e-9)


@pytest.mark.parametrize(("before", "after"), [(512, 256), (611, 256), (101, 256), (1, 4), (7, 7)])
def test_weights_are_averages(before: int, after: int) -> None:
    weights = resize_weights(before, after).toarray()
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-6)
    assert weights.min() >= 0
    if after <= before:  # every old voxel counts the same
        np.testing.assert_allclose(weights.sum(axis=0), after / before, atol=1e-5)


def test_constant_stays_constant_at_the_ends_of_int16() -> None:
    for value in (-32768, -1024, 0, 3071, 32767):
        hu = np.full((2, 100, 100), value, dtype=np.int16)
        found = preprocess(Volume(hu=hu, geometry=_plain(hu.shape)), PreprocessConfig())
        assert np.all(found.hu == value)


def test_same_size_is_bit_exact() -> None:
    hu = canonical().hu
    volume = Volume(hu=hu, geometry=_plain(hu.shape))
    found = preprocess(volume, PreprocessConfig(size_yx=SHAPE[1:]))
    np.testing.assert_array_equal(found.hu, volume.hu)
    assert found.geometry.same_grid(volume.geometry)


def test_fingerprint_changes_with_what_networks_see() -> None:
    plain = PreprocessConfig()
    assert plain.fingerprint == PreprocessConfig().fingerprint
    assert preprocess(canonical(), plain).fingerprint == plain.fingerprint
    others = (PreprocessConfig(size_yx=(256, 255)), PreprocessConfig(windows=(BRAIN,)))
    assert len({plain.fingerprint, *(o.fingerprint for o in others)}) == 3


@pytest.mark.parametrize("shape", [(3, 40, 36), (1, 2, 2)])
def test_halving_is_the_general_resize_bit_by_bit(shape: tuple[int, int, int]) -> None:
    hu = np.random.default_rng(1).integers(-1024, 3071, shape).astype(np.int16)
    affine = np.diag([2.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]]
    volume = Volume(hu=hu, geometry=Geometry(shape_zyx=shape, affine_zyx_to_lps=affine))
    size = (shape[1] // 2, shape[2] // 2)
    halved = preprocess(volume, PreprocessConfig(size_yx=size)).hu
    rows, columns = (resize_weights(n, n // 2).toarray() for n in shape[1:])
    general = np.einsum("ab,zbc,dc->zad", rows, hu.astype(np.float32), columns)
    np.testing.assert_array_equal(halved, np.rint(general))
