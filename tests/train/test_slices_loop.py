from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.errors import CheckpointError, ConfigError
from raypipe.model.checkpoint import load_checkpoint, save_checkpoint
from raypipe.train import slices_loop
from raypipe.train.loop import Place
from raypipe.train.slices import SliceFolder, Split, read_folder, split
from raypipe.train.slices_config import (
    SliceAugmentConfig,
    SplitConfig,
    TrainSlicesConfig,
    ViewConfig,
)
from raypipe.train.slices_loop import averaged_predictor, draw_weights, probabilities, run
from raypipe.train.slices_model import (
    SlicePredictor,
    load_slice_weights,
    slice_info,
    start_classifier,
)
from raypipe.train.slices_train import train_slices
from tests.train.slice_folder import write_folder

Calls = list[tuple[dict[str, float], dict[str, Any]]]
CONFIG = TrainSlicesConfig(
    output="unused",
    data="unused",
    init="",
    view=ViewConfig(size_yx=(128, 128)),
    split=SplitConfig(blocks=5, gap=0),
    steps=4,
    batch_slices=4,
    checkpoint_every=2,
    log_every=1,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tuple(range(i, i + 4) for i in range(0, 100, 20))
    return write_folder(tmp_path_factory.mktemp("classes"), ("Normal", "Tumor"), runs)


@pytest.fixture(scope="module")
def folder(source: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return read_folder(str(source), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def parts(folder: SliceFolder) -> Split:
    return split(folder, CONFIG.split)


def train(
    config: TrainSlicesConfig,
    folder: SliceFolder,
    parts: Split,
    saved: dict[str, Any] | None = None,
) -> Calls:
    calls: Calls = []
    run(config, folder, parts, Place(), lambda m, s: calls.append((m, s)), saved)
    return calls


def test_a_few_steps_lower_the_loss_and_shifted_views_still_sum_to_one(
    folder: SliceFolder, parts: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    monkeypatch.setattr(
        slices_loop, "_log", lambda curves, values, step, told: losses.append(values["loss"])
    )
    still = SliceAugmentConfig(shift=0.02, zoom=0.02, stretch=0, rotation_deg=0, gamma=0.05)
    changes = {"init": "default", "augment": still, "dropout": 0.0, "label_smoothing": 0.0}
    budget = {"steps": 32, "checkpoint_every": 32, "learning_rate": 2e-3, "ema": 0.5}
    config = CONFIG.model_copy(update={**changes, **budget})
    state = run(config, folder, parts, Place(), lambda m, s: None)
    assert np.mean(losses[-6:]) < 0.85 * np.mean(losses[:6])
    found = probabilities(averaged_predictor(state, folder, config), folder, parts.test, shifts=2)
    assert found.shape == (len(parts.test), 2)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(folder: SliceFolder, parts: Split) -> None:
    whole = train(CONFIG, folder, parts)
    assert [m["step"] for m, _ in whole] == [2.0, 4.0]
    resumed = train(CONFIG, folder, parts, saved=whole[0][1])
    assert [m["step"] for m, _ in resumed] == [4.0]
    for part in ("model", "average"):
        for key, value in whole[1][1][part].items():
            torch.testing.assert_close(resumed[0][1][part][key], value, rtol=1e-4, atol=1e-6)


def test_it_starts_from_the_detector_with_a_head_of_its_own() -> None:
    tensors, info, _ = load_checkpoint("default")
    config = CONFIG.model_copy(update={"init": "default"})
    state = start_classifier(config, 3, info.fingerprint).state_dict()
    for key, value in tensors.items():
        if not key.startswith(("box_head.", "image_head.", "tissue_head.")):
            torch.testing.assert_close(state[key], value)
    assert state["head.4.weight"].shape[0] == 3
    with pytest.raises(CheckpointError, match="trained behind preprocessing"):
        start_classifier(config, 3, "0123456789abcdef")


def test_weights_come_back_as_they_were_written(
    folder: SliceFolder, parts: Split, tmp_path: Path
) -> None:
    state = run(CONFIG, folder, parts, Place(), lambda m, s: None)
    predictor = averaged_predictor(state, folder, CONFIG)
    info = slice_info(CONFIG, folder.classes, folder.fingerprint)
    save_checkpoint(tmp_path / "w.safetensors", predictor.classifier.state_dict(), info)
    again = SlicePredictor.load(tmp_path / "w.safetensors", folder.fingerprint)
    assert again.info.classes == ("Normal", "Tumor")
    one, two = (probabilities(p, folder, parts.test) for p in (predictor, again))
    np.testing.assert_allclose(one, two, atol=1e-6)
    with pytest.raises(CheckpointError, match="trained behind"):
        SlicePredictor.load(tmp_path / "w.safetensors", "0123456789abcdef")
    with pytest.raises(CheckpointError, match="no raypipe checkpoint"):
        load_checkpoint(tmp_path / "w.safetensors")  # a detector refuses them
    with pytest.raises(CheckpointError, match="no slice classifier"):
        load_slice_weights(tmp_path / "missing.safetensors")


def test_mixed_slices_train_too(folder: SliceFolder, parts: Split) -> None:
    augment = CONFIG.augment.model_copy(update={"mixup": 0.4, "erase": 1.0})
    ((metrics, state),) = train(
        CONFIG.model_copy(update={"augment": augment, "steps": 1}), folder, parts
    )
    assert np.isfinite(metrics["loss"]) and state["step"] == 1


def test_rare_classes_are_drawn_as_often_as_asked() -> None:
    label_s = np.array([0] * 9 + [1])
    assert draw_weights(label_s, 0.0)[9] == pytest.approx(0.1)
    assert draw_weights(label_s, 1.0)[9] == pytest.approx(0.5)


def test_a_weight_of_an_unknown_class_is_refused(folder: SliceFolder, parts: Split) -> None:
    config = CONFIG.model_copy(update={"class_weights": {"Cyst": 2.0}})
    with pytest.raises(ConfigError, match="'Cyst' is no class of the folder"):
        train(config, folder, parts)


def test_nothing_is_told_of_a_validation_part_that_is_not_there(
    folder: SliceFolder, parts: Split
) -> None:
    bare = Split(train=parts.train, validation=parts.validation[:0], test=parts.test)
    ((metrics, _),) = train(CONFIG.model_copy(update={"steps": 1}), folder, bare)
    assert set(metrics) == {"loss", "step"}


def test_workers_agree_on_their_own_device(
    folder: SliceFolder, parts: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL sums nothing that lies on the CPU."""
    seen: list[str] = []

    def mean(value: torch.Tensor) -> torch.Tensor:
        seen.append(value.device.type)
        return torch.zeros(())

    monkeypatch.setattr(slices_loop, "mean_over_workers", mean)
    state = run(CONFIG.model_copy(update={"steps": 1}), folder, parts, Place(), lambda m, s: None)
    seen.clear()
    other = Place(rank=1, world=2, device="meta")
    slices_loop._validated(state, folder, parts, CONFIG, other)
    assert seen == ["meta", "meta"]


def test_decoded_slices_lie_on_a_disk(source: Path) -> None:
    config = CONFIG.model_copy(update={"output": "s3://bucket/out", "data": str(source)})
    with pytest.raises(ConfigError, match="store: s3://bucket/out/slices/data is no folder"):
        train_slices(config)
    assert not Path("s3:").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_leave_weights_and_a_longer_run_goes_on(source: Path, tmp_path: Path) -> None:
    told = {"output": str(tmp_path), "data": str(source), "max_failures": 0}
    config = CONFIG.model_copy(update={**told, "steps": 2, "workers": 2})
    first = train_slices(config)
    assert first.metrics["step"] == 2.0 and first.classes == ("Normal", "Tumor")
    assert 0.0 <= first.metrics["test/accuracy"] <= 1.0
    assert sum(first.counts.values()) == 40
    again = train_slices(config.model_copy(update={"steps": 3}))
    assert again.metrics["step"] == 3.0
    _, info, _ = load_slice_weights(again.weights)
    assert info.training["metrics"]["step"] == 3.0
    assert list((tmp_path / "slices" / "curves").glob("events*"))
