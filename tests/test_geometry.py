"""raypipe/geometry.py: round trips between voxels and millimetres."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from raypipe.geometry import Box, Geometry, box_around

numbers = st.floats(-300.0, 300.0)
points = st.lists(st.tuples(numbers, numbers, numbers), min_size=1, max_size=8)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any rotated, flipped, anisotropic grid."""
    spacing = [draw(st.floats(0.2, 8.0)) for _ in range(3)]
    angles = [draw(st.floats(-180.0, 180.0)) for _ in range(3)]
    flips = [draw(st.sampled_from((-1.0, 1.0))) for _ in range(3)]
    affine = np.eye(4)
    rotation = Rotation.from_euler("zyx", angles, degrees=True).as_matrix()
    affine[:3, :3] = rotation * spacing * flips
    affine[:3, 3] = draw(st.tuples(numbers, numbers, numbers))
    shape = draw(st.tuples(*(st.integers(1, 600) for _ in range(3))))
    return Geometry(shape_zyx=shape, affine_zyx_to_lps=affine)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Any box, also an empty one."""
    low = draw(st.tuples(numbers, numbers, numbers))
    size = draw(st.tuples(*(st.floats(0.0, 100.0) for _ in range(3))))
    return Box(lower_zyx=low, upper_zyx=(low[0] + size[0], low[1] + size[1], low[2] + size[2]))


def faces(box: Box) -> NDArray[np.float64]:
    return np.array([box.lower_zyx, box.upper_zyx])


@given(geometries(), points)
def test_millimetres_and_back(geometry: Geometry, index: list[tuple[float, float, float]]) -> None:
    again = geometry.to_index(geometry.to_lps_mm(index))
    np.testing.assert_allclose(again, index, atol=1e-6)


@given(geometries(), boxes())
def test_box_to_its_own_grid_is_the_box(geometry: Geometry, box: Box) -> None:
    np.testing.assert_allclose(faces(geometry.box_to(geometry, box)), faces(box), atol=1e-6)


@given(geometries(), geometries(), boxes())
def test_box_on_another_grid_encloses_it(a: Geometry, b: Geometry, box: Box) -> None:
    there = a.box_to(b, box)
    index = b.to_index(a.corners_lps_mm(box)) + 0.5
    assert np.all(index >= np.array(there.lower_zyx) - 1e-6)
    assert np.all(index <= np.array(there.upper_zyx) + 1e-6)


@given(geometries(), st.tuples(*(st.integers(1, 600) for _ in range(3))))
def test_resizing_keeps_the_field_of_view(geometry: Geometry, shape: tuple[int, int, int]) -> None:
    resized = geometry.resized(shape)
    whole = [
        g.corners_lps_mm(Box(lower_zyx=(0.0, 0.0, 0.0), upper_zyx=g.shape_zyx))
        for g in (geometry, resized)
    ]
    np.testing.assert_allclose(whole[0], whole[1], atol=1e-6)
    assert resized.resized(geometry.shape_zyx).same_grid(geometry, tolerance_mm=1e-6)


@given(geometries(), boxes())
def test_box_in_millimetres_has_its_size(geometry: Geometry, box: Box) -> None:
    corners = geometry.corners_lps_mm(box)
    edges = (corners[4] - corners[0], corners[2] - corners[0], corners[1] - corners[0])
    np.testing.assert_allclose(geometry.size_mm(box), [np.linalg.norm(e) for e in edges], atol=1e-6)


@given(boxes(), boxes())
def test_iou_is_a_symmetric_share(a: Box, b: Box) -> None:
    assert a.iou(b) == pytest.approx(b.iou(a))
    assert 0.0 <= a.iou(b) <= 1.0 + 1e-9
    if np.prod(a.size_zyx) > 1e-6:
        assert a.iou(a) == pytest.approx(1.0)


def test_a_voxel_is_a_box_around_its_index() -> None:
    geometry = Geometry(shape_zyx=(4, 5, 6), affine_zyx_to_lps=np.diag([3.0, 2.0, 1.0, 1.0]))
    box = box_around(geometry, geometry.to_lps_mm([(1.5, 1.5, 1.5), (2.5, 2.5, 2.5)]))
    assert box == Box(lower_zyx=(2.0, 2.0, 2.0), upper_zyx=(3.0, 3.0, 3.0))
    assert box.center_zyx == (2.0, 2.0, 2.0)
    assert box.slices((4, 5, 6)) == (slice(2, 3), slice(2, 3), slice(2, 3))


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((0, 5, 6), np.eye(4)),
        ((4, 5, 6), np.diag([1.0, 1.0, 0.0, 1.0])),
        ((4, 5, 6), np.full((4, 4), np.nan)),
        ((4, 5, 6), np.eye(3)),
    ],
)
def test_grids_that_are_none(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="Geometry"):
        Geometry(shape_zyx=shape, affine_zyx_to_lps=affine)
