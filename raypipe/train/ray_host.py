"""What every training on Ray Train shares: the trainer, a worker's place, checkpoints, paths.

In: the settings of a run, a worker function. Out: a TorchTrainer; files of a checkpoint.
Does not know: what is trained.

Every worker reports at the same steps; the first one brings the checkpoint.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch

from raypipe.errors import ConfigError
from raypipe.train.loop import Place

if TYPE_CHECKING:
    from ray.train import CheckpointConfig
    from ray.train.torch import TorchTrainer

STATE_FILE = "state.pt"
WEIGHTS_FILE = "weights.safetensors"


class RunSettings(Protocol):
    """The part of a run's config that places it on a cluster; see TrainDetectorConfig."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def output(self) -> str: ...  # noqa: D102
    @property
    def workers(self) -> int: ...  # noqa: D102
    @property
    def threads(self) -> int: ...  # noqa: D102
    @property
    def use_gpu(self) -> bool: ...  # noqa: D102
    @property
    def max_failures(self) -> int: ...  # noqa: D102


def make_trainer(
    worker: Callable[[dict[str, Any]], None],
    config: RunSettings,
    told: str,
    checkpoints: "CheckpointConfig",
) -> "TorchTrainer":
    """A trainer whose workers are called with {"config": told}."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    resources = {"CPU": float(config.threads), **({"GPU": 1.0} if config.use_gpu else {})}
    return TorchTrainer(
        worker,
        train_loop_config={"config": told},
        scaling_config=ScalingConfig(
            num_workers=config.workers, use_gpu=config.use_gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=config.name,
            storage_path=absolute(config.output),
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=checkpoints,
        ),
    )


def own_place(config: RunSettings) -> Place:
    """Where this worker stands; curves are written to local folders only."""
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    local = "://" not in config.output
    return Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=str(ray.train.torch.get_device()),
        curves=Path(config.output).resolve() / config.name / "curves" if local else None,
    )


def report_checkpoint(
    place: Place,
    metrics: dict[str, float],
    state: dict[str, Any],
    write_weights: Callable[[Path], None],
) -> None:
    """Report metrics; the first worker adds the state to go on from and the weights."""
    import ray.train

    if place.rank != 0:
        ray.train.report(metrics, checkpoint=None)
        return
    with tempfile.TemporaryDirectory() as folder:
        torch.save(state, Path(folder) / STATE_FILE)
        write_weights(Path(folder) / WEIGHTS_FILE)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))


def saved_state() -> dict[str, Any] | None:
    """The state of the last checkpoint, where there is one."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        saved: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, weights_only=True)
    return saved


def weights_file(config: RunSettings) -> str:
    """Where a run leaves its weights."""
    return f"{absolute(config.output)}/{config.name}/{WEIGHTS_FILE}"


def absolute(path: str) -> str:
    """A path that workers in another folder understand; addresses stay as they are."""
    return path.rstrip("/") if "://" in path else str(Path(path).resolve())


def data_folder(config: RunSettings, key: str, told: str, name: str) -> str:
    """Where a run keeps a data set: the folder told, or one of this name beside its checkpoints.

    Raises:
        ConfigError: that is an address; data sets are read by memory map.
    """
    folder = absolute(told or f"{absolute(config.output)}/{config.name}/{name}")
    if "://" in folder:
        raise ConfigError(
            f"{key}: {folder} is no folder on disk; set {key} to one that every worker sees"
        )
    return folder


def absolute_weights(init: str) -> str:
    """The same for weights to start from; "default" and none stay as they are."""
    return init if init in ("", "default") else absolute(init)


def copy_to(source: Path, target: str) -> None:
    """Copy a local file to a path or address."""
    import fsspec

    with fsspec.open(target, "wb") as file:
        file.write(source.read_bytes())
