from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from s3fs import S3FileSystem

from raypipe.errors import CheckpointError, ConfigError
from raypipe.geometry import Geometry
from raypipe.knowledge.graph import REGIONS, load_graph
from raypipe.knowledge.windows import NETWORK_WINDOWS
from raypipe.model.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import (
    Detector,
    _best_apart,
    box_scores,
    build_network,
    stacks,
    window_channels,
)
from raypipe.model.network import config_for
from raypipe.phantom import PhantomSpec, make_phantom
from raypipe.types import ModelInput, Prediction
from raypipe.volume.preprocess import PreprocessConfig, preprocess

FINGERPRINT = PreprocessConfig().fingerprint
RANDOM = DetectorConfig(weights="random", score_floor=0.03)


@pytest.fixture(scope="module")
def model_input() -> ModelInput:
    spec = PhantomSpec(
        region="abdomen", shape_zyx=(7, 128, 128), spacing_zyx_mm=(5.0, 3.0, 3.0), seed=2
    )
    return preprocess(make_phantom(spec).volume, PreprocessConfig())


@pytest.fixture(scope="module")
def prediction(model_input: ModelInput) -> Prediction:
    return Detector(RANDOM, FINGERPRINT).predict(model_input)


def test_predict_gives_boxes_features_and_labels(
    model_input: ModelInput, prediction: Prediction
) -> None:
    detector = Detector(RANDOM, FINGERPRINT)
    assert prediction.features.dtype == np.float32 and prediction.features.ndim == 1
    assert set(prediction.label_scores) >= set(detector.labels)
    assert all(0 <= s <= 1 for s in prediction.label_scores.values())
    assert prediction.detections
    for d in prediction.detections:
        assert d.label in detector.labels and d.score > RANDOM.score_floor
        assert d.box_zyx.size_zyx[0] == 1.0
        assert min(d.box_zyx.lower_zyx) >= 0.0
        assert all(u <= n for u, n in zip(d.box_zyx.upper_zyx, (7, 256, 256), strict=True))
        assert set(d.attributes) == {"density", "margin", "shape", "severity"}
    of_slice = [d.box_zyx.lower_zyx[0] for d in prediction.detections]
    assert max(of_slice.count(z) for z in of_slice) <= RANDOM.boxes_per_slice


def test_the_cells_of_one_lesion_leave_room_for_others() -> None:
    """Fifty cells say the same of one lesion, better than the two that see others."""
    boxes = torch.tensor([[50.0, 50.0, 20.0, 20.0]]).repeat(52, 1)
    boxes[:50, 0] += torch.linspace(0, 2, 50)
    boxes[50, :2], boxes[51, :2] = torch.tensor([120.0, 50.0]), torch.tensor([200.0, 50.0])
    scores = torch.zeros(52, 2)
    scores[:50, 0] = torch.linspace(0.9, 0.8, 50)
    scores[0, 1], scores[50, 0], scores[51, 0] = 0.7, 0.5, 0.4
    found = list(islice(_best_apart(scores, boxes, RANDOM), 9))
    assert found == [(0, 0), (0, 1), (50, 0), (51, 0)]  # another label is no repetition


def test_predict_is_deterministic(model_input: ModelInput, prediction: Prediction) -> None:
    again = Detector(RANDOM, FINGERPRINT).predict(model_input)
    assert again.detections == prediction.detections
    assert again.label_scores == prediction.label_scores
    np.testing.assert_array_equal(again.features, prediction.features)


@pytest.mark.parametrize("batch_slices", [1, 3, 32])
def test_batching_does_not_change_the_result(
    model_input: ModelInput, prediction: Prediction, batch_slices: int
) -> None:
    config = RANDOM.model_copy(update={"batch_slices": batch_slices})
    other = Detector(config, FINGERPRINT).predict(model_input)
    np.testing.assert_allclose(other.features, prediction.features, atol=1e-4)
    for label, score in prediction.label_scores.items():
        assert other.label_scores[label] == pytest.approx(score, abs=2e-4)
    scores = [sorted(d.score for d in p.detections) for p in (other, prediction)]
    assert len(scores[0]) == pytest.approx(len(scores[1]), abs=2)
    top = [s[-20:] for s in scores]
    np.testing.assert_allclose(top[0], top[1], atol=2e-4)


def test_other_seeds_are_other_networks(model_input: ModelInput, prediction: Prediction) -> None:
    other = Detector(RANDOM.model_copy(update={"seed": 1}), FINGERPRINT)
    assert other.weights_hash != Detector(RANDOM, FINGERPRINT).weights_hash
    assert not np.allclose(other.predict(model_input).features, prediction.features)


def test_making_a_detector_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    Detector(RANDOM, FINGERPRINT)
    assert torch.equal(torch.rand(3), expected)


def test_input_of_other_preprocessing_is_refused(model_input: ModelInput) -> None:
    detector = Detector(RANDOM, FINGERPRINT)
    with pytest.raises(CheckpointError, match="preprocessing"):
        detector.predict(replace(model_input, fingerprint="other"))


def test_slices_of_another_size_are_refused() -> None:
    hu = np.zeros((2, 64, 64), np.int16)
    grid = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=np.eye(4))
    with pytest.raises(CheckpointError, match="256 x 256"):
        Detector(RANDOM, FINGERPRINT).predict(
            ModelInput(hu=hu, geometry=grid, fingerprint=FINGERPRINT)
        )


def test_a_missing_device_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="device"):
        Detector(DetectorConfig(weights="random", device="cuda:99"), FINGERPRINT)


def _info(fingerprint: str = FINGERPRINT) -> CheckpointInfo:
    return CheckpointInfo(
        network=config_for(load_graph()), fingerprint=fingerprint, windows=NETWORK_WINDOWS
    )


def test_checkpoint_round_trip(tmp_path: Path, model_input: ModelInput) -> None:
    path = tmp_path / "w" / "weights.safetensors"
    source = Detector(RANDOM, FINGERPRINT)
    info = _info().model_copy(update={"thresholds": {"liver_cyst": 0.4}})
    save_checkpoint(path, source.network.state_dict(), info)
    tensors, loaded, digest = load_checkpoint(path)
    assert loaded == info and len(digest) == 16
    for key, value in source.network.state_dict().items():
        assert torch.equal(tensors[key], value)
    detector = Detector(RANDOM.model_copy(update={"weights": str(path)}), FINGERPRINT)
    assert detector.weights_hash == digest
    assert detector.thresholds == {"liver_cyst": 0.4}
    assert detector.predict(model_input).detections == source.predict(model_input).detections


def test_weights_of_other_preprocessing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    info = _info("0123456789abcdef")
    save_checkpoint(path, build_network(info).state_dict(), info)
    with pytest.raises(CheckpointError, match="0123456789abcdef"):
        Detector(DetectorConfig(weights=str(path)), FINGERPRINT)


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(CheckpointError, match="cannot read"):
        load_checkpoint(path)
    path.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ")
    with pytest.raises(CheckpointError, match="no raypipe checkpoint"):
        load_checkpoint(path)
    info = _info()
    state = build_network(info).state_dict()
    short = {k: v for k, v in state.items() if k != "encoder.stem.weight"}
    save_checkpoint(path, short, info)
    with pytest.raises(CheckpointError, match=r"encoder\.stem\.weight is missing"):
        Detector(DetectorConfig(weights=str(path)), FINGERPRINT)
    save_checkpoint(path, {**state, "encoder.stem.weight": torch.zeros(1)}, info)
    with pytest.raises(CheckpointError, match="has shape"):
        Detector(DetectorConfig(weights=str(path)), FINGERPRINT)
    bad = state["encoder.stem.weight"].clone().fill_(float("nan"))
    save_checkpoint(path, {**state, "encoder.stem.weight": bad}, info)
    with pytest.raises(CheckpointError, match="not finite"):
        Detector(DetectorConfig(weights=str(path)), FINGERPRINT)


def test_weights_at_an_address_that_cannot_be_read_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    S3FileSystem.clear_instance_cache()  # one of another test may know keys
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CheckpointError, match="NoCredentialsError"):
        load_checkpoint("s3://raypipe-no-such-bucket/weights.safetensors")
    with pytest.raises(CheckpointError, match="cannot read 'disk://weights'"):
        load_checkpoint("disk://weights")


def test_weights_lie_on_an_s3_server_that_is_not_aws(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    info, local = _info(), tmp_path / "weights.safetensors"
    save_checkpoint(local, build_network(info).state_dict(), info)
    s3 = S3FileSystem(endpoint_url=s3_endpoint)
    s3.mkdir("weights")
    s3.put_file(str(local), "weights/mine.safetensors")
    config = DetectorConfig(
        weights="s3://weights/mine.safetensors", weights_s3_endpoint=s3_endpoint
    )
    assert (
        Detector(config, FINGERPRINT).weights_hash
        == Detector(DetectorConfig(weights=str(local)), FINGERPRINT).weights_hash
    )


def test_windows_become_channels() -> None:
    hu = torch.tensor([[[-2000, 150], [0, 40]]], dtype=torch.int16)
    stack = torch.stack([hu - 500, hu, hu + 500], dim=1)
    alone = window_channels(stack, NETWORK_WINDOWS, 1)
    assert alone.shape == (1, 3, 2, 2)
    assert alone[0, 0, 0].tolist() == [0.0, 1.0]
    assert alone[0, 1, 1].tolist() == pytest.approx([160 / 400, 200 / 400])
    channels = window_channels(stack, NETWORK_WINDOWS, 3)
    assert channels.shape == (1, 9, 2, 2)
    assert torch.equal(channels[:, 3:6], alone)
    assert channels[0, 7, 0].tolist() == [0.0, 1.0]  # the soft tissue of the slice above


def test_neighbours_come_from_the_series_and_end_with_it() -> None:
    hu = np.arange(4, dtype=np.int16)[:, None, None] * np.ones((1, 2, 2), np.int16)
    assert stacks(hu, 0, 4)[:, :, 0, 0].tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]]
    assert stacks(hu, 2, 3)[:, :, 0, 0].tolist() == [[1, 2, 3]]
    assert stacks(hu[:1], 0, 1)[:, :, 0, 0].tolist() == [[0, 0, 0]]


def test_scores_are_the_geometric_mean_of_class_and_centreness() -> None:
    detector = Detector(RANDOM, FINGERPRINT)
    output = detector.run(np.zeros((1, 3, 256, 256), np.int16))
    scores = box_scores(output)
    p = torch.sigmoid(output.head.class_logits_bnk[0, 5, 3])
    c = torch.sigmoid(output.head.centerness_bn[0, 5])
    assert float(scores[0, 5, 3]) == pytest.approx(float((p * c).sqrt()), rel=1e-5)


def test_no_finding_is_claimed_outside_its_body_regions() -> None:
    detector = Detector(RANDOM.model_copy(update={"score_floor": 0.0}), FINGERPRINT)
    output = detector.run(np.zeros((2, 3, 256, 256), np.int16))
    only_head = torch.tensor([20.0 if region == "head" else -20.0 for region in REGIONS])
    regions = torch.stack([only_head, -only_head])
    detections = detector._detections(output._replace(region_logits=regions), 0)
    graph = load_graph()
    seen = {z: set() for z in (0, 1)}  # type: ignore[var-annotated]
    for detection in detections:
        z = int(detection.box_zyx.lower_zyx[0])
        seen[z].update(graph.finding(detection.label).regions)
    assert seen[0] and "head" in seen[0]
    assert all(
        "head" in graph.finding(d.label).regions for d in detections if d.box_zyx.lower_zyx[0] == 0
    )
    assert seen[1] and all(
        set(graph.finding(d.label).regions) - {"head"}
        for d in detections
        if d.box_zyx.lower_zyx[0] == 1
    )
