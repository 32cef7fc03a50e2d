import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.findings.contour import contoured
from raypipe.findings.decode import FindingsConfig, slice_of
from raypipe.findings.link import link
from raypipe.geometry import Box
from raypipe.phantom import PhantomSpec, make_phantom, slice_boxes
from raypipe.train.dataset import on_grid
from raypipe.types import Detection, HuArray
from raypipe.volume.preprocess import PreprocessConfig, preprocess

CONFIG = FindingsConfig()


def flat(noise_hu: float, level: float = 40.0) -> HuArray:
    noise = np.random.default_rng(0).normal(0.0, noise_hu, (1, 64, 64))
    return (level + noise).astype(np.int16)


def drawn(hu: HuArray, box: Box, config: FindingsConfig = CONFIG) -> Box:
    (redrawn,) = redraw([Detection(label="kidney_stone", box_zyx=box, score=0.5)], hu, config)
    return redrawn


def redraw(detections: list[Detection], hu: HuArray, config: FindingsConfig = CONFIG) -> list[Box]:
    of_slice = {slice_of(d): (d,) for d in detections}
    tracks = link(of_slice, config, spacing_z_mm=5.0)
    after = contoured(tracks, hu, config)
    boxes = []
    for track, same in zip(tracks, after, strict=True):
        assert (same.label, same.score) == (track.label, track.score)
        assert [d.score for d in same.detections] == [d.score for d in track.detections]
        boxes += [d.box_zyx for d in same.detections]
    return sorted(boxes, key=lambda box: box.lower_zyx)


def on_slice(y0: float, x0: float, y1: float, x1: float) -> Box:
    return Box(lower_zyx=(0.0, y0, x0), upper_zyx=(1.0, y1, x1))


@given(
    y=st.integers(24, 36),
    x=st.integers(24, 36),
    height=st.integers(2, 6),
    width=st.integers(2, 6),
    moved=st.tuples(st.floats(-1, 1), st.floats(-1, 1)),
    grown=st.floats(0.8, 1.5),
    contrast=st.sampled_from([-300, -120, 150, 800]),
)
def test_a_box_moves_onto_what_it_holds(
    y: int,
    x: int,
    height: int,
    width: int,
    moved: tuple[float, float],
    grown: float,
    contrast: int,
) -> None:
    hu = flat(8.0)
    hu[0, y : y + height, x : x + width] += np.int16(contrast)
    truth = on_slice(y, x, y + height, x + width)
    middle = (y + height / 2 + moved[0], x + width / 2 + moved[1])
    half = (height * grown / 2, width * grown / 2)
    rough = on_slice(
        middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1]
    )
    result = drawn(hu, rough)
    # exactly right, or left alone
    assert result in (truth, rough)
    if rough.iou(truth) > 0.3:
        assert result == truth


def test_where_grey_values_do_not_tell_a_box_stays() -> None:
    rough = on_slice(28.3, 29.1, 34.2, 35.6)
    assert drawn(flat(20.0), rough) == rough  # nothing there
    faint = flat(20.0)
    faint[0, 29:34, 30:35] += 30
    assert drawn(faint, rough) == rough  # less than the noise allows
    touching = flat(5.0)
    touching[0, 29:34, 30:35] += 400
    touching[0, 31, 30:] += 400
    assert drawn(touching, rough) == rough  # its own density runs on
    beside = flat(5.0)
    beside[0, 36:38, 29:36] += 400
    assert drawn(beside, rough) == rough  # something else, which the box does not hold


def test_half_the_contrast_is_that_of_the_lesion_not_of_its_last_slice() -> None:
    hu = np.concatenate([flat(5.0)] * 2)
    hu[0, 20:26, 20:26] += 400
    # the lesion ends within the second slice: its middle fills most of a voxel, its rim a little
    hu[1, 20:26, 20:26] += 120
    hu[1, 22:24, 22:24] += 150
    rough = [Box(lower_zyx=(z, 20.0, 20.0), upper_zyx=(z + 1.0, 25.0, 25.0)) for z in (0.0, 1.0)]
    first, second = redraw(
        [
            Detection(label="kidney_stone", box_zyx=box, score=score)
            for box, score in zip(rough, (0.6, 0.3), strict=True)
        ],
        hu,
    )
    assert first == on_slice(20.0, 20.0, 26.0, 26.0)
    assert second.lower_zyx == (1.0, 22.0, 22.0) and second.upper_zyx == (2.0, 24.0, 24.0)


def test_boxes_at_the_edge_of_a_slice() -> None:
    hu = flat(5.0)
    hu[0, 0:4, 0:4] += 400
    rough = on_slice(0.0, 0.0, 5.0, 5.0)
    assert drawn(hu, rough) == rough  # what goes on outside is not known


def test_large_boxes_stay_and_zero_switches_it_off() -> None:
    hu = flat(5.0)
    hu[0, 20:40, 20:40] += 200
    large, small = on_slice(18.0, 18.0, 41.0, 41.0), on_slice(19.0, 19.0, 23.0, 23.0)
    assert drawn(hu, large) == large
    hu = flat(5.0)
    hu[0, 20:23, 20:23] += 200
    assert drawn(hu, small) == on_slice(20.0, 20.0, 23.0, 23.0)
    assert drawn(hu, small, FindingsConfig(contour_pixels=0.0)) == small


@pytest.mark.parametrize("label", ["kidney_stone", "gallstone"])
def test_rough_boxes_of_stones_become_the_truth(label: str) -> None:
    """On phantoms: boxes that are half too large end near the true ones."""
    before, after = [], []
    for seed in range(4):
        spec = PhantomSpec.model_validate(
            {
                "region": "abdomen",
                "shape_zyx": (16, 256, 256),
                "spacing_zyx_mm": (5.0, 1.5, 1.5),
                "center_z_mm": -110.0,
                "seed": seed,
                "lesions": (label, label),
            }
        )
        phantom = make_phantom(spec)
        model_input = preprocess(phantom.volume, PreprocessConfig())
        lesion_map = on_grid(phantom.lesion_map, phantom.volume.geometry, model_input.geometry)
        for z in range(len(lesion_map)):
            for _, truth in slice_boxes(lesion_map, z):
                grow = np.array(truth.size_zyx[1:]) / 4
                lower, upper = truth.lower_zyx[1:] - grow, truth.upper_zyx[1:] + grow
                rough = Box(lower_zyx=(z, *lower), upper_zyx=(z + 1, *upper))
                if max(rough.size_zyx[1:]) > CONFIG.contour_pixels:
                    continue
                detection = Detection(label=label, box_zyx=rough, score=0.5)
                (redrawn,) = redraw([detection], model_input.hu)
                before.append(rough.iou(truth))
                after.append(redrawn.iou(truth))
    assert len(after) >= 5
    assert np.mean(after) > np.mean(before) + 0.15
