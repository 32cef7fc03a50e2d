"""Train a classifier of slices on a Ray cluster: workers, restarts, checkpoints, test measures.

In: a TrainSlicesConfig. Out: weights in safetensors, and what they reach on the parts kept aside.
Does not know: how a step is made (slices_loop.py).
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.model.checkpoint import save_checkpoint
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
from raypipe.train.slices import SliceFolder, read_folder, split
from raypipe.train.slices_config import TrainSlicesConfig
from raypipe.train.slices_loop import measure, run
from raypipe.train.slices_model import (
    SlicePredictor,
    load_slice_weights,
    slice_info,
)


@dataclass(frozen=True, kw_only=True)
class SlicesResult:
    """What a run leaves behind.

    Args:
        weights: safetensors file of the last step's averaged weights.
        classes: names, in the order of the outputs.
        counts: slices of training, validation and test.
        metrics: of the last checkpoint, and "test/..." of the part that training never saw.
    """

    weights: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    metrics: dict[str, float]


def open_slices(config: TrainSlicesConfig) -> SliceFolder:
    """The decoded slices of a run, read now where they are not there yet."""
    store = Path(data_folder(config, "store", config.store, "data"))
    if (store / "slices.json").is_file():
        return SliceFolder(store)
    return read_folder(config.data, store)


def train_slices(config: TrainSlicesConfig) -> SlicesResult:
    """Read the folder, train, measure on the test part and write the weights.

    A run whose folder holds a checkpoint goes on from it. Needs a running Ray, or starts one.

    Raises:
        ConfigError: the folder holds no classes, a class too few slices, or `store` is no folder.
        ray.train.TrainingFailedError: a worker failed more often than max_failures.
    """
    from ray.train import CheckpointConfig

    folder = open_slices(config)
    parts = split(folder, config.split)
    told = config.model_copy(  # a worker may have another working folder
        update={
            "store": str(folder.folder.resolve()),
            "output": absolute(config.output),
            "init": absolute_weights(config.init),
        }
    )
    checkpoints = CheckpointConfig(num_to_keep=1)
    trainer = make_trainer(_worker, config, told.model_dump_json(), checkpoints)
    result = trainer.fit()
    assert result.checkpoint is not None and result.metrics is not None  # the last step has one
    metrics = {key: float(value) for key, value in result.metrics.items()}
    target = weights_file(config)
    with result.checkpoint.as_directory() as at, tempfile.TemporaryDirectory() as work:
        weights = Path(at) / WEIGHTS_FILE
        if len(parts.test):
            predictor = SlicePredictor.load(weights, folder.fingerprint)
            of_test = measure(predictor, folder, parts.test)
            metrics |= {f"test/{key}": value for key, value in of_test.items()}
        tensors, info, _ = load_slice_weights(weights)
        known = info.training | {"metrics": {k: round(v, 4) for k, v in metrics.items()}}
        final = Path(work) / WEIGHTS_FILE
        save_checkpoint(final, tensors, info.model_copy(update={"training": known}))
        copy_to(final, target)
    counts = {name: len(getattr(parts, name)) for name in ("train", "validation", "test")}
    return SlicesResult(weights=target, classes=folder.classes, counts=counts, metrics=metrics)


def _worker(told: dict[str, Any]) -> None:
    """One worker under Ray Train."""
    config = TrainSlicesConfig.model_validate_json(told["config"])
    folder = SliceFolder(config.store)
    place = own_place(config)
    info = slice_info(config, folder.classes, folder.fingerprint)

    def report(metrics: dict[str, float], state: dict[str, Any]) -> None:
        def write(target: Path) -> None:
            save_checkpoint(target, state["average"], info)

        report_checkpoint(place, metrics, state, write)

    run(config, folder, split(folder, config.split), place, report, saved_state())
