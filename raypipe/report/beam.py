"""Beam search under a constraint: the likeliest whole texts that a grammar accepts.

In: what scores the next tokens of some prefixes, a constraint, a width. Out: whole texts as
tokens, the likeliest first. Does not know: engines, grammars, text.

A step asks for all prefixes at once. Probabilities are those of the model among the tokens that
the constraint allows, so a token that is the only possible one is free and needs no model.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

Tokens = tuple[int, ...]


class Constraint(Protocol):
    """Which tokens may follow what was accepted so far."""

    def allowed(self) -> Tokens | None:
        """The tokens that may follow; None for any."""

    def after(self, token: int) -> "Constraint":
        """The constraint behind one more token; this one stays as it is."""


Scorer = Callable[
    [Sequence[Tokens], Sequence[Tokens | None]], Awaitable[Sequence[Mapping[int, float]]]
]
"""Prefixes and the tokens allowed behind each -> log probability of the likely ones."""


@dataclass(frozen=True)
class Beam:
    """One text.

    Args:
        tokens: without the one that ends it.
        log_probability: of all tokens, the last one included.
    """

    tokens: Tokens
    log_probability: float

    @property
    def rank(self) -> float:
        """Log probability a token, so that long wordings are not worse than short ones."""
        return self.log_probability / (len(self.tokens) + 1)


async def beam_search(
    score: Scorer, start: Constraint, end_tokens: frozenset[int], width: int, max_tokens: int
) -> list[Beam]:
    """The likeliest whole texts, at most `width`; none where no text ended in time.

    Args:
        score: asks the model.
        start: constraint before the first token.
        end_tokens: any of them ends a text.
        width: prefixes kept in each step.
        max_tokens: steps at most.
    """
    open_beams: list[tuple[Beam, Constraint]] = [(Beam((), 0.0), start)]
    done: list[Beam] = []
    for _ in range(max_tokens):
        if not open_beams or len(done) >= width:
            break
        steps: list[tuple[float, int, int]] = []
        for i, likely in enumerate(await _next_tokens(score, open_beams)):
            beam = open_beams[i][0]
            for token, log_probability in likely.items():
                total = beam.log_probability + log_probability
                if token in end_tokens:
                    done.append(Beam(beam.tokens, total))
                else:
                    steps.append((total, i, token))
        best = heapq.nsmallest(width, steps, key=lambda step: (-step[0], step[1], step[2]))
        open_beams = [
            (Beam((*open_beams[i][0].tokens, token), total), open_beams[i][1].after(token))
            for total, i, token in best
        ]
    return sorted(done, key=lambda beam: -beam.rank)[:width]


async def _next_tokens(
    score: Scorer, beams: Sequence[tuple[Beam, Constraint]]
) -> list[Mapping[int, float]]:
    """For each beam its possible next tokens; the model is asked only where there is a choice."""
    allowed = [constraint.allowed() for _, constraint in beams]
    asked = [i for i, tokens in enumerate(allowed) if tokens is None or len(tokens) > 1]
    answers = (
        await score([beams[i][0].tokens for i in asked], [allowed[i] for i in asked])
        if asked
        else ()
    )
    out: list[Mapping[int, float]] = [dict.fromkeys(tokens or (), 0.0) for tokens in allowed]
    for i, answer in zip(asked, answers, strict=True):
        out[i] = _among(answer, allowed[i])
    return out


def _among(likely: Mapping[int, float], allowed: Tokens | None) -> dict[int, float]:
    """Log probabilities among the allowed tokens alone."""
    if allowed is None:
        return dict(likely)
    kept = {token: likely[token] for token in allowed if token in likely}
    if not kept:
        return {}
    highest = max(kept.values())
    total = highest + math.log(sum(math.exp(value - highest) for value in kept.values()))
    return {token: value - total for token, value in kept.items()}
