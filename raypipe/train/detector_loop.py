"""Train the detector on a Ray cluster: several workers, restarts, checkpoints, curves.

In: a TrainDetectorConfig. Out: weights in safetensors and the metrics of the best checkpoint.
Does not know: how a step is made (loop.py), what slices show (synthesis.py).
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from raypipe.model.checkpoint import load_checkpoint, save_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.train.calibrate import calibrate, match_series, whole_series
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.loop import Place, checkpoint_info, network_config, run
from raypipe.train.synthesis import SynthesisConfig, make_store

STATE_FILE = "state.pt"
WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a run leaves behind.

    Args:
        weights: safetensors file of the best checkpoint.
        metrics: of that checkpoint.
    """

    weights: str
    metrics: dict[str, float]


def train_detector(config: TrainDetectorConfig) -> TrainResult:
    """Make the data sets where they are missing, train, and write the best weights.

    A run whose folder holds a checkpoint goes on from it. Needs a running Ray, or starts one.

    Raises:
        ray.train.TrainingFailedError: a worker failed more often than max_failures.
    """
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    train_store = _ready(store_folders(config)[0], config.data)
    validation_store = _ready(store_folders(config)[1], config.validation)
    own_init = config.init not in ("", "default")
    told = config.model_copy(  # a worker may have another working folder
        update={
            "store": train_store,
            "validation_store": validation_store,
            "init": absolute(config.init) if own_init else config.init,
        }
    )
    resources = {"CPU": float(config.threads), **({"GPU": 1.0} if config.use_gpu else {})}
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"config": told.model_dump_json()},
        scaling_config=ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.use_gpu,
            resources_per_worker=resources,
        ),
        run_config=RunConfig(
            name=config.name,
            storage_path=absolute(config.output),
            failure_config=FailureConfig(max_failures=config.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2,
                checkpoint_score_attribute="map50",
                checkpoint_score_order="max",
            ),
        ),
    )
    result = trainer.fit()
    best = max(result.best_checkpoints or [], key=lambda pair: pair[1]["map50"], default=None)
    checkpoint, metrics = best if best is not None else (result.checkpoint, result.metrics)
    assert checkpoint is not None and metrics is not None  # the last step always reports one
    target = f"{absolute(config.output)}/{config.name}/{WEIGHTS_FILE}"
    with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as work:
        final = Path(work) / WEIGHTS_FILE
        of_series = finish(Path(folder) / WEIGHTS_FILE, final, config)
        copy_to(final, target)
    of_slices = {k: float(v) for k, v in metrics.items()}
    return TrainResult(weights=target, metrics={**of_slices, **of_series})


def finish(weights: Path, target: Path, config: TrainDetectorConfig) -> dict[str, float]:
    """Write weights again with thresholds, calibration and metrics of whole series.

    Returns:
        The metrics, named "series/..."; empty where the config asks for no calibration series.
    """
    tensors, info, _ = load_checkpoint(weights)
    if not config.calibration.phantom_series and not config.calibration.backgrounds:
        save_checkpoint(target, tensors, info)
        return {}
    detector = Detector(
        DetectorConfig(weights=str(weights), threads=config.threads), info.fingerprint
    )
    series = whole_series(config.calibration)
    matches, count = match_series(detector, series, config.calibration.preprocess)
    result = calibrate(matches, count, info.network.labels)
    metrics = {f"series/{key}": value for key, value in result.metrics.items()}
    known = info.training["metrics"] | {k: round(v, 4) for k, v in metrics.items()}
    save_checkpoint(
        target,
        tensors,
        info.model_copy(
            update={
                "thresholds": result.thresholds,
                "calibration": result.calibration,
                "training": info.training | {"metrics": known},
            }
        ),
    )
    return metrics


def store_folders(config: TrainDetectorConfig) -> tuple[str, str]:
    """Where the training and the validation slices lie."""
    own = f"{absolute(config.output)}/{config.name}"
    return (
        absolute(config.store or f"{own}/data"),
        absolute(config.validation_store or f"{own}/validation"),
    )


def _ready(folder: str, data: SynthesisConfig) -> str:
    """The folder of a data set, made now where there is none."""
    if not (Path(folder) / "truth.npz").is_file():
        make_store(folder, data)
    return folder


def absolute(path: str) -> str:
    """A path that workers in another folder understand; addresses stay as they are."""
    return path.rstrip("/") if "://" in path else str(Path(path).resolve())


def copy_to(source: Path, target: str) -> None:
    """Copy a local file to a path or address."""
    import fsspec

    with fsspec.open(target, "wb") as file:
        file.write(source.read_bytes())


def _worker(told: dict[str, Any]) -> None:
    """One worker under Ray Train."""
    import ray.train
    import ray.train.torch

    config = TrainDetectorConfig.model_validate_json(told["config"])
    context = ray.train.get_context()
    stores = (SampleStore(config.store), SampleStore(config.validation_store))
    local = "://" not in config.output
    place = Place(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=str(ray.train.torch.get_device()),
        curves=Path(config.output).resolve() / config.name / "curves" if local else None,
    )

    def report(metrics: dict[str, float], state: dict[str, Any]) -> None:
        if place.rank != 0:
            ray.train.report(metrics, checkpoint=None)
            return
        with tempfile.TemporaryDirectory() as folder:
            torch.save(state, Path(folder) / STATE_FILE)
            info = checkpoint_info(config, network_config(config), stores[0].fingerprint, metrics)
            save_checkpoint(Path(folder) / WEIGHTS_FILE, state["average"], info)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    run(config, stores, place, report, saved_state())


def saved_state() -> dict[str, Any] | None:
    """The state of the last checkpoint, where there is one."""
    import ray.train

    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        saved: dict[str, Any] = torch.load(Path(folder) / STATE_FILE, weights_only=True)
    return saved


def describe(result: TrainResult) -> str:
    """The metrics of a result as JSON, and what the weights say of themselves."""
    _, info, digest = load_checkpoint(result.weights)
    return json.dumps(
        {"weights": result.weights, "hash": digest, "labels": info.network.labels}
        | {key: round(value, 4) for key, value in result.metrics.items()},
        indent=2,
    )
