import threading
from pathlib import Path

import pytest

from raypipe.model.checkpoint import load_checkpoint
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.detector_loop import TrainResult, train_detector
from tests.train.lost_worker import kill_after_first_checkpoint

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]


def config(store: SampleStore, output: Path, **changes: object) -> TrainDetectorConfig:
    return TrainDetectorConfig.model_validate(
        {
            "output": str(output),
            "store": str(store.folder),
            "validation_store": str(store.folder),
            "steps": 20,
            "batch_slices": 4,
            "checkpoint_every": 20,
            "validation_slices": 4,
            "augment": {"patch_pixels": 128},
            "learning_rate": 2e-4,
            "calibration": {"phantom_series": 0},
            **changes,
        }
    )


def test_two_workers_train_like_one(store: SampleStore, tmp_path: Path) -> None:
    losses: list[TrainResult] = [
        train_detector(config(store, tmp_path, workers=workers, name=f"w{workers}"))
        for workers in (1, 2)
    ]
    assert losses[0].metrics["step"] == losses[1].metrics["step"] == 20
    assert losses[0].metrics["loss"] == pytest.approx(losses[1].metrics["loss"], abs=1e-4)


def test_weights_and_curves_are_left_behind(store: SampleStore, tmp_path: Path) -> None:
    result = train_detector(config(store, tmp_path, steps=2, checkpoint_every=2))
    _, info, _ = load_checkpoint(result.weights)
    assert info.fingerprint == store.fingerprint
    assert info.training["metrics"]["step"] == 2.0
    assert list((tmp_path / "detector" / "curves").glob("events*"))


def test_a_killed_worker_goes_on_from_its_checkpoint(store: SampleStore, tmp_path: Path) -> None:
    killed: list[int] = []
    watcher = threading.Thread(
        target=kill_after_first_checkpoint, args=(tmp_path / "detector", killed)
    )
    watcher.start()
    result = train_detector(config(store, tmp_path, steps=16, checkpoint_every=4))
    watcher.join(timeout=60)
    assert killed
    assert result.metrics["step"] in {4.0, 8.0, 12.0, 16.0}  # of the best checkpoint
    assert (tmp_path / "detector" / "weights.safetensors").is_file()
