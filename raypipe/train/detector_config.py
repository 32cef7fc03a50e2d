"""What a training run of the detector is told.

In: keyword arguments or YAML. Out: a frozen config. Does not know: how training works.
"""

from typing import Literal

from pydantic import Field, field_validator

from raypipe.knowledge.graph import load_graph
from raypipe.model.enhancement import Strategy
from raypipe.train.batches import AugmentConfig
from raypipe.train.losses import LossConfig
from raypipe.train.run_config import SliceRunConfig
from raypipe.train.synthesis import SynthesisConfig


class TrainDetectorConfig(SliceRunConfig):
    """A training run of the detector."""

    name: str = Field(default="detector", description="of the run; its folder under `output`")
    store: str = Field(
        default="",
        description="folder of a training data set on disk, seen by every worker; made from "
        "`data` where it is missing; empty: `output`/`name`/data",
    )
    validation_store: str = Field(
        default="", description="the same for validation; empty: `output`/`name`/validation"
    )
    data: SynthesisConfig = Field(
        default_factory=SynthesisConfig, description="training series to make"
    )
    validation: SynthesisConfig = Field(
        default_factory=lambda: SynthesisConfig(phantom_series=40, seed=900_000),
        description="validation series to make; its seeds differ from those of `data`",
    )
    calibration: SynthesisConfig = Field(
        default_factory=lambda: SynthesisConfig(phantom_series=40, seed=950_000),
        description="whole series on which thresholds and probabilities are fitted at the end; "
        "none: the weights carry neither",
    )
    size: Literal["small", "paper"] = Field(default="small", description="of the network")
    strategy: Strategy = Field(default="full", description="how knowledge enters the features")
    init: str = Field(
        default="", description="weights to start from: a path, s3:// or 'default'; empty: none"
    )
    loss: LossConfig = Field(default_factory=LossConfig, description="weights of the terms")
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="variation")
    empty_share: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="share of the drawn slices that hold no lesion; null: each is drawn as often "
        "as a slice with the commonest label",
    )
    label_weights: dict[str, float] = Field(
        default={},
        description="label -> how much oftener its slices are drawn than others': above 1 for what "
        "the network finds worst; all labels are drawn alike where none is told",
    )
    steps: int = Field(default=3000, gt=0, description="optimiser steps")
    learning_rate: float = Field(default=2e-3, gt=0, description="peak of the one-cycle schedule")
    warmup_share: float = Field(default=0.1, gt=0, lt=1, description="share of steps that rise")
    weight_decay: float = Field(default=0.03, ge=0, description="of AdamW, on matrices only")
    clip_norm: float = Field(default=5.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(default=0.998, ge=0, lt=1, description="decay of the averaged weights")
    precision: Literal["float32", "bfloat16", "float64"] = Field(
        default="float32",
        description="bfloat16: the forward pass alone; float64: all, to compare runs whose sums "
        "are in another order",
    )
    checkpoint_activations: bool = Field(
        default=False, description="compute the encoder's layers again on the way back, for memory"
    )
    parallel: Literal["ddp", "fsdp"] = Field(default="ddp", description="over several workers")
    validation_slices: int = Field(
        default=200, gt=0, description="slices of the validation set used between checkpoints"
    )
    patience: int = Field(
        default=10, gt=0, description="checkpoints without a better mAP before it stops early"
    )

    @field_validator("label_weights")
    @classmethod
    def _known_labels(cls, told: dict[str, float]) -> dict[str, float]:
        labels = load_graph().detected
        for label, weight in told.items():
            if label not in labels:
                raise ValueError(f"{label!r} is no finding that gets boxes: {', '.join(labels)}")
            if weight <= 0:
                raise ValueError(f"{label}: {weight:g} must be above 0")
        return told
