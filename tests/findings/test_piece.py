import numpy as np
import pytest

from raypipe.findings.contour import Surroundings
from raypipe.findings.link import Track
from raypipe.findings.piece import NOTHING, PIECE, piece_of
from raypipe.geometry import Box
from raypipe.types import Detection, HuArray

SPACING = (2.0, 1.0, 1.0)


def track_on(z0: int, z1: int, center_yx: tuple[float, float], size: float) -> Track:
    """The same box on slices z0 to z1 - 1."""
    (y, x), half = center_yx, size / 2
    boxes = [
        Box(lower_zyx=(z, y - half, x - half), upper_zyx=(z + 1, y + half, x + half))
        for z in range(z0, z1)
    ]
    return Track(
        label="pulmonary_nodule",
        detections=tuple(Detection(label="pulmonary_nodule", box_zyx=b, score=0.8) for b in boxes),
        box_zyx=Box(lower_zyx=boxes[0].lower_zyx, upper_zyx=boxes[-1].upper_zyx),
        score=0.8,
    )


def told(track: Track, hu: HuArray) -> dict[str, float]:
    around = Surroundings.of(hu, track.best.box_zyx)
    found = piece_of(track, hu, around.level, around.contrast(), SPACING)
    return dict(zip(PIECE, found, strict=True))


def distance_mm(hu: HuArray, center_zyx: tuple[float, float, float]) -> HuArray:
    places = np.indices(hu.shape) + 0.5
    away = [(p - c) * mm for p, c, mm in zip(places, center_zyx, SPACING, strict=True)]
    return np.sqrt(sum(a**2 for a in away))


@pytest.mark.parametrize("radius_mm", [6.0, 30.0])  # the larger is looked at in steps
def test_a_ball_ends_within_its_box_and_has_three_axes_alike(radius_mm: float) -> None:
    hu = np.full((50, 120, 120), -800, np.int16)
    hu[distance_mm(hu, (25.0, 60.0, 60.0)) < radius_mm] = 40
    half = round(radius_mm / SPACING[0])
    found = told(track_on(25 - half, 25 + half, (60.0, 60.0), 2 * radius_mm), hu)
    assert found["filled"] == pytest.approx(np.pi / 6, rel=0.1)
    assert found["beyond"] == found["sides left"] == 0.0
    assert found["first axes"] == pytest.approx(0.0, abs=0.12)
    assert found["last axes"] == pytest.approx(0.0, abs=0.12)


def test_a_vessel_goes_on_at_two_sides_and_is_long() -> None:
    hu = np.full((50, 120, 120), -800, np.int16)
    hu[:, 57:63, 57:63] = 40
    found = told(track_on(23, 27, (60.0, 60.0), 6.0), hu)
    assert found["filled"] == pytest.approx(1.0)
    assert found["beyond"] == pytest.approx(4 / 8)  # two slices more, on either side
    assert found["sides left"] == pytest.approx(2 / 6)
    assert found["first axes"] > np.log(2.0)
    assert found["last axes"] == pytest.approx(0.0, abs=0.01)


def test_a_cyst_darker_than_its_organ_is_a_piece_too() -> None:
    hu = np.full((20, 80, 80), 110, np.int16)
    hu[8:12, 36:44, 36:44] = 5
    found = told(track_on(8, 12, (40.0, 40.0), 8.0), hu)
    assert found["filled"] == pytest.approx(1.0)
    assert found["beyond"] == found["sides left"] == 0.0


def test_nothing_where_nothing_stands_out() -> None:
    hu = np.full((20, 80, 80), 40, np.int16)
    track = track_on(8, 12, (40.0, 40.0), 8.0)
    around = Surroundings.of(hu, track.best.box_zyx)
    assert piece_of(track, hu, around.level, around.contrast(), SPACING) == NOTHING


def test_nothing_where_what_stands_out_lies_outside_the_box() -> None:
    hu = np.full((20, 80, 80), 40, np.int16)
    hu[8, 4:6, 4:6] = 200
    around = Surroundings.of(hu, track_on(8, 9, (5.0, 5.0), 2.0).best.box_zyx)
    track = track_on(10, 12, (60.0, 60.0), 8.0)
    assert piece_of(track, hu, around.level, around.contrast(), SPACING) == NOTHING
