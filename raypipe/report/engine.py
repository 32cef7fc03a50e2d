"""The engine protocol: text requests in, completions out; and a fake that needs no model.

In: messages, a grammar and limits per request. Out: one completion per request, in order.
Does not know: findings, reports. Real engines: `vllm_engine.py`, `server_engine.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol


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
class GenerationRequest:
    """What an engine is asked.

    Args:
        messages: of the chat; the model's own template joins them.
        grammar: EBNF of xgrammar, whose rule `root` the answer follows; None: free text.
        max_tokens: the answer is cut there.
        temperature: 0 is greedy.
        seed: of sampling.
        example: a text that the grammar accepts; what the fake engine answers.
    """

    messages: tuple[Message, ...]
    grammar: str | None
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    example: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What an engine answered.

    Args:
        text: may be unfinished where finish_reason is not STOP.
        tokens: generated.
        finish_reason: why it ended.
        seconds: from submission to the last token.
    """

    text: str
    tokens: int
    finish_reason: FinishReason
    seconds: float


class Engine(Protocol):
    """A running language model."""

    @property
    def name(self) -> str:
        """The model's name for reports and provenance."""
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
