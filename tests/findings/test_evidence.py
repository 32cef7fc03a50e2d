import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from raypipe.findings.decode import FindingsConfig, decode
from raypipe.findings.evidence import EVIDENCE, evidence
from raypipe.findings.link import Track, link
from raypipe.geometry import Box, Geometry
from raypipe.types import Detection, HuArray, ModelInput

CONFIG = FindingsConfig(slice_floor=0.05)
SPACING_Z, PIXEL = 2.0, 1.5


def model_input(hu: HuArray) -> ModelInput:
    affine = np.diag([SPACING_Z, PIXEL, PIXEL, 1.0])[[2, 1, 0, 3]]
    grid = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine)
    return ModelInput(hu=hu, geometry=grid, fingerprint="f")


def detection(z: int, y: float, x: float, size: float, score: float, label: str) -> Detection:
    half = size / 2
    box = Box(lower_zyx=(z, y - half, x - half), upper_zyx=(z + 1, y + half, x + half))
    return Detection(label=label, box_zyx=box, score=score)


def linked(detections: list[Detection]) -> tuple[Track, ...]:
    return link(decode(detections, CONFIG), CONFIG, SPACING_Z)


def told(rows: NDArray[np.float64], number: int) -> dict[str, float]:
    return dict(zip(EVIDENCE, rows[number].tolist(), strict=True))


def ball_and_vessel() -> tuple[ModelInput, tuple[Track, ...]]:
    """In lung: a ball over 4 slices, and a vessel that goes through all 20, seen on 9."""
    hu = np.full((20, 128, 128), -1000, np.int16)
    hu[:, 14:114, 24:104] = 40
    hu[:, 16:112, 26:102] = -800
    for z in range(8, 12):
        hu[z, 40:46, 40:46] = 40
    for z in range(20):
        hu[z, 80:86, 40 + 2 * z : 46 + 2 * z] = 40
    boxes = [detection(z, 43, 43, 6, 0.8, "pulmonary_nodule") for z in range(8, 12)]
    boxes += [detection(z, 83, 43 + 2 * z, 6, 0.8, "pulmonary_nodule") for z in range(5, 14)]
    return model_input(hu), linked(boxes)


def test_a_vessel_is_longer_wanders_and_goes_on() -> None:
    seen, tracks = ball_and_vessel()
    rows = evidence(tracks, seen, {"pulmonary_nodule": 0.9}, True)
    ball, vessel = (
        told(rows, next(i for i, t in enumerate(tracks) if len(t.detections) == n)) for n in (4, 9)
    )
    assert ball["length by diameter"] == pytest.approx(np.log(4 * SPACING_Z / (6 * PIXEL)))
    assert vessel["length by diameter"] == pytest.approx(np.log(9 * SPACING_Z / (6 * PIXEL)))
    assert ball["wander"] == ball["slant"] == 0.0
    assert vessel["wander"] == pytest.approx(2 / 6)
    for end in ("goes on below", "goes on above"):
        assert abs(ball[end]) < 0.05
        assert vessel[end] > 0.4
    assert ball["contrast"] == pytest.approx(3.0)  # held at 300 HU
    assert ball["aside"] == pytest.approx(abs((42.5 - 24) / 80 - 0.5))
    assert ball["height"] == pytest.approx((42.5 - 14) / 100)
    assert ball["best other of this label"] == pytest.approx(0.8)
    assert ball["other label here"] == 0.0


def test_another_label_in_the_same_place_and_better_ones_count() -> None:
    seen, _ = ball_and_vessel()
    tracks = linked(
        [detection(z, 43, 43, 6, 0.8, "pulmonary_nodule") for z in range(8, 12)]
        + [detection(z, 43, 43, 7, 0.6, "lung_mass") for z in range(8, 12)]
        + [detection(z, 90, 90, 7, 0.7, "lung_mass") for z in range(8, 12)]
    )
    rows = evidence(tracks, seen, {}, True)
    found = {(t.label, round(t.score, 2)): told(rows, i) for i, t in enumerate(tracks)}
    nodule, mass = found["pulmonary_nodule", 0.8], found["lung_mass", 0.6]
    assert nodule["other label here"] == pytest.approx(0.6)
    assert mass["other label here"] == pytest.approx(0.8)
    assert (nodule["better of this label"], mass["better of this label"]) == (0.0, 0.1)
    assert mass["best other of this label"] == pytest.approx(0.7)
    assert found["lung_mass", 0.7]["other label here"] == 0.0


def test_without_hu_the_grey_values_are_not_known_and_the_rest_is_the_same() -> None:
    seen, tracks = ball_and_vessel()
    with_hu, without = (evidence(tracks, seen, {}, has_hu) for has_hu in (True, False))
    grey = EVIDENCE.index("mean HU")
    np.testing.assert_array_equal(with_hu[:, :grey], without[:, :grey])
    assert np.isnan(without[:, grey:]).all()
    assert not np.isnan(with_hu).any()


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.floats(-3, 67),
            st.floats(-3, 67),
            st.floats(0.02, 80),
            st.floats(0.06, 1.0),
            st.sampled_from(["liver_cyst", "liver_mass"]),
        ),
        max_size=12,
    ),
    st.sampled_from([-1000, 40]),
    st.integers(1, 3),
)
def test_every_number_is_finite_whatever_the_boxes(
    boxes: list[tuple[int, float, float, float, float, str]], value: int, depth: int
) -> None:
    tracks = linked([detection(*box) for box in boxes if box[0] < depth])
    seen = model_input(np.full((depth, 64, 64), value, np.int16))
    rows = evidence(tracks, seen, {"liver_cyst": 1.0}, True)
    assert rows.shape == (len(tracks), len(EVIDENCE))
    assert np.isfinite(rows).all()
    assert len(evidence((), seen, {}, True)) == 0
