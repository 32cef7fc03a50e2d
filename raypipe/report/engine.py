"""The engine protocol: text requests in, completions out; and a fake that needs no model.

In: messages, a grammar, a decoding plan and limits per request. Out: one completion per request,
in order. Does not know: findings, reports. Real engines: `vllm_engine.py`, `server_engine.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Method = Literal["greedy", "sample", "best_of", "beam"]


class FinishReason(StrEnum):
    """Why a completion ended. Only STOP is a whole answer."""

    STOP = "stop"
    LENGTH = "length"  # max_tokens came first
    TIMEOUT = "timeout"  # the request's time limit came first
    ERROR = "error"  # the engine refused or failed this request, not the others


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message of a chat: role "system" or "user"."""

    role: str
    content: str


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How the answer is chosen among what the model finds likely.

    Args:
        method: greedy: always the likeliest token; sample: one draw; best_of: several draws, all
            returned; beam: the likeliest whole texts, all returned.
        temperature: of drawing; 0 for greedy and beam.
        width: draws of best_of, or texts that a beam keeps.
        seed: of drawing.

    Raises:
        ValueError: the three do not fit each other.
    """

    method: Method = "greedy"
    temperature: float = 0.0
    width: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.temperature > 0) != (self.method in ("sample", "best_of")):
            raise ValueError(f"Decoding: {self.method} with temperature {self.temperature}")
        if self.width < 1 or (self.width > 1 and self.method in ("greedy", "sample")):
            raise ValueError(f"Decoding: {self.method} with width {self.width}")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What an engine is asked.

    Args:
        messages: of the chat; the model's own template joins them.
        grammar: EBNF of xgrammar, whose rule `root` the answer follows; None: free text.
        max_tokens: the answer is cut there.
        decoding: how the answer is chosen.
        adapter: id of a LoRA adapter that the engine knows; None: the model as it is.
        prefix: (p, h) float32 embeddings that stand in front of the messages; None: none.
        example: a text that the grammar accepts; what the fake engine answers.
    """

    messages: tuple[Message, ...]
    grammar: str | None
    max_tokens: int
    decoding: Decoding = Decoding()
    adapter: str | None = None
    prefix: NDArray[np.float32] | None = field(default=None, repr=False, compare=False)
    example: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One of several answers.

    Args:
        text: the whole answer.
        log_probability: a token, under the model; the mean over the answer, 0 where not known.
    """

    text: str
    log_probability: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What an engine answered.

    Args:
        text: the likeliest answer; may be unfinished where finish_reason is not STOP.
        tokens: generated, of all candidates together.
        finish_reason: why it ended.
        seconds: from submission to the last token.
        candidates: whole answers of best_of and beam, the likeliest first; empty otherwise.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    seconds: float
    candidates: tuple[Candidate, ...] = ()


class Engine(Protocol):
    """A running language model."""

    @property
    def name(self) -> str:
        """The model's name for reports and provenance."""
        ...

    def name_with(self, adapter: str) -> str:
        """The name of the model with an adapter; "" is none."""
        ...

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Answer all requests, decoded together; one that fails costs only itself.

        Raises:
            EngineError: the engine is dead and did not come back.
        """
        ...

    def close(self) -> None:
        """Stop the engine and free its memory; closing twice is fine."""
        ...


class EchoEngine:
    """A fake for tests: answers each request's example, or what a function makes of it."""

    name = "echo (a fake, no language model)"

    def __init__(self, answer: Callable[[GenerationRequest], str] | None = None) -> None:
        self._answer = answer or (lambda request: request.example)
        self.requests: list[GenerationRequest] = []

    def name_with(self, adapter: str) -> str:
        """The fake knows every adapter."""
        return f"{self.name} + {adapter}" if adapter else self.name

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Answer at once; one token is one word."""
        self.requests += requests
        texts = [self._answer(request) for request in requests]
        return [
            Completion(
                text=text, tokens=len(text.split()), finish_reason=FinishReason.STOP, seconds=0.0
            )
            for text in texts
        ]

    def close(self) -> None:
        """Nothing to stop."""
