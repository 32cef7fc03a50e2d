"""raypipe/volume/checks.py: what can be CT and what cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from raypipe.archive.nifti import read_nifti
from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Geometry
from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.types import Flag, Volume
from raypipe.volume.assemble import VolumeConfig, to_volume


def outcome(hu: NDArray[Any], flags: tuple[Flag, ...] = ()) -> Reason | None:
    hu = np.asarray(hu, dtype=np.int16)
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=np.eye(4))  # type: ignore[arg-type]
    try:
        to_volume(Volume(hu=hu, geometry=geometry, flags=flags), VolumeConfig())
    except SeriesError as error:
        return error.reason
    return None


def body(noise_hu: float = 12.0) -> NDArray[np.float64]:
    """Air, fat, muscle and bone, with noise."""
    rng = np.random.default_rng(0)
    hu = np.full((8, 64, 64), -1000.0)
    hu[:, 10:54, 10:54] = -100.0
    hu[:, 14:50, 14:50] = 45.0
    hu[:, 30:34, 30:34] = 700.0
    return hu + rng.normal(0, noise_hu, hu.shape)


def test_ct_passes() -> None:
    assert outcome(body()) is None


@pytest.mark.parametrize("region", ["head", "chest", "abdomen"])
def test_phantoms_pass(region: Any) -> None:
    phantom = make_phantom(PhantomSpec(region=region, shape_zyx=(8, 48, 48)))
    assert outcome(phantom.volume.hu) is None


def test_odd_but_real_ct_passes() -> None:
    rng = np.random.default_rng(1)
    water = np.full((6, 40, 40), -1000.0)
    water[:, 10:30, 10:30] = 0.0
    assert outcome(water + rng.normal(0, 5, water.shape)) is None  # a water phantom
    brain = rng.normal(30, 12, (6, 40, 40))  # a field of view inside the head
    brain[:, 5:8] = 1200
    assert outcome(brain) is None
    metal = body()
    metal[:, 12:52, 12:40] = 3071.0
    assert outcome(metal) is None
    small = np.full((6, 80, 80), -1000.0)  # a wrist in a wide field of view
    small[:, 38:42, 38:42] = 50.0
    assert outcome(small + rng.normal(0, 8, small.shape)) is None
    padded = body()
    padded[:, :8] = -3024.0
    assert outcome(padded) is None


def test_label_maps() -> None:
    labels = np.zeros((8, 64, 64))
    assert outcome(labels) is Reason.HU_IMPLAUSIBLE  # empty: neither labels nor HU
    labels[2:5, 10:30, 10:30] = 1
    assert outcome(labels) is Reason.LABEL_MAP
    for i in range(2, 118):
        z, y = divmod(i, 20)
        labels[z, 3 * y : 3 * y + 3, 40:60] = i
    assert outcome(labels) is Reason.LABEL_MAP
    assert outcome(labels * 10) is Reason.LABEL_MAP
    single = np.zeros((8, 64, 64))
    single[4, 30:33, 30:33] = 255
    assert outcome(single) is Reason.LABEL_MAP


def test_values_without_a_scale() -> None:
    unit = (body() + 1000) / 2000
    assert outcome(np.rint(unit)) in (Reason.HU_IMPLAUSIBLE, Reason.LABEL_MAP)
    grey = np.clip((body() + 160) / 400 * 255, 0, 255)
    assert outcome(grey) is Reason.HU_IMPLAUSIBLE
    assert outcome(grey, flags=(Flag.NO_HU,)) is None
    assert outcome(body() + 1024 + 200) is Reason.HU_IMPLAUSIBLE  # the intercept is missing
    assert outcome(np.full((4, 8, 8), 77)) is Reason.HU_IMPLAUSIBLE
    assert outcome(np.full((4, 40, 40), -1000) + body()[:4, :40, :40] * 0.01) is (
        Reason.HU_IMPLAUSIBLE
    )  # air alone


def test_rare_voxels_make_no_range() -> None:
    """One voxel in 2,000 lies above the 99.9 percentile, one in 200 does not."""
    flat = np.random.default_rng(2).normal(0, 5, (10, 50, 40))
    rare, common = flat.copy(), flat.copy()
    rare.reshape(-1)[::2000] = 300.0
    common.reshape(-1)[::200] = 300.0
    assert outcome(rare) is Reason.HU_IMPLAUSIBLE
    assert outcome(common) is None


def test_the_check_can_be_turned_off() -> None:
    geometry = Geometry(shape_zyx=(2, 4, 4), affine_zyx_to_lps=np.eye(4))
    volume = Volume(hu=np.ones((2, 4, 4), dtype=np.int16), geometry=geometry)
    assert to_volume(volume, VolumeConfig(check_hu=False)) is volume


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("lung_tumour/lung1_image", None),
        ("lung_tumour/lung1_label", Reason.LABEL_MAP),
        ("body_organs/example_ct", None),
        ("body_organs/example_ct_sm", None),
        ("body_organs/example_seg", Reason.LABEL_MAP),
    ],
)
def test_real_volumes(shared_data: Path, name: str, reason: Reason | None) -> None:
    content = (shared_data / "nifti" / f"{name}.nii.gz").read_bytes()
    volume = read_nifti(content, max_voxels=10**9)
    assert outcome(volume.hu) is reason
