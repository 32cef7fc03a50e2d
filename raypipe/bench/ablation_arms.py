"""The arms of the ablation, their budget, and what is kept of them.

In: nothing. Out: frozen records. Does not know: how arms are trained or measured.

The arms follow the rows of the paper's ablation:

    arm              features (model.enhancement)    terms of the loss beside boxes and labels
    base             as the encoder makes them       none
    + knowledge      graph nodes read and added      anatomy, HU range, hierarchy
    + fine-grained   free slots read and gated       attention maps, attribute values
    full             graph nodes read and gated      all of these, and attributes that cannot be

A budget that CPUs can afford is too small to train an encoder, so all arms start from one encoder
that is already trained; what differs between arms starts fresh.
"""

from pydantic import Field

from raypipe.evaluate.comparison import Difference
from raypipe.model.enhancement import Strategy
from raypipe.settings import Settings
from raypipe.train.losses import LossConfig
from raypipe.train.synthesis import SynthesisConfig

KNOWLEDGE_TERMS = ("anatomy", "hu_range", "hierarchy")
FINE_TERMS = ("attention", "attributes")


class Arm(Settings):
    """One variant of the network and its loss."""

    name: str
    slug: str = Field(description="as it stands in file names")
    strategy: Strategy
    without: tuple[str, ...] = Field(description="terms of the loss that are left out")


ARMS = (
    Arm(
        name="base",
        slug="base",
        strategy="base",
        without=(*KNOWLEDGE_TERMS, *FINE_TERMS, "compatibility"),
    ),
    Arm(
        name="+ knowledge",
        slug="knowledge",
        strategy="knowledge_fusion",
        without=(*FINE_TERMS, "compatibility"),
    ),
    Arm(
        name="+ fine-grained",
        slug="fine_grained",
        strategy="adaptive_attention",
        without=(*KNOWLEDGE_TERMS, "compatibility"),
    ),
    Arm(name="full", slug="full", strategy="full", without=()),
)


class AblationConfig(Settings):
    """The budget, the same for every arm."""

    steps: int = Field(default=700, gt=0, description="optimiser steps of a run")
    batch_slices: int = Field(default=8, gt=0, description="slices a step")
    learning_rate: float = Field(default=1e-3, gt=0, description="peak of the one-cycle schedule")
    ema: float = Field(default=0.99, ge=0, lt=1, description="decay of the averaged weights")
    start: str = Field(
        default="default",
        description="weights whose encoder every arm starts from, all else is fresh: 'default' "
        "for the packaged ones, a path or s3:// address; empty: the encoder is fresh as well",
    )
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="runs of an arm")
    threads: int = Field(default=1, gt=0, description="CPU threads of torch")
    loss: LossConfig = Field(
        default=LossConfig(focal=2.0, attributes=0.15), description="weights of the terms in full"
    )
    data: SynthesisConfig = Field(
        default=SynthesisConfig(phantom_series=150, slices_per_series=12, seed=20_000),
        description="training series",
    )
    bootstrap: int = Field(default=500, ge=0, description="resamples for intervals")
    held_out: SynthesisConfig = Field(
        default=SynthesisConfig(phantom_series=60, seed=980_000),
        description="series to measure on; training never sees them",
    )

    def training(self) -> dict[str, object]:
        """What two runs have to share to be compared."""
        return self.model_dump(exclude={"seeds", "threads", "bootstrap"})


class StoredClaim(Settings):
    """A box that a run claims on a slice of the held-out data."""

    slice: int
    label: str
    score: float
    lower_yx: tuple[float, float]
    upper_yx: tuple[float, float]


class ArmRun(Settings):
    """One arm trained with one seed, and all that it claims on the held-out slices."""

    arm: Arm
    seed: int
    budget: AblationConfig
    parameters: int
    loss: float = Field(description="of the last batch; arms sum different terms")
    seconds: float = Field(description="of the training")
    claims: tuple[StoredClaim, ...]


class ArmResult(Settings):
    """What an arm reaches: every run, and how it differs from the base."""

    arm: Arm
    parameters: int
    seconds: float = Field(description="mean over the runs")
    runs: dict[str, tuple[float, ...]] = Field(description="measure -> value of each seed")
    differences: dict[str, Difference] = Field(description="to the base; empty for the base")


class AblationResult(Settings):
    """The whole ablation."""

    budget: AblationConfig
    slices: int = Field(description="held out")
    series: int = Field(description="that the held-out slices come from")
    lesions: int = Field(description="boxes on these slices")
    arms: tuple[ArmResult, ...]
    machine: dict[str, str | int]
