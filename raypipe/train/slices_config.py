"""What a training run on a folder of class-labelled slices is told.

In: keyword arguments or YAML. Out: a frozen config. Does not know: how training works.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from raypipe.settings import Settings
from raypipe.train.run_config import SliceRunConfig


class SplitConfig(Settings):
    """How slices are parted: in contiguous blocks of the number in the file name, never singly.

    Neighbouring numbers are neighbouring slices of one patient, so a slice drawn at random would
    have its twin on the other side.
    """

    validation: float = Field(default=0.1, ge=0, lt=1, description="share of the blocks")
    test: float = Field(default=0.2, ge=0, lt=1, description="share of the blocks")
    blocks: int = Field(
        default=20, gt=1, description="blocks of each class, of equal numbers of slices"
    )
    whole_runs: bool = Field(
        default=False,
        description="cut blocks only where the numbering breaks, so that no unbroken run of "
        "slices stands on two sides; `blocks` plays no part then",
    )
    gap: int = Field(
        default=4,
        ge=0,
        description="slices nearer by number than this to a slice of another part are left out",
    )
    seed: int = Field(default=0, ge=0, description="which blocks go where")

    @model_validator(mode="after")
    def _leaves_training(self) -> Self:
        if self.validation + self.test >= 1:
            raise ValueError(
                f"validation {self.validation} and test {self.test} must leave a share to train on"
            )
        return self


class ViewConfig(Settings):
    """What of a slice the network sees."""

    crop_to_body: bool = Field(
        default=True, description="cut the slice to the box around the body first"
    )
    part_yx: tuple[float, float, float, float] = Field(
        default=(0.0, 1.0, 0.0, 1.0),
        description="part of that box: first and last row, first and last column, from 0 to 1",
    )
    size_yx: tuple[Literal[128, 256], Literal[128, 256]] = Field(
        default=(256, 256), description="rows and columns of the network's input"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        top, bottom, left, right = self.part_yx
        if not (0 <= top < bottom <= 1 and 0 <= left < right <= 1):
            raise ValueError(f"part_yx {self.part_yx} must rise from 0 to 1 along both axes")
        return self


class SliceAugmentConfig(Settings):
    """How training slices are varied."""

    shift: float = Field(default=0.08, ge=0, lt=1, description="largest shift, of the input's edge")
    zoom: float = Field(default=0.15, ge=0, lt=1, description="largest relative change of size")
    stretch: float = Field(default=0.08, ge=0, lt=1, description="the same, of each axis by itself")
    rotation_deg: float = Field(default=8.0, ge=0, description="largest rotation")
    flip: bool = Field(
        default=False,
        description="mirror half of the slices left to right: only where the side says nothing",
    )
    gamma: float = Field(default=0.35, ge=0, description="largest log of the exponent of grey")
    gain: float = Field(default=0.15, ge=0, lt=1, description="largest change of contrast")
    offset: float = Field(default=0.08, ge=0, lt=1, description="largest shift of grey, 0 to 1")
    noise: float = Field(default=0.04, ge=0, description="largest added noise, of grey 0 to 1")
    erase: float = Field(default=0.0, ge=0, le=1, description="share of slices that lose a patch")
    mixup: float = Field(
        default=0.0, ge=0, description="alpha of mixup (Zhang 2018); 0 mixes no slices"
    )


class TrainSlicesConfig(SliceRunConfig):
    """A training run that tells the class of a slice."""

    name: str = Field(default="slices", description="of the run; its folder under `output`")
    data: str = Field(description="folder or s3:// prefix with one folder of slices for each class")
    store: str = Field(
        default="",
        description="folder on disk, seen by every worker, that keeps the decoded slices; empty: "
        "`output`/`name`/data",
    )
    split: SplitConfig = Field(default_factory=SplitConfig, description="training, validation")
    view: ViewConfig = Field(default_factory=ViewConfig, description="what the network sees")
    augment: SliceAugmentConfig = Field(default_factory=SliceAugmentConfig, description="variation")
    size: Literal["small", "paper"] = Field(
        default="small", description="of the network where it starts from no weights"
    )
    init: str = Field(
        default="default",
        description="detector weights to start from: a path, s3:// or 'default'; empty: none",
    )
    steps: int = Field(default=600, gt=0, description="optimiser steps")
    batch_slices: int = Field(
        default=32, gt=0, description="slices a step, over all workers; divisible by them"
    )
    balance: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="how far rare classes are drawn more often: 0 as they come, 1 all alike",
    )
    class_weights: dict[str, float] = Field(
        default={}, description="class -> weight in the loss; 1 where not named"
    )
    label_smoothing: float = Field(default=0.05, ge=0, lt=1, description="of the cross-entropy")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="before the last layer")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak of the one-cycle schedule")
    warmup_share: float = Field(default=0.15, gt=0, lt=1, description="share of steps that rise")
    weight_decay: float = Field(default=0.05, ge=0, description="of AdamW, on matrices only")
    clip_norm: float = Field(default=5.0, gt=0, description="largest norm of the gradient")
    ema: float = Field(default=0.99, ge=0, lt=1, description="decay of the averaged weights")
