"""What a training run promises, by config: several workers, sharding, precision, early stop."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.windows import NETWORK_WINDOWS
from raypipe.model.checkpoint import CheckpointInfo, load_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector, box_scores, build_network
from raypipe.model.encoder import EncoderConfig, StageConfig
from raypipe.model.network import Network, NetworkConfig, config_for
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.detector_loop import train_detector
from raypipe.train.loop import Place, run
from raypipe.types import HuArray
from raypipe.volume.preprocess import PreprocessConfig

FINGERPRINT = PreprocessConfig().fingerprint
Calls = list[tuple[dict[str, float], dict[str, Any]]]


def config(store: SampleStore, output: Path, **changes: object) -> TrainDetectorConfig:
    return TrainDetectorConfig.model_validate(
        {
            "output": str(output),
            "store": str(store.folder),
            "validation_store": str(store.folder),
            "steps": 4,
            "batch_slices": 4,
            "checkpoint_every": 4,
            "validation_slices": 2,
            "augment": {"patch_pixels": 128},
            "learning_rate": 2e-4,
            "calibration": {"phantom_series": 0},
            **changes,
        }
    )


def train(
    told: TrainDetectorConfig, store: SampleStore, saved: dict[str, Any] | None = None
) -> Calls:
    calls: Calls = []
    run(told, (store, store), Place(), lambda m, s: calls.append((m, s)), saved)
    return calls


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_sharded_training_is_plain_training(store: SampleStore, tmp_path: Path) -> None:
    """FSDP over two workers on gloo; the weights left behind are whole."""
    plain = train(config(store, tmp_path), store)
    result = train_detector(
        config(store, tmp_path, workers=2, parallel="fsdp", name="fsdp", max_failures=0)
    )
    assert result.metrics["step"] == 4.0
    assert result.metrics["loss"] == pytest.approx(plain[-1][0]["loss"], abs=1e-4)
    tensors, _, _ = load_checkpoint(result.weights)
    assert tensors.keys() == plain[-1][1]["average"].keys()
    for key, value in plain[-1][1]["average"].items():
        torch.testing.assert_close(tensors[key], value, rtol=1e-3, atol=2e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_sharded_run_goes_on_from_its_checkpoint(store: SampleStore, tmp_path: Path) -> None:
    """The same command again, with more steps: the first ones are not done twice."""
    sharded = {"workers": 2, "parallel": "fsdp", "max_failures": 0, "checkpoint_every": 2}
    train_detector(config(store, tmp_path, steps=2, **sharded))
    result = train_detector(config(store, tmp_path, steps=3, **sharded))
    assert result.metrics["step"] in {2.0, 3.0}  # of the best checkpoint
    curves = list((tmp_path / "detector" / "curves").glob("events*"))
    assert _steps_of(curves, "map50") == [2, 3]


def _steps_of(files: list[Path], tag: str) -> list[int]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [
        event.step
        for file in sorted(files, key=lambda f: f.stat().st_mtime)
        for event in EventFileLoader(str(file)).Load()
        for value in event.summary.value
        if value.tag == tag
    ]


def test_a_run_that_stopped_early_stops_again_unless_it_is_given_more_patience(
    store: SampleStore, tmp_path: Path
) -> None:
    still = config(
        store, tmp_path, steps=20, checkpoint_every=1, patience=2, learning_rate=1e-9, ema=0.0
    )
    stopped = train(still, store)
    assert len(stopped) < 20
    state = stopped[-1][1]
    assert state["stale"] == 2 and state["step"] == len(stopped)
    again = train(still, store, saved=state)
    assert [m["step"] for m, _ in again] == [len(stopped) + 1.0]
    patient = still.model_copy(update={"patience": 5})
    longer = train(patient, store, saved=state)
    assert [m["step"] for m, _ in longer] == [len(stopped) + i for i in (1.0, 2.0, 3.0)]


def test_bfloat16_takes_a_step_near_that_of_float32(store: SampleStore, tmp_path: Path) -> None:
    """Weights and optimiser stay float32; only the forward pass is rounded."""
    one = {"steps": 1, "checkpoint_every": 1}
    (exact, _), (rounded, state) = (
        train(config(store, tmp_path, precision=precision, **one), store)[0]
        for precision in ("float32", "bfloat16")
    )
    assert rounded["loss"] != exact["loss"]
    assert rounded["loss"] == pytest.approx(exact["loss"], rel=0.02)
    assert {value.dtype for value in state["model"].values()} == {torch.float32}


@pytest.fixture(scope="module")
def stack(store: SampleStore) -> HuArray:
    return np.array(store.hu[:2])


@pytest.fixture(scope="module")
def tiny() -> tuple[NetworkConfig, dict[str, torch.Tensor]]:
    """Every part of the network, but small: compiling goes by the number of layers."""
    stage = StageConfig(channels=16, layers=1, heads=1, window=8)
    encoder = EncoderConfig(
        stem_channels=8, stem_stride=2, stages=(stage,), out_channels=16, pathway_grids=(16,)
    )
    sizes = config_for(load_graph()).model_copy(
        update={"encoder": encoder, "pyramid_channels": 16, "node_channels": 16}
    )
    torch.manual_seed(0)
    return sizes, Network(sizes, load_graph()).state_dict()


@pytest.mark.parametrize(
    ("changes", "pixels", "score"),
    [
        ({"dtype": "bfloat16"}, 1.0, 0.02),
        ({"channels_last": False}, 1e-2, 1e-4),
        pytest.param({"compile": True}, 1e-2, 1e-4, marks=pytest.mark.slow),
    ],
    ids=["bfloat16", "channels_first", "compile"],
)
def test_switches_of_the_detector_barely_move_its_boxes(
    stack: HuArray,
    tiny: tuple[NetworkConfig, dict[str, torch.Tensor]],
    changes: dict[str, Any],
    pixels: float,
    score: float,
) -> None:
    sizes, state = tiny
    info = CheckpointInfo(network=sizes, fingerprint=FINGERPRINT, windows=NETWORK_WINDOWS)
    outputs = []
    for settings in (DetectorConfig(), DetectorConfig.model_validate(changes)):
        network = build_network(info)
        network.load_state_dict(state)
        outputs.append(Detector.of(network, info, settings).run(stack))
    plain, switched = outputs
    assert switched.head.box_bn4.dtype == torch.float32
    assert (switched.head.box_bn4 - plain.head.box_bn4).abs().max() < pixels
    assert (box_scores(switched) - box_scores(plain)).abs().max() < score
    assert (switched.image_logits - plain.image_logits).sigmoid().sub(0.5).abs().max() < score
