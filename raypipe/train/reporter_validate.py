"""What is measured of a report model while it trains.

In: a model, held-out examples, and the conversations that they come from. Out: named numbers.
Does not know: optimisers, Ray.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as f

from raypipe.evaluate.facts import compare_facts, read_facts
from raypipe.knowledge.terminology import Terminology, load_terminology
from raypipe.train.loop import Place
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_model import LoadedModel, Scored
from raypipe.train.reporter_rows import Example, make_row, packed, shared_length
from raypipe.train.step import mean_over_workers

_SIZE_TOLERANCE_MM = 0.05
"""Sizes are copied, so that only rounding may differ."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """Held-out examples, and the true text of each."""

    examples: Sequence[Example]
    texts: Sequence[str]


def validate(
    loaded: LoadedModel, validation: Validation, config: TrainReporterConfig, place: Place
) -> dict[str, float]:
    """Losses and accuracies; measured by the first worker, the same on all."""
    metrics = {"loss": 0.0, "weighted_loss": 0.0, "token_accuracy": 0.0}
    if config.written_examples:
        metrics["fact_f1"] = 0.0
    if place.rank == 0:
        loaded.model.eval()
        count = config.validation_examples
        metrics |= losses(loaded, validation.examples[:count], config, place.device)
        if config.written_examples:
            metrics["fact_f1"] = fact_f1(loaded, validation, config, place.device)
    # the first worker's numbers reach all, so that all report the same
    return {
        name: float(
            mean_over_workers(torch.tensor(value, dtype=torch.float64, device=place.device))
        )
        * place.world
        for name, value in metrics.items()
    }


@torch.no_grad()
def losses(
    loaded: LoadedModel, examples: Sequence[Example], config: TrainReporterConfig, device: str
) -> dict[str, float]:
    """Mean loss a token, the same by weight, and how often the likeliest token is right."""
    shared = shared_length(examples)
    rows = packed(examples, range(len(examples)), config.row_tokens, shared)
    parts = [
        loaded.model([make_row([examples[i] for i in row], shared).to(device)]) for row in rows
    ]
    scored = Scored(*(torch.cat(values) for values in zip(*parts, strict=True)))
    weighted = (scored.loss_n * scored.weights_n).sum() / scored.weights_n.sum()
    return {
        "loss": float(scored.loss_n.mean()),
        "weighted_loss": float(weighted),
        "token_accuracy": float(scored.right_n.float().mean()),
    }


def fact_f1(
    loaded: LoadedModel, validation: Validation, config: TrainReporterConfig, device: str
) -> float:
    """F1 of the facts that the model writes, greedily and free of any grammar."""
    terminology = load_terminology(config.language)
    count = config.written_examples
    written = write(loaded, validation.examples[:count], device)
    return f1_of_texts(written, validation.texts[:count], terminology)


def f1_of_texts(written: Sequence[str], truths: Sequence[str], terminology: Terminology) -> float:
    """F1 of the facts of some texts against those of true ones, over all of them together."""
    pairs = [
        compare_facts(
            read_facts(text, terminology), read_facts(truth, terminology), _SIZE_TOLERANCE_MM
        )
        for text, truth in zip(written, truths, strict=True)
    ]
    right = sum(pair.stated_right + pair.known_told for pair in pairs)
    total = sum(pair.stated + pair.known for pair in pairs)
    return right / total if total else 1.0


@torch.no_grad()
def write(loaded: LoadedModel, examples: Sequence[Example], device: str) -> list[str]:
    """Greedy answers to the prompts of some examples, at most twice as long as the true ones.

    All are written together: prompts end at one place, and what stands before a short one is not
    seen.
    """
    model: Any = loaded.model
    prompts = [model.embedded(make_row([e], 0).to(device))[: e.prompt] for e in examples]
    longest = max(example.prompt for example in examples)
    embeds_blh = torch.stack([f.pad(p, (0, 0, longest - len(p), 0)) for p in prompts])
    seen_bl = torch.stack(
        [torch.arange(longest, device=device) >= longest - len(p) for p in prompts]
    )
    tokens = model.lm.generate(
        inputs_embeds=embeds_blh,
        attention_mask=seen_bl.long(),
        max_new_tokens=2 * max(len(e.tokens) - e.prompt for e in examples),
        do_sample=False,
        pad_token_id=loaded.tokenizer.eos_token_id,
    )
    return [str(text) for text in loaded.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
