"""Examples as tokens, and several of them packed into one row.

In: conversations with their answers, a tokenizer. Out: Examples; Rows for the network.
Does not know: where conversations come from, networks, Ray.

An example of a row sees itself and the tokens that all examples begin with (the system message),
which stand in the row once; positions go on behind them. So a row computes what its examples would
compute alone, for fewer tokens. Only answers are learnt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.errors import ConfigError
from raypipe.knowledge.terminology import Terminology
from raypipe.report.engine import Message
from raypipe.train.reporter_terms import term_spans

_SHARED = 0
"""Segment of the tokens that all examples of a row see."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Conversation:
    """What is asked and what shall be answered.

    Args:
        messages: as the engine gets them.
        text: the answer.
        features: (n, d) float32 of the image in front of the messages; None for none.
        prefix: prompt positions that the projector makes of the features.
    """

    messages: tuple[Message, ...]
    text: str
    features: NDArray[np.float32] | None = field(default=None, repr=False)
    prefix: int = 0

    def __post_init__(self) -> None:
        if (self.features is None) != (self.prefix == 0):
            raise ValueError("Conversation: features and prefix come together")


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A conversation as tokens.

    Args:
        tokens: prompt and answer; those of the prefix are 0.
        weights: of each token as a thing to learn; 0 in the prompt.
        prefix: leading positions whose embeddings come from the features.
        features: as in the conversation.
        prompt: number of tokens before the answer.
    """

    tokens: NDArray[np.int64]
    weights: NDArray[np.float32]
    prefix: int = 0
    features: NDArray[np.float32] | None = field(default=None, repr=False)
    prompt: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """Examples behind one another (l positions).

    Args:
        tokens_l: int64.
        positions_l: int64; of each example by itself.
        segments_l: int64; which example a position is of, 0 for what all see.
        weights_l: float32; of each token as a thing to learn.
        prefix_l: bool; whether its embedding comes from the features.
        features_nd: float32, of all examples in order; None for none.
    """

    tokens_l: Tensor
    positions_l: Tensor
    segments_l: Tensor
    weights_l: Tensor
    prefix_l: Tensor
    features_nd: Tensor | None = None

    def seen_ll(self) -> Tensor:
        """Whether a position (first axis) sees another (second axis)."""
        own = self.segments_l[:, None] == self.segments_l[None, :]
        return (own | (self.segments_l[None, :] == _SHARED)).tril()

    def to(self, device: str) -> "Row":
        """The row on a device."""
        moved = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in moved.items() if v is not None})


def prompt_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """The tokens of messages behind the model's chat template, as the engine makes them."""
    text = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    return list(tokenizer.encode(text, add_special_tokens=False))


def make_example(
    conversation: Conversation, tokenizer: Any, terminology: Terminology, term_weight: float
) -> Example:
    """Tokens and weights of a conversation.

    Args:
        conversation: what is learnt.
        tokenizer: of the language model, a fast one.
        terminology: of the answer's language.
        term_weight: of tokens within medical terms; others weigh 1.
    """
    prompt = prompt_tokens(tokenizer, conversation.messages)
    encoded = tokenizer(conversation.text, add_special_tokens=False, return_offsets_mapping=True)
    spans = term_spans(conversation.text, terminology)
    weights = [
        term_weight if any(a < end and start < b for a, b in spans) else 1.0
        for start, end in encoded["offset_mapping"]
    ]
    answer = [*encoded["input_ids"], int(tokenizer.eos_token_id)]
    ahead = conversation.prefix + len(prompt)
    return Example(
        tokens=np.array([*[0] * conversation.prefix, *prompt, *answer], dtype=np.int64),
        weights=np.array([*[0.0] * ahead, *weights, 1.0], dtype=np.float32),
        prefix=conversation.prefix,
        features=conversation.features,
        prompt=ahead,
    )


def shared_length(examples: Sequence[Example]) -> int:
    """How many leading prompt tokens all examples have in common; none behind a prefix."""
    if not examples or any(example.prefix for example in examples):
        return 0
    first = examples[0]
    length = min(example.prompt for example in examples)
    for example in examples:
        differing = np.flatnonzero(example.tokens[:length] != first.tokens[:length])
        length = int(differing[0]) if differing.size else length
    return length


def packed(
    examples: Sequence[Example], order: Iterable[int], row_tokens: int, shared: int
) -> list[list[int]]:
    """Which examples stand in which row: each in the fullest open row that still takes it.

    Raises:
        ConfigError: an example does not fit into a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in order:
        length = len(examples[index].tokens) - shared
        if length > row_tokens - shared:
            raise ConfigError(
                f"train reporter: an example has {length + shared} tokens; row_tokens is "
                f"{row_tokens}: raise it, or shorten the texts"
            )
        fitting = [i for i, left in enumerate(free) if left >= length]
        if fitting:
            chosen = min(fitting, key=lambda i: free[i])
        else:
            chosen = len(rows)
            rows.append([])
            free.append(row_tokens - shared)
        rows[chosen].append(index)
        free[chosen] -= length
    return rows


def make_row(examples: Sequence[Example], shared: int) -> Row:
    """The row of some examples; the first `shared` tokens of all stand in it once."""
    head = examples[0].tokens[:shared]
    tokens, weights = [head], [np.zeros(shared, dtype=np.float32)]
    positions, segments = [np.arange(shared)], [np.full(shared, _SHARED)]
    prefix, features = [np.zeros(shared, dtype=bool)], []
    for number, example in enumerate(examples, start=_SHARED + 1):
        length = len(example.tokens)
        tokens.append(example.tokens[shared:])
        weights.append(example.weights[shared:])
        positions.append(np.arange(shared, length))
        segments.append(np.full(length - shared, number))
        prefix.append(np.arange(shared, length) < example.prefix)
        if example.features is not None:
            features.append(example.features)
    return Row(
        tokens_l=torch.from_numpy(np.concatenate(tokens)),
        positions_l=torch.from_numpy(np.concatenate(positions)),
        segments_l=torch.from_numpy(np.concatenate(segments)),
        weights_l=torch.from_numpy(np.concatenate(weights)),
        prefix_l=torch.from_numpy(np.concatenate(prefix)),
        features_nd=torch.from_numpy(np.concatenate(features)) if features else None,
    )


class RowPlan:
    """Which rows every step trains on; follows from the seed and the step alone.

    Args:
        examples: to train on.
        rows: a step.
        row_tokens: length of a row.
        seed: of the order.
    """

    def __init__(self, examples: Sequence[Example], rows: int, row_tokens: int, seed: int) -> None:
        self._examples, self._rows, self._row_tokens = examples, rows, row_tokens
        self._seed = seed
        self._shared = shared_length(examples)
        self._planned: list[list[int]] = []
        self._epoch = 0

    def rows(self, step: int) -> list[Row]:
        """All rows of a step, over all workers."""
        first, end = step * self._rows, (step + 1) * self._rows
        while len(self._planned) < end:
            order = np.random.default_rng([self._seed, self._epoch]).permutation(
                len(self._examples)
            )
            self._planned += packed(self._examples, order.tolist(), self._row_tokens, self._shared)
            self._epoch += 1
        return [
            make_row([self._examples[i] for i in row], self._shared)
            for row in self._planned[first:end]
        ]
