"""What a training run of the report's language model is told.

In: keyword arguments or YAML. Out: a frozen config. Does not know: how training works.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from raypipe.settings import Settings
from raypipe.train.run_config import TrainRunConfig


class SyntheticSource(Settings):
    """Reports on random finding sets, in wordings that the grammar of each request admits."""

    kind: Literal["synthetic"] = "synthetic"
    examples: int = Field(default=2000, gt=0, description="to train on")
    validation_examples: int = Field(default=100, gt=0, description="to measure on")
    most_findings: int = Field(default=7, ge=1, le=40, description="of one report")
    seed: int = Field(
        default=1000, ge=0, description="of the finding sets; those of validation differ"
    )


class PairsSource(Settings):
    """Prompts and texts of one's own, in Parquet, CSV or JSONL files."""

    kind: Literal["pairs"]
    train: str = Field(description="table to train on: .parquet, .csv or .jsonl")
    validation: str = Field(description="table to measure on")
    prompt_column: str = Field(default="prompt", description="the user's message")
    text_column: str = Field(default="text", description="the answer")
    system: str | None = Field(
        default=None, description="system message; null: that of the report's language"
    )


Source = Annotated[SyntheticSource | PairsSource, Field(discriminator="kind")]


class TrainReporterConfig(TrainRunConfig):
    """A training run of a LoRA adapter for the report's language model."""

    name: str = Field(
        default="reporter",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="of the run: its folder under `output`, and the id of its adapter",
    )
    language_model: str = Field(
        default="smollm2", description="as report.language_model: folder, hub id, or smollm2"
    )
    cache_folder: Path | None = Field(
        default=None, description="where converted models are kept; the user's cache if null"
    )
    language: str = Field(default="en", description="of the reports and of the terms: as report")
    source: Source = Field(default_factory=SyntheticSource, description="what is learnt from")
    init: str = Field(
        default="",
        description="adapter to start from: 'default', a folder or an s3:// address; it brings its "
        "own rank, alpha and targets; empty: none",
    )
    rank: int = Field(default=8, ge=1, le=256, description="of the adapter's matrices")
    alpha: int = Field(default=16, gt=0, description="strength: alpha / rank scales them")
    dropout: float = Field(default=0.0, ge=0, lt=1, description="of the adapter's input")
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
        description="modules that get matrices, by the end of their names",
    )
    term_weight: float = Field(
        default=2.0,
        gt=0,
        description="weight of tokens within medical terms (findings, sides, levels, sizes, "
        "negation) over that of other tokens",
    )
    steps: int = Field(default=600, gt=0, description="optimiser steps")
    batch_tokens: int = Field(
        default=2048, gt=0, description="tokens a step, over all workers; whole rows each"
    )
    row_tokens: int = Field(
        default=1024, ge=8, description="length of a row; examples are packed into it"
    )
    learning_rate: float = Field(default=1e-3, gt=0, description="peak of the one-cycle schedule")
    warmup_share: float = Field(default=0.1, gt=0, lt=1, description="share of steps that rise")
    weight_decay: float = Field(default=0.0, ge=0, description="of AdamW, on matrices only")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(default=0.98, ge=0, lt=1, description="decay of the averaged weights")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the frozen model; the adapter is float32"
    )
    adapter_type: Literal["float32", "float16"] = Field(
        default="float32", description="of the numbers in the adapter's file"
    )
    checkpoint_activations: bool = Field(
        default=False, description="compute layers again on the way back, for memory"
    )
    checkpoint_every: int = Field(default=50, gt=0, description="steps between checkpoints")
    validation_examples: int = Field(
        default=50, gt=0, description="of the validation data, measured at each checkpoint"
    )
    written_examples: int = Field(
        default=0,
        ge=0,
        description="of them, reports that the model writes at each checkpoint (greedy, without a "
        "grammar), whose facts are compared; slow on a CPU",
    )
    log_every: int = Field(default=5, gt=0, description="steps between points of the curves")

    @property
    def rows(self) -> int:
        """Rows a step, over all workers."""
        return self.batch_tokens // self.row_tokens

    @model_validator(mode="after")
    def _whole_rows(self) -> Self:
        if self.batch_tokens % self.row_tokens:
            raise ValueError(
                f"batch_tokens {self.batch_tokens} must be a multiple of row_tokens "
                f"{self.row_tokens}"
            )
        if self.rows % self.workers:
            raise ValueError(
                f"batch_tokens / row_tokens is {self.rows} rows, which {self.workers} workers "
                "cannot share evenly: raise batch_tokens or lower row_tokens"
            )
        return self
