from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from raypipe.errors import ConfigError
from raypipe.train import detector_loop, loop
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.loop import Place, draw, network_config, run
from raypipe.train.step import learning_rate

CONFIG = TrainDetectorConfig(
    output="unused",
    steps=6,
    batch_slices=4,
    checkpoint_every=3,
    validation_slices=6,
    log_every=1,
    augment={"patch_pixels": 128},  # type: ignore[arg-type]
    learning_rate=1e-3,
)
Calls = list[tuple[dict[str, float], dict[str, Any]]]


def train(
    config: TrainDetectorConfig, store: SampleStore, saved: dict[str, Any] | None = None
) -> Calls:
    calls: Calls = []
    run(config, (store, store), Place(), lambda m, s: calls.append((m, s)), saved)
    return calls


def test_a_few_steps_lower_the_loss(store: SampleStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same four slices again and again."""
    seen: list[float] = []
    step = loop.train_step

    def recorded(*args: Any) -> dict[str, torch.Tensor]:
        terms = step(*args)
        seen.append(float(terms["total"]))
        return terms

    monkeypatch.setattr(loop, "train_step", recorded)
    monkeypatch.setattr(loop, "draw", lambda c, w, s: (np.arange(4), np.arange(4)))
    train(CONFIG.model_copy(update={"steps": 24, "checkpoint_every": 24}), store)
    assert len(seen) == 24
    assert np.mean(seen[-3:]) < 0.8 * np.mean(seen[:3])


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(store: SampleStore) -> None:
    whole = train(CONFIG, store)
    assert [m["step"] for m, _ in whole] == [3.0, 6.0]
    resumed = train(CONFIG, store, saved=whole[0][1])
    assert [m["step"] for m, _ in resumed] == [6.0]
    for part in ("model", "average"):
        for key, value in whole[1][1][part].items():
            torch.testing.assert_close(resumed[0][1][part][key], value, rtol=1e-4, atol=1e-6)


def test_the_saved_state_loads_safely(store: SampleStore, tmp_path: Any) -> None:
    ((_, state),) = train(CONFIG.model_copy(update={"steps": 1}), store)
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 1


def test_it_stops_early_when_nothing_gets_better(store: SampleStore) -> None:
    config = CONFIG.model_copy(
        update={"steps": 30, "checkpoint_every": 1, "patience": 2, "learning_rate": 1e-9}
    )
    assert len(train(config, store)) <= 4


def test_batches_depend_on_seed_and_step_alone() -> None:
    weights = np.full(50, 0.02)
    a, b = draw(CONFIG, weights, 5), draw(CONFIG, weights, 5)
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a[0], draw(CONFIG, weights, 6)[0])


def test_the_schedule_rises_and_falls() -> None:
    rates = [learning_rate(s, CONFIG.model_copy(update={"steps": 100})) for s in range(100)]
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) == 10
    assert rates[0] < 1e-4 and rates[-1] < 1e-5


def test_workers_must_divide_the_batch() -> None:
    with pytest.raises(ValueError, match="divisible"):
        TrainDetectorConfig(output="x", batch_slices=5, workers=2)


def test_stores_of_different_preprocessing_are_refused(store: SampleStore) -> None:
    other = SampleStore(store.folder)
    other.fingerprint = "other"
    with pytest.raises(ConfigError, match="one preprocessing"):
        run(CONFIG, (store, other), Place(), lambda m, s: None)


def test_the_recipe_of_the_default_weights_is_valid() -> None:
    recipe = Path(__file__).parents[2] / "configs" / "train" / "detector_small.yaml"
    config = TrainDetectorConfig.model_validate(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    used = [
        set(range(part.seed, part.seed + part.phantom_series))
        for part in (config.data, config.validation, config.calibration)
    ]
    assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_workers_agree_on_their_own_device(
    store: SampleStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NCCL sums nothing that lies on the CPU."""
    state = run(CONFIG.model_copy(update={"steps": 1}), (store, store), Place(), lambda m, s: None)
    seen: list[str] = []

    def mean(value: torch.Tensor) -> torch.Tensor:
        seen.append(value.device.type)
        return torch.zeros(())

    monkeypatch.setattr(loop, "mean_over_workers", mean)
    other = Place(rank=1, world=2, device="meta")
    loop._validated(state, store, network_config(CONFIG), CONFIG, other)
    assert seen == ["meta"]


def test_workers_are_told_absolute_folders(
    store: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may have another working folder, and the curves lie beside the checkpoints."""
    told: list[str] = []

    def stopped(worker: object, config: object, json: str, checkpoints: object) -> None:
        told.append(json)
        raise InterruptedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detector_loop, "make_trainer", stopped)
    stores = {"store": str(store.folder), "validation_store": str(store.folder)}
    with pytest.raises(InterruptedError):
        detector_loop.train_detector(CONFIG.model_copy(update={"output": "out", **stores}))
    assert TrainDetectorConfig.model_validate_json(told[0]).output == str(tmp_path / "out")


def test_data_sets_lie_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = CONFIG.model_copy(update={"output": "s3://bucket/out"})
    with pytest.raises(ConfigError, match="store: s3://bucket/out/detector/data is no folder"):
        detector_loop.train_detector(config)
    assert not list(tmp_path.iterdir())
