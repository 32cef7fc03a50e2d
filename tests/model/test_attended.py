import numpy as np
import pytest

from raypipe.geometry import Box, Geometry
from raypipe.model.attended import attended_features, attended_width, places_of
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.types import ModelInput
from raypipe.volume.preprocess import PreprocessConfig, preprocess
from tests.report.finding_sets import make_finding

FINGERPRINT = PreprocessConfig().fingerprint
RANDOM = DetectorConfig(weights="random", threads=1)
BOXES = [
    (2, Box(lower_zyx=(2.0, 100.0, 90.0), upper_zyx=(3.0, 130.0, 120.0))),
    (4, Box(lower_zyx=(3.0, 60.0, 140.5), upper_zyx=(6.0, 63.0, 143.0))),
    (2, Box(lower_zyx=(1.0, 10.0, 10.0), upper_zyx=(4.0, 40.0, 200.0))),
]


@pytest.fixture(scope="module")
def model_input() -> ModelInput:
    spec = PhantomSpec(
        region="abdomen", shape_zyx=(7, 128, 128), spacing_zyx_mm=(5.0, 3.0, 3.0), seed=2
    )
    return preprocess(make_phantom(spec).volume, PreprocessConfig())


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(RANDOM, FINGERPRINT)


@pytest.fixture(scope="module")
def series_d(detector: Detector, model_input: ModelInput) -> np.ndarray:
    return detector.predict(model_input).features


def test_each_box_has_a_finite_vector_of_its_own(
    detector: Detector, model_input: ModelInput, series_d: np.ndarray
) -> None:
    vectors = attended_features(detector, model_input, BOXES, series_d)
    assert vectors.shape == (3, attended_width(detector)) and vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    np.testing.assert_array_equal(vectors, vectors.astype(np.float16).astype(np.float32))
    own = attended_width(detector) - len(series_d)
    assert np.abs(vectors[0, :own] - vectors[1, :own]).max() > 0.01
    assert np.abs(vectors[0, :own] - vectors[2, :own]).max() > 0.01  # the same slice
    np.testing.assert_allclose(vectors[1, own:], series_d, rtol=1e-3, atol=1e-3)
    assert attended_features(detector, model_input, [], series_d).shape == (0, len(vectors[0]))


def test_other_boxes_and_batches_do_not_change_a_vector(
    detector: Detector, model_input: ModelInput, series_d: np.ndarray
) -> None:
    together = attended_features(detector, model_input, BOXES, series_d)
    one_by_one = Detector(RANDOM.model_copy(update={"batch_slices": 1}), FINGERPRINT)
    for place, vector in zip(BOXES, together, strict=True):
        (alone,) = attended_features(one_by_one, model_input, [place], series_d)
        np.testing.assert_allclose(alone, vector, rtol=2e-3, atol=2e-3)


def test_a_map_of_one_value_pools_to_that_value(
    detector: Detector,
    model_input: ModelInput,
    series_d: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is averaged lies in the box: cells outside do not matter."""
    import torch

    from raypipe.model import attended

    y0, y1, x0, x1 = 96, 128, 96, 128  # whole cells of every level

    def marked(_: Detector, hu: np.ndarray) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        maps, attention = [], []
        for stride in (4, 8, 16, 32):
            level = torch.full((len(hu), 64, 256 // stride, 256 // stride), 9.0)
            level[:, :, y0 // stride : y1 // stride, x0 // stride : x1 // stride] = 3.0
            maps.append(level)
            attention.append(torch.rand(len(hu), 256 // stride, 256 // stride))
        return maps, attention

    monkeypatch.setattr(attended, "_levels", marked)
    inside = Box(lower_zyx=(0.0, y0, x0), upper_zyx=(1.0, y1, x1))
    (vector,) = attended_features(detector, model_input, [(0, inside)], series_d)
    np.testing.assert_allclose(vector[: 4 * 64], 3.0, rtol=1e-3)
    outside = Box(lower_zyx=(0.0, y0 - 32, x0), upper_zyx=(1.0, y1 - 32, x1))
    (vector,) = attended_features(detector, model_input, [(0, outside)], series_d)
    np.testing.assert_allclose(vector[: 4 * 64], 9.0, rtol=1e-3)


def test_places_are_on_the_other_grid() -> None:
    fine = Geometry(shape_zyx=(20, 64, 64), affine_zyx_to_lps=_scaled(1.0))
    coarse = Geometry(shape_zyx=(10, 32, 32), affine_zyx_to_lps=_scaled(2.0))
    finding = make_finding(
        box_zyx=Box(lower_zyx=(8.0, 20.0, 30.0), upper_zyx=(14.0, 30.0, 40.0)), key_slice=12
    )
    ((z, box),) = places_of([finding], fine, coarse)
    assert z == 6
    assert box.center_zyx == pytest.approx([c / 2 for c in finding.box_zyx.center_zyx])
    assert box.size_zyx == pytest.approx([s / 2 for s in finding.box_zyx.size_zyx])


def _scaled(mm: float) -> np.ndarray:
    affine = np.diag([mm, mm, mm, 1.0])
    affine[:3, :3] = affine[:3, :3][:, ::-1]
    return affine
