from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from raypipe.cli.train import app
from raypipe.errors import CheckpointError
from raypipe.model.checkpoint import load_checkpoint, save_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.train.average import average
from raypipe.train.synthesis import SynthesisConfig
from raypipe.volume.preprocess import PreprocessConfig

NO_SERIES = SynthesisConfig(phantom_series=0)


def drawn(seed: int, path: Path, **changes: object) -> str:
    detector = Detector(DetectorConfig(weights="random", seed=seed), PreprocessConfig().fingerprint)
    training = {"training": {"metrics": {"map50": seed / 10}}}
    info = detector.info.model_copy(update=training | changes)
    save_checkpoint(path, detector.network.state_dict(), info)
    return str(path)


def test_the_mean_is_a_detector_whatever_the_order(tmp_path: Path) -> None:
    files = [drawn(seed, tmp_path / f"{seed}.safetensors") for seed in (1, 2, 3)]
    mean, turned = tmp_path / "mean.safetensors", tmp_path / "turned.safetensors"
    assert average(files, mean, NO_SERIES) == {}
    average(files[::-1], turned, NO_SERIES)
    parts = [load_checkpoint(file)[0] for file in files]
    tensors, info, _ = load_checkpoint(mean)
    for key, value in tensors.items():
        expected = sum(part[key].double() for part in parts) / 3
        torch.testing.assert_close(value, expected.float(), rtol=0, atol=1e-7)
        assert torch.equal(value, load_checkpoint(turned)[0][key])
    parents = info.training["average_of"]
    assert [parent["hash"] for parent in parents] == [load_checkpoint(f)[2] for f in files]
    assert [parent["metrics"]["map50"] for parent in parents] == [0.1, 0.2, 0.3]
    detector = Detector(DetectorConfig(weights=str(mean)), PreprocessConfig().fingerprint)
    hu = np.full((1, 3, 256, 256), -1000, np.int16)
    assert len(detector.predict_stacks(hu).features) > 0


def test_what_cannot_be_averaged_is_refused(tmp_path: Path) -> None:
    one = drawn(1, tmp_path / "one.safetensors")
    target = tmp_path / "mean.safetensors"
    with pytest.raises(CheckpointError, match="at least two"):
        average([one], target, NO_SERIES)
    network = load_checkpoint(one)[1].network.model_copy(update={"strategy": "base"})
    other = drawn(2, tmp_path / "other.safetensors", network=network)
    with pytest.raises(CheckpointError, match=r"other\.safetensors is another network"):
        average([one, other], target, NO_SERIES)
    behind = drawn(3, tmp_path / "behind.safetensors", fingerprint="0" * 16)
    with pytest.raises(CheckpointError, match="preprocessing"):
        average([one, behind], target, NO_SERIES)
    assert not target.exists()


def test_the_command(tmp_path: Path) -> None:
    files = [drawn(seed, tmp_path / f"{seed}.safetensors") for seed in (1, 2)]
    target = tmp_path / "mean.safetensors"
    result = CliRunner().invoke(
        app, ["average", *files, "-o", str(target), "--series", "0"], catch_exceptions=False
    )
    assert result.exit_code == 0
    assert load_checkpoint(target)[1].training["metrics"] == {}
