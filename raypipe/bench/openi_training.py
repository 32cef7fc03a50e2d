"""The adapter of the Open-I benchmark: its settings, its tables, its training run.

In: examinations to learn from and to choose a checkpoint by. Out: the folder of an adapter.
Does not know: how texts are written with it or measured.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from raypipe.bench.openi_data import SYSTEM, Study
from raypipe.report.config import ReportConfig
from raypipe.settings import Settings
from raypipe.train.reporter_config import PairsSource, TrainReporterConfig
from raypipe.train.reporter_loop import train_reporter

ADAPTER = "openi"
_LETTERS_A_TOKEN = 4
_TRAINED = "training.json"


class OpeniConfig(Settings):
    """What is learnt and measured."""

    header: bool = Field(
        default=True, description="prompt and library see the header lines beside the index terms"
    )
    train: bool = Field(default=True, description="train the adapter; without it, leave it out")
    candidates: int = Field(default=8, ge=1, description="reports that a grammar admits")
    answer_tokens: int = Field(default=96, ge=8, description="of free text at most")
    limit: int | None = Field(default=None, ge=1, description="test examinations; null: all")
    batch: int = Field(default=32, ge=1, description="requests handed to the engine at a time")
    epochs: float = Field(default=1.0, gt=0, description="of the training part")
    batch_tokens: int = Field(default=1024, gt=0, description="tokens of an optimiser step")
    row_tokens: int = Field(default=512, gt=0, description="tokens of a packed row")
    learning_rate: float = Field(default=2e-3, gt=0)
    rank: int = Field(default=16, ge=1, description="of the adapter")
    threads: int = Field(default=1, ge=1, description="of training")
    bootstrap: int = Field(default=1000, ge=0, description="resamples for intervals")


class Trained(Settings):
    """An adapter and how it was trained."""

    adapter: str = Field(description="its folder")
    metrics: dict[str, float]


def training_config(
    folder: Path, config: OpeniConfig, report: ReportConfig, tokens: int
) -> TrainReporterConfig:
    """The training run of the adapter; `tokens` of the training part give the steps."""
    steps = max(round(config.epochs * tokens / config.batch_tokens), 1)
    return TrainReporterConfig(
        name=ADAPTER,
        output=str(folder / "training"),
        language_model=report.language_model,
        cache_folder=report.cache_folder,
        source=PairsSource(
            kind="pairs",
            train=str(folder / "train.parquet"),
            validation=str(folder / "validation.parquet"),
            system=SYSTEM,
        ),
        rank=config.rank,
        alpha=2.0 * config.rank,
        term_weight=1.0,  # words are what is measured
        steps=steps,
        batch_tokens=config.batch_tokens,
        row_tokens=config.row_tokens,
        learning_rate=config.learning_rate,
        ema=0.9,
        threads=config.threads,
        checkpoint_every=max(steps // 4, 1),
        validation_examples=24,
    )


def is_trained(folder: Path) -> bool:
    """Whether a folder holds its adapter already."""
    return (folder / _TRAINED).is_file()


def trained(
    folder: Path, parts: Mapping[str, Sequence[Study]], config: OpeniConfig, report: ReportConfig
) -> Trained:
    """The adapter of a folder, trained now where there is none; a run that was cut off goes on."""
    file = folder / _TRAINED
    if is_trained(folder):
        return Trained.model_validate_json(file.read_text())
    letters = 0
    for name in ("train", "validation"):
        prompts = [study.prompt(header=config.header) for study in parts[name]]
        texts = [study.text for study in parts[name]]
        pq.write_table(pa.table({"prompt": prompts, "text": texts}), folder / f"{name}.parquet")
        if name == "train":
            letters = sum(map(len, (*prompts, *texts)))
    started = time.perf_counter()
    done = train_reporter(training_config(folder, config, report, letters // _LETTERS_A_TOKEN))
    metrics = {**done.metrics, "seconds": time.perf_counter() - started}
    made = Trained(adapter=done.adapter, metrics=metrics)
    file.write_text(made.model_dump_json())
    return made
