"""Train the detector on a Ray cluster: several workers, restarts, checkpoints, curves.

In: a TrainDetectorConfig. Out: weights in safetensors and the metrics of the best checkpoint.
Does not know: how a step is made (loop.py), what slices show (synthesis.py).
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.model.checkpoint import load_checkpoint, save_checkpoint
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.finish import finish
from raypipe.train.loop import checkpoint_info, network_config, run
from raypipe.train.ray_host import (
    WEIGHTS_FILE,
    absolute,
    absolute_weights,
    copy_to,
    data_folder,
    make_trainer,
    own_place,
    report_checkpoint,
    saved_state,
    weights_file,
)
from raypipe.train.synthesis import SynthesisConfig, make_store


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

    A run whose folder holds a checkpoint goes on from it. Needs a running Ray, or starts one. The
    second stage of the weights that it starts from is kept; `raypipe train rescoring` fits it anew.

    Raises:
        ConfigError: a data set would lie on S3.
        ray.train.TrainingFailedError: a worker failed more often than max_failures.
    """
    from ray.train import CheckpointConfig

    folders = store_folders(config)
    train_store = _ready(folders[0], config.data)
    validation_store = _ready(folders[1], config.validation)
    told = config.model_copy(  # a worker may have another working folder
        update={
            "store": train_store,
            "validation_store": validation_store,
            "output": absolute(config.output),
            "init": absolute_weights(config.init),
        }
    )
    checkpoints = CheckpointConfig(
        num_to_keep=2, checkpoint_score_attribute="map50", checkpoint_score_order="max"
    )
    trainer = make_trainer(_worker, config, told.model_dump_json(), checkpoints)
    result = trainer.fit()
    best = max(result.best_checkpoints or [], key=lambda pair: pair[1]["map50"], default=None)
    checkpoint, metrics = best if best is not None else (result.checkpoint, result.metrics)
    assert checkpoint is not None and metrics is not None  # the last step always reports one
    target = weights_file(config)
    with checkpoint.as_directory() as folder, tempfile.TemporaryDirectory() as work:
        final = Path(work) / WEIGHTS_FILE
        state, info, _ = load_checkpoint(Path(folder) / WEIGHTS_FILE)
        if config.init:
            kept = load_checkpoint(config.init)[1].rescoring
            info = info.model_copy(update={"rescoring": kept})
        of_series = finish(state, info, final, config.calibration, config.threads)
        copy_to(final, target)
    of_slices = {k: float(v) for k, v in metrics.items()}
    return TrainResult(weights=target, metrics={**of_slices, **of_series})


def store_folders(config: TrainDetectorConfig) -> tuple[str, str]:
    """Where the training and the validation slices lie."""
    return (
        data_folder(config, "store", config.store, "data"),
        data_folder(config, "validation_store", config.validation_store, "validation"),
    )


def _ready(folder: str, data: SynthesisConfig) -> str:
    """The folder of a data set, made now where there is none."""
    if not (Path(folder) / "truth.npz").is_file():
        make_store(folder, data)
    return folder


def _worker(told: dict[str, Any]) -> None:
    """One worker under Ray Train."""
    config = TrainDetectorConfig.model_validate_json(told["config"])
    stores = (SampleStore(config.store), SampleStore(config.validation_store))
    place = own_place(config)

    def report(metrics: dict[str, float], state: dict[str, Any]) -> None:
        def write(target: Path) -> None:
            info = checkpoint_info(config, network_config(config), stores[0].fingerprint, metrics)
            save_checkpoint(target, state["average"], info)

        report_checkpoint(place, metrics, state, write)

    run(config, stores, place, report, saved_state())


def describe(result: TrainResult) -> str:
    """The metrics of a result as JSON, and what the weights say of themselves."""
    _, info, digest = load_checkpoint(result.weights)
    return json.dumps(
        {"weights": result.weights, "hash": digest, "labels": info.network.labels}
        | {key: round(value, 4) for key, value in result.metrics.items()},
        indent=2,
    )
