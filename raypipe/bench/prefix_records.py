"""The budget of the visual prefix's ablation, and what is kept of its runs.

In: nothing. Out: frozen records. Does not know: how anything is trained or measured.

Two arms, equal in all but the image: the same frozen language model, the same LoRA adapter trained
for the same steps on the same prompts and texts; one arm also has the prefix in front.
"""

from typing import Any, Literal

from pydantic import Field

from raypipe.settings import Settings
from raypipe.train.prefix_cases import PrefixDataConfig
from raypipe.train.prefix_run import PrefixConfig

Arm = Literal["text alone", "visual prefix"]
TEXT_ARM: Arm = "text alone"
PREFIX_ARM: Arm = "visual prefix"


class BaseModelConfig(Settings):
    """A small Llama, trained from scratch on texts about random findings without any image."""

    layers: int = Field(default=2, gt=0, description="of the network")
    width: int = Field(default=128, gt=0, description="of its embeddings")
    heads: int = Field(default=4, gt=0, description="of its attention")
    inner: int = Field(default=352, gt=0, description="width inside a layer")
    vocabulary: int = Field(default=768, gt=256, description="tokens at most")
    texts: int = Field(default=1500, gt=0, description="to train on")
    told_share: float = Field(
        default=0.7,
        ge=0,
        le=1,
        description="prompts that name attributes; others hide them",
    )
    steps: int = Field(default=300, gt=0, description="optimiser steps")
    batch_tokens: int = Field(default=1024, gt=0, description="tokens a step")
    learning_rate: float = Field(default=4e-3, gt=0, description="peak")
    seed: int = Field(default=5, ge=0, description="of texts and weights")


class PrefixBenchConfig(Settings):
    """The whole budget."""

    base: BaseModelConfig = BaseModelConfig()
    train: PrefixDataConfig = PrefixDataConfig(cases=800)
    held_out: PrefixDataConfig = PrefixDataConfig(cases=160, seed=990_000)
    together: int = Field(default=1, ge=1, le=3, description="findings of one text, at most")
    veiled: bool = Field(
        default=True, description="prompts name the wider kind: a focal lesion, not cyst or mass"
    )
    prefix: PrefixConfig = PrefixConfig()
    seeds: tuple[int, ...] = Field(default=(0, 1, 2), min_length=1, description="runs of an arm")
    rank: Literal[8, 16, 32, 64] = Field(default=16, description="of the adapter")
    steps: int = Field(default=400, gt=0, description="optimiser steps of a run")
    batch_tokens: int = Field(default=1024, gt=0, description="tokens a step")
    learning_rate: float = Field(default=4e-3, gt=0, description="peak")
    threads: int = Field(default=1, gt=0, description="CPU threads")
    bootstrap: int = Field(default=1000, gt=0, description="resamples for intervals")


class Answer(Settings):
    """What a run said of one finding."""

    series: int
    label: str
    truth: dict[str, str]
    said: dict[str, str]


class Made(Settings):
    """One arm trained with one seed, before it has written anything."""

    arm: Arm
    seed: int
    budget: PrefixBenchConfig
    seconds: float = Field(description="of the training")
    loss: float = Field(description="of a learnt token, held out")


class PrefixRun(Settings):
    """One arm trained with one seed, and what it wrote about the held-out cases."""

    arm: Arm
    seed: int
    budget: PrefixBenchConfig
    seconds: float = Field(description="of the training")
    loss: float = Field(description="of a learnt token, held out")
    unfinished: int = Field(description="texts that the engine did not finish")
    answers: tuple[Answer, ...]


class PrefixResult(Settings):
    """The whole ablation."""

    budget: PrefixBenchConfig
    base_parameters: int
    train_findings: int
    held_out_series: int
    held_out_texts: int
    held_out_findings: int
    asked: dict[str, int] = Field(description="attribute -> held-out questions")
    accuracy: dict[str, dict[str, tuple[float, ...]]] = Field(
        description="arm -> measure -> value of each seed"
    )
    intervals: dict[str, dict[str, tuple[float, float]]] = Field(
        description="arm -> measure -> interval of the mean over seeds"
    )
    difference: dict[str, tuple[float, float, float]] = Field(
        description="measure -> prefix less text: mean over seeds, and its interval"
    )
    reference: dict[str, dict[str, float]] = Field(
        description="frequent value of the label, linear probe on the vectors -> measure -> value"
    )
    seconds: dict[str, float] = Field(description="arm -> mean over runs")
    machine: dict[str, Any]
