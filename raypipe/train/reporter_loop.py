"""Train a LoRA adapter of the report's language model on a Ray cluster.

In: a TrainReporterConfig. Out: the adapter of the best checkpoint in peft's format, its metrics.
Does not know: how a step is made (reporter_run.py), what is learnt (reporter_sources.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.knowledge.terminology import load_terminology
from raypipe.report.adapter import describe_adapter
from raypipe.train.ray_host import (
    absolute,
    absolute_weights,
    copy_to,
    make_trainer,
    own_place,
    report_checkpoint,
    saved_state,
)
from raypipe.train.reporter_config import PairsSource, TrainReporterConfig
from raypipe.train.reporter_model import (
    ADAPTER_FOLDER,
    CONFIG_FILE,
    TENSORS_FILE,
    LoadedModel,
    load_model,
    load_tokenizer,
    save_adapter,
)
from raypipe.train.reporter_rows import (
    Conversation,
    Example,
    make_example,
    packed,
    shared_length,
)
from raypipe.train.reporter_run import run
from raypipe.train.reporter_sources import conversations
from raypipe.train.reporter_validate import Validation

BEST = "weighted_loss"
"""The metric, smaller is better, by which a checkpoint is chosen."""


@dataclass(frozen=True, kw_only=True)
class TrainReporterResult:
    """What a run leaves behind.

    Args:
        adapter: folder or address of the adapter of the best checkpoint.
        adapter_id: under which `report.adapters` should name it.
        weights_hash: as reports and provenance tell it.
        metrics: of that checkpoint.
    """

    adapter: str
    adapter_id: str
    weights_hash: str
    metrics: dict[str, float]


def train_reporter(config: TrainReporterConfig) -> TrainReporterResult:
    """Train, and write the adapter of the best checkpoint.

    A run whose folder holds a checkpoint goes on from it. Needs a running Ray, or starts one.

    Raises:
        ConfigError: model, adapter or table are not there.
        ray.train.TrainingFailedError: a worker failed more often than max_failures.
    """
    from ray.train import CheckpointConfig

    told = _placed(config)
    if isinstance(told.source, PairsSource):
        check_pairs(told)  # here, where an error is told at once, not after restarts of workers
    checkpoints = CheckpointConfig(
        num_to_keep=2, checkpoint_score_attribute=BEST, checkpoint_score_order="min"
    )
    result = make_trainer(_worker, told, told.model_dump_json(), checkpoints).fit()
    best = min(result.best_checkpoints or [], key=lambda pair: pair[1][BEST], default=None)
    checkpoint, metrics = best if best is not None else (result.checkpoint, result.metrics)
    assert checkpoint is not None and metrics is not None  # the last step always reports one
    target = f"{told.output}/{config.name}/{ADAPTER_FOLDER}"
    with checkpoint.as_directory() as folder:
        made = Path(folder) / ADAPTER_FOLDER
        if "://" not in target:
            Path(target).mkdir(parents=True, exist_ok=True)
        for file in (CONFIG_FILE, TENSORS_FILE):
            copy_to(made / file, f"{target}/{file}")
        weights_hash = describe_adapter(config.name, made).weights_hash
    return TrainReporterResult(
        adapter=target,
        adapter_id=config.name,
        weights_hash=weights_hash,
        metrics={key: float(value) for key, value in metrics.items()},
    )


def _placed(config: TrainReporterConfig) -> TrainReporterConfig:
    """The config with paths that workers in another folder understand."""
    changes: dict[str, Any] = {
        "output": absolute(config.output),
        "init": absolute_weights(config.init),
    }
    if Path(config.language_model).expanduser().is_dir():
        changes["language_model"] = absolute(str(Path(config.language_model).expanduser()))
    if Path(config.language).is_file():
        changes["language"] = absolute(config.language)
    if config.cache_folder is not None:
        changes["cache_folder"] = config.cache_folder.resolve()
    if isinstance(config.source, PairsSource):
        paths = {
            "train": absolute(config.source.train),
            "validation": absolute(config.source.validation),
        }
        changes["source"] = config.source.model_copy(update=paths)
    return config.model_copy(update=changes)


def check_pairs(config: TrainReporterConfig) -> None:
    """Read the tables and see that every example fits into a row.

    Raises:
        ConfigError: a table is not there, or a text is too long.
    """
    tokenizer = load_tokenizer(config)
    terminology = load_terminology(config.language)
    for part in conversations(config):
        examples = [make_example(c, tokenizer, terminology, 1.0) for c in part]
        packed(examples, range(len(examples)), config.row_tokens, shared_length(examples))


def examples_of(
    config: TrainReporterConfig,
    loaded: LoadedModel,
    told: tuple[Sequence[Conversation], Sequence[Conversation]],
) -> tuple[list[Example], Validation]:
    """Conversations to train on and to measure on, as tokens of the model."""
    terminology = load_terminology(config.language)
    train, validation = (
        [make_example(c, loaded.tokenizer, terminology, config.term_weight) for c in part]
        for part in told
    )
    return train, Validation(examples=validation, texts=[c.text for c in told[1]])


def _worker(told: dict[str, Any]) -> None:
    """One worker under Ray Train."""
    config = TrainReporterConfig.model_validate_json(told["config"])
    place = own_place(config)
    loaded = load_model(config)
    examples = examples_of(config, loaded, conversations(config))

    def report(metrics: dict[str, float], state: dict[str, Any]) -> None:
        def write(target: Path) -> None:
            save_adapter(loaded, target.parent / ADAPTER_FOLDER, config.adapter_type)

        report_checkpoint(place, metrics, state, write)

    run(config, loaded, examples, place, report, saved_state())
