"""raypipe/volume/assemble.py, checks.py and resample.py: measured, flagged, repaired or refused."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Geometry
from raypipe.types import Flag, SliceStack, Volume
from raypipe.volume.assemble import VolumeConfig, to_volume
from raypipe.volume.checks import measure_spacing

SHAPE_YX = (40, 36)
SPACING_YX_MM = (1.5, 1.25)


def ball_hu(points_lps_mm: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.int16]:
    """A soft ball of 60 HU, 12 mm in radius, in fat within air; smooth, so that it can be found."""
    distance = np.linalg.norm(points_lps_mm - center, axis=-1)
    hu = -1000 + 900 / (1 + np.exp((distance - 20) / 1.5)) + 160 / (1 + np.exp(distance - 12))
    return np.asarray(np.rint(hu), dtype=np.int16)


def make_stack(
    along_mm: Any,
    *,
    tilt_deg: float = 0.0,
    offsets_mm: Any = None,
    thickness_mm: float | None = 2.0,
    direction: str = "axial",
    center: tuple[float, float, float] = (3.0, 2.0, 20.0),
    flags: tuple[Flag, ...] = (),
) -> SliceStack:
    """Slices through the ball at positions along the table, which leaves the normal by the tilt."""
    x, y = {
        "axial": ([1.0, 0, 0], [0, 1.0, 0]),
        "coronal": ([1.0, 0, 0], [0, 0, -1.0]),
    }[direction]
    tilt = np.deg2rad(tilt_deg)
    row, column = np.array(x), np.array(y)
    table = np.cross(row, column)
    column = np.cos(tilt) * column - np.sin(tilt) * table
    along = np.asarray(along_mm, dtype=np.float64)
    origin = np.array(center) - 18 * 1.25 * row - 20 * 1.5 * column - 20.0 * table
    positions = origin + along[:, None] * table
    if offsets_mm is not None:
        positions = positions + np.asarray(offsets_mm)[:, None] * row
    yy, xx = np.meshgrid(np.arange(SHAPE_YX[0]), np.arange(SHAPE_YX[1]), indexing="ij")
    plane = yy[..., None] * 1.5 * column + xx[..., None] * 1.25 * row
    hu = np.stack([ball_hu(p + plane, np.array(center)) for p in positions])
    return SliceStack(
        hu=hu,
        positions_lps_mm=positions,
        row_direction=(row[0], row[1], row[2]),
        column_direction=(column[0], column[1], column[2]),
        spacing_yx_mm=SPACING_YX_MM,
        thickness_mm=thickness_mm,
        instance_uids=tuple(f"uid{i}" for i in range(len(along))),
        flags=flags,
    )


def reason_of(read: SliceStack | Volume, **config: Any) -> Reason:
    with pytest.raises(SeriesError) as caught:
        to_volume(read, VolumeConfig(**config))
    return caught.value.reason


def center_of_ball(volume: Volume) -> NDArray[np.float64]:
    """Centre of mass of everything above -50 HU, in mm."""
    index = np.argwhere(volume.hu > -20)
    weight = (volume.hu[volume.hu > -20] + 20).astype(np.float64)
    center: NDArray[np.float64] = volume.geometry.to_lps_mm(
        (index * weight[:, None]).sum(axis=0) / weight.sum()
    )
    return center


def assert_ball_is_true(volume: Volume, center: tuple[float, float, float]) -> None:
    """HU where they belong: the ball's formula at every voxel inside."""
    index = np.argwhere(np.ones(volume.hu.shape, dtype=bool)).reshape(*volume.hu.shape, 3)
    wanted = ball_hu(volume.geometry.to_lps_mm(index), np.array(center))
    inside = volume.hu > -1000
    gap = np.abs(volume.hu.astype(int) - wanted)[inside]
    assert np.median(gap) <= 3
    assert np.percentile(gap, 99) < 120  # the edge of the ball falls by 300 HU a voxel


def test_a_regular_stack_is_not_touched() -> None:
    stack = make_stack(np.arange(20) * 2.0)
    volume = to_volume(stack, VolumeConfig())
    np.testing.assert_array_equal(volume.hu, stack.hu)
    assert volume.flags == ()
    assert volume.instance_uids == stack.instance_uids
    assert volume.geometry.spacing_zyx_mm == pytest.approx((2.0, 1.5, 1.25))
    np.testing.assert_allclose(
        volume.geometry.to_lps_mm([(i, 0, 0) for i in range(20)]), stack.positions_lps_mm
    )


@pytest.mark.parametrize("direction", ["axial", "coronal"])
def test_slices_in_any_order_are_sorted(direction: str) -> None:
    along = np.arange(20) * 2.0
    order = np.random.default_rng(0).permutation(20)
    sorted_volume = to_volume(make_stack(along, direction=direction), VolumeConfig())
    volume = to_volume(make_stack(along[order], direction=direction), VolumeConfig())
    np.testing.assert_array_equal(volume.hu, sorted_volume.hu)
    assert volume.geometry.same_grid(sorted_volume.geometry)
    assert volume.instance_uids == tuple(f"uid{i}" for i in np.argsort(order))


def test_rounded_positions_are_regular() -> None:
    along = np.round(np.arange(30) * 0.625 * 2, 1)
    volume = to_volume(make_stack(along), VolumeConfig())
    assert Flag.RESAMPLED not in volume.flags
    assert volume.hu.shape[0] == 30


@pytest.mark.parametrize("tilt_deg", [-18.5, 10.0, 25.0])
def test_gantry_tilt_is_repaired(tilt_deg: float) -> None:
    center = (3.0, 2.0, 20.0)
    stack = make_stack(np.arange(20) * 2.0, tilt_deg=tilt_deg)
    volume = to_volume(stack, VolumeConfig())
    assert {Flag.GANTRY_TILT, Flag.RESAMPLED} <= set(volume.flags)
    axes = volume.geometry.affine_zyx_to_lps[:3, :3] / np.array(volume.geometry.spacing_zyx_mm)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    off = np.abs(center_of_ball(volume) - center)
    assert np.all(off < 0.5 * np.array(volume.geometry.spacing_zyx_mm)[[2, 1, 0]])
    assert_ball_is_true(volume, center)
    assert volume.instance_uids == stack.instance_uids
    assert volume.geometry.spacing_zyx_mm[0] == pytest.approx(2 * np.cos(np.deg2rad(tilt_deg)))


def test_slight_shear_stays_in_the_affine() -> None:
    stack = make_stack(np.arange(20) * 2.0, offsets_mm=np.linspace(0, 0.3, 20))
    volume = to_volume(stack, VolumeConfig())
    assert volume.flags == ()
    np.testing.assert_array_equal(volume.hu, stack.hu)
    np.testing.assert_allclose(volume.geometry.to_lps_mm((19, 0, 0)), stack.positions_lps_mm[19])


def test_slices_that_jump_sideways_are_put_in_place() -> None:
    stack = make_stack(np.arange(20) * 2.0, offsets_mm=np.where(np.arange(20) < 10, 0.0, 2.5))
    volume = to_volume(stack, VolumeConfig())
    assert Flag.RESAMPLED in volume.flags
    assert_ball_is_true(volume, (3.0, 2.0, 20.0))
    # a shift by whole pixels (2.5 mm are two) leaves the values as they are
    np.testing.assert_array_equal(volume.hu[15, :, 2:38], stack.hu[15])


def test_uneven_spacing_is_resampled_to_the_finest_common() -> None:
    along = np.concatenate([np.arange(10) * 1.5, 13.5 + np.arange(1, 10) * 3.0])
    stack = make_stack(along)
    volume = to_volume(stack, VolumeConfig())
    assert {Flag.UNEVEN_SPACING, Flag.RESAMPLED} <= set(volume.flags)
    assert Flag.SLICE_GAPS not in volume.flags
    assert volume.geometry.spacing_zyx_mm[0] == pytest.approx(1.5)
    assert_ball_is_true(volume, (3.0, 2.0, 20.0))
    np.testing.assert_array_equal(volume.hu[:10], stack.hu[:10])  # planes that exist are copied
    assert volume.instance_uids[:12] == (*(f"uid{i}" for i in range(10)), "uid9", "uid10")


def test_missing_slices_by_policy() -> None:
    along = np.delete(np.arange(20) * 2.0, [7, 12, 13])
    stack = make_stack(along)
    assert reason_of(stack) is Reason.SLICE_GAP
    volume = to_volume(stack, VolumeConfig(missing_slices="interpolate"))
    assert {Flag.SLICE_GAPS, Flag.RESAMPLED} <= set(volume.flags)
    assert Flag.UNEVEN_SPACING not in volume.flags
    assert volume.hu.shape[0] == 20
    kept = [i for i in range(20) if i not in (7, 12, 13)]
    np.testing.assert_array_equal(volume.hu[kept], stack.hu)
    assert_ball_is_true(volume, (3.0, 2.0, 20.0))
    assert reason_of(stack, missing_slices="interpolate", max_gap_mm=5.0) is Reason.SLICE_GAP


def test_wide_regular_spacing_is_no_gap() -> None:
    volume = to_volume(make_stack(np.arange(5) * 10.0, thickness_mm=1.0), VolumeConfig())
    assert volume.flags == () and volume.geometry.spacing_zyx_mm[0] == pytest.approx(10.0)


def test_duplicates_by_policy() -> None:
    along = np.sort(np.append(np.arange(20) * 2.0, [8.0, 30.0]))
    stack = make_stack(along)
    volume = to_volume(stack, VolumeConfig())  # the same pixels twice
    assert volume.flags == (Flag.DUPLICATE_SLICES,)
    assert volume.hu.shape[0] == 20
    different = stack.hu.copy()
    different[5] += 1
    other = SliceStack(**{**vars(stack), "hu": different})
    assert reason_of(other) is Reason.DUPLICATE_SLICE
    kept = to_volume(other, VolumeConfig(duplicate_slices="keep_first"))
    np.testing.assert_array_equal(kept.hu, volume.hu)


def test_thickness_above_the_spacing_is_noted() -> None:
    volume = to_volume(make_stack(np.arange(20) * 2.0, thickness_mm=3.0), VolumeConfig())
    assert volume.flags == (Flag.OVERLAPPING_SLICES,)
    assert volume.thickness_mm == 3.0


def test_one_slice() -> None:
    volume = to_volume(make_stack([20.0], thickness_mm=4.0), VolumeConfig())
    assert volume.flags == (Flag.SINGLE_SLICE,)
    assert volume.geometry.spacing_zyx_mm == pytest.approx((4.0, 1.5, 1.25))


def test_all_slices_in_one_place() -> None:
    assert reason_of(make_stack(np.full(5, 20.0))) is Reason.GEOMETRY_INVALID


def test_too_large() -> None:
    stack = make_stack(np.arange(20) * 2.0)
    assert reason_of(stack, max_voxels=stack.hu.size - 1) is Reason.TOO_LARGE
    spread = make_stack([0.0, 0.5, 1.0, 1.5, 36.0])
    policy = {"missing_slices": "interpolate", "max_gap_mm": 100.0}
    assert reason_of(spread, max_voxels=spread.hu.size, **policy) is Reason.TOO_LARGE


def test_a_sheared_nifti_is_straightened() -> None:
    center = np.array((3.0, 2.0, 20.0))
    affine = np.array(
        [[0.4, 0, 1.25, -20], [0.9, 1.5, 0, -45], [2.0, 0, 0, 0], [0, 0, 0, 1]], dtype=float
    )
    geometry = Geometry(shape_zyx=(20, *SHAPE_YX), affine_zyx_to_lps=affine)
    index = np.argwhere(np.ones(geometry.shape_zyx, dtype=bool)).reshape(*geometry.shape_zyx, 3)
    sheared = Volume(hu=ball_hu(geometry.to_lps_mm(index), center), geometry=geometry)
    volume = to_volume(sheared, VolumeConfig())
    assert {Flag.GANTRY_TILT, Flag.RESAMPLED} <= set(volume.flags)
    axes = volume.geometry.affine_zyx_to_lps[:3, :3] / np.array(volume.geometry.spacing_zyx_mm)
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-6)
    assert np.all(np.abs(center_of_ball(volume) - center) < 0.6)
    assert_ball_is_true(volume, (3.0, 2.0, 20.0))


@pytest.mark.parametrize("seed", range(8))
def test_straightening_loses_no_face(seed: int) -> None:
    """A sheared grid that is turned as well: its faces lie on the new one's but for rounding."""
    rng = np.random.default_rng(seed)
    turn = float(rng.uniform(0.01, 0.2))
    rotation = np.array(
        [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    )
    axes = np.array([[0, 0, 1.25], [rng.uniform(0.3, 1.0), 1.5, 0], [2.0, 0, 0]])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation @ axes, rng.uniform(-200, 0, 3)
    geometry = Geometry(shape_zyx=(12, *SHAPE_YX), affine_zyx_to_lps=affine)
    hu = np.full(geometry.shape_zyx, 50, dtype=np.int16)
    straight = to_volume(Volume(hu=hu, geometry=geometry), VolumeConfig(check_hu=False)).hu
    for axis in (0, 2):  # y is where the shear leaves air
        assert (straight.max(axis=tuple({0, 1, 2} - {axis})) == 50).all()


def test_a_straight_nifti_is_not_touched() -> None:
    geometry = Geometry(shape_zyx=(20, *SHAPE_YX), affine_zyx_to_lps=np.diag([2.0, -1, -1, 1]))
    hu = make_stack(np.arange(20) * 2.0).hu
    volume = Volume(hu=hu, geometry=geometry, flags=(Flag.SFORM_QFORM_DIFFER,))
    assert to_volume(volume, VolumeConfig()) is volume


def test_spacing_measurements() -> None:
    even = measure_spacing(np.arange(10) * 2.5, 0.1)
    assert (even.even, even.missing, even.base_mm) == (True, 0, 2.5)
    planned = measure_spacing(np.concatenate([np.arange(5) * 2.0, 8 + np.arange(1, 5) * 7.0]), 0.1)
    assert (planned.even, planned.missing, planned.base_mm) == (False, 0, 2.0)
    lost = measure_spacing(np.delete(np.arange(20) * 2.0, [3, 9, 10]), 0.1)
    assert (lost.even, lost.missing, lost.widest_mm) == (False, 3, 6.0)
