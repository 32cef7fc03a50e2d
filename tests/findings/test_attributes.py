import numpy as np
import pytest

from raypipe.findings.attributes import lung_level, mean_hu, measure_anatomy, side_of, vote
from raypipe.geometry import Box
from raypipe.knowledge.graph import load_graph
from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.types import Detection
from raypipe.volume.preprocess import PreprocessConfig, preprocess


def box(z: float, y: float, x: float, size: float = 10.0) -> Box:
    half = size / 2
    return Box(lower_zyx=(z, y - half, x - half), upper_zyx=(z + 1, y + half, x + half))


def test_mean_hu_looks_at_the_inner_half_only() -> None:
    hu = np.full((3, 40, 40), -1000, np.int16)
    hu[1, 15:25, 15:25] = 40
    assert mean_hu(hu, box(1, 20, 20, 10)) == 40.0
    assert mean_hu(hu, box(1, 20, 20, 19)) == 40.0
    assert mean_hu(hu, box(1, 20, 20, 40)) == pytest.approx(-1000 + 1040 * 100 / 400)


def test_mean_hu_of_a_box_smaller_than_a_voxel() -> None:
    hu = np.zeros((3, 40, 40), np.int16)
    hu[1, 7, 9] = 500
    small = Box(lower_zyx=(1.0, 7.2, 9.2), upper_zyx=(2.0, 7.6, 9.6))
    assert mean_hu(hu, small) == 500.0


def test_side_is_measured_from_the_body_not_from_the_picture() -> None:
    hu = np.full((4, 64, 64), -1000, np.int16)
    hu[:, 20:50, 4:40] = 40  # the body lies off the picture's centre
    anatomy = measure_anatomy(hu)
    assert side_of(box(1, 32, 30, 4), anatomy) == "left"
    assert side_of(box(1, 32, 12, 4), anatomy) == "right"
    assert side_of(box(1, 32, 22, 4), anatomy) == "midline"


def test_side_is_unknown_without_a_body() -> None:
    assert (
        side_of(box(1, 32, 30, 4), measure_anatomy(np.full((4, 64, 64), -1000, np.int16))) is None
    )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_side_agrees_with_the_phantoms_truth(seed: int) -> None:
    phantom = make_phantom(
        PhantomSpec(
            region="abdomen",
            shape_zyx=(24, 128, 128),
            spacing_zyx_mm=(5.0, 3.0, 3.0),
            seed=seed,
            lesions=("renal_cyst", "renal_mass", "renal_cyst"),
        )
    )
    anatomy = measure_anatomy(phantom.volume.hu)
    assert phantom.lesions
    for lesion in phantom.lesions:
        assert side_of(lesion.box_zyx, anatomy) == lesion.side


def test_lung_level_needs_whole_lungs() -> None:
    spec = PhantomSpec(
        region="chest",
        shape_zyx=(70, 128, 128),
        spacing_zyx_mm=(6.0, 3.2, 3.2),
        lesions=0,
        center_z_mm=20.0,
    )
    model_input = preprocess(make_phantom(spec).volume, PreprocessConfig())
    levels = ("upper", "middle", "lower")
    anatomy = measure_anatomy(model_input.hu)
    assert anatomy.lung_z is not None
    low, high = anatomy.lung_z
    assert lung_level(box(high - 2, 0, 0), anatomy, levels) == "upper"
    assert lung_level(box((low + high) / 2, 0, 0), anatomy, levels) == "middle"
    assert lung_level(box(low + 1, 0, 0), anatomy, levels) == "lower"
    cut = measure_anatomy(model_input.hu[low + 3 : high])
    assert lung_level(box(2, 0, 0), cut, levels) is None


def test_vote_keeps_to_what_the_graph_allows() -> None:
    node = load_graph().finding("renal_cyst")
    seen = [
        Detection(label="renal_cyst", box_zyx=box(0, 5, 5), score=s, attributes=a)
        for s, a in (
            (0.9, {"density": "calcified", "margin": "smooth"}),
            (0.4, {"density": "fluid", "shape": "oval"}),
            (0.5, {"shape": "round"}),
        )
    ]
    assert vote(seen, node) == {"density": "fluid", "margin": "smooth", "shape": "round"}
