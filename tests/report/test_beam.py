import asyncio
import itertools
import math
import random
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.report.beam import Beam, Tokens, beam_search

END = 0
LETTERS = (1, 2, 3)
LENGTH = 4


class Words:
    """Accepts some words of letters, each ended by END."""

    def __init__(self, words: Sequence[Tokens], prefix: Tokens = ()) -> None:
        self.words, self.prefix = words, prefix

    def allowed(self) -> Tokens:
        n = len(self.prefix)
        rest = {word[n:] for word in self.words if word[:n] == self.prefix}
        return tuple(sorted({r[0] if r else END for r in rest}))

    def after(self, token: int) -> "Words":
        return Words(self.words, (*self.prefix, token))


class Model:
    """A language model of random log probabilities, the same for the same prefix."""

    def __init__(self, seed: int) -> None:
        self.seed, self.asked = seed, 0

    def next(self, prefix: Tokens) -> dict[int, float]:
        rng = random.Random(f"{self.seed} {prefix}")
        raw = {token: rng.uniform(0.01, 1.0) for token in (END, *LETTERS)}
        return {token: math.log(value / sum(raw.values())) for token, value in raw.items()}

    async def score(
        self, prefixes: Sequence[Tokens], allowed: Sequence[Tokens | None]
    ) -> list[Mapping[int, float]]:
        self.asked += len(prefixes)
        return [self.next(prefix) for prefix in prefixes]

    def rank(self, word: Tokens, words: Sequence[Tokens]) -> float:
        """Log probability a token of a word among the allowed ones, the long way."""
        total = 0.0
        for n in range(len(word) + 1):
            allowed = Words(words, word[:n]).allowed()
            likely = self.next(word[:n])
            token = word[n] if n < len(word) else END
            total += likely[token] - math.log(sum(math.exp(likely[t]) for t in allowed))
        return total / (len(word) + 1)


def _search(model: Model, words: Sequence[Tokens], width: int) -> list[Beam]:
    work = beam_search(model.score, Words(words), frozenset({END}), width, LENGTH + 2)
    return asyncio.run(work)


WORDS = st.lists(
    st.lists(st.sampled_from(LETTERS), min_size=LENGTH, max_size=LENGTH).map(tuple),
    min_size=1,
    max_size=12,
    unique=True,
)


@settings(max_examples=60)
@given(WORDS, st.integers(0, 1000))
def test_a_wide_beam_finds_the_likeliest_words(words: list[Tokens], seed: int) -> None:
    model = Model(seed)
    found = _search(model, words, width=len(words))
    expected = sorted(words, key=lambda word: -model.rank(word, words))
    assert [beam.tokens for beam in found] == expected
    for beam in found:
        assert beam.rank == pytest.approx(model.rank(beam.tokens, words), abs=1e-9)


@settings(max_examples=60)
@given(WORDS, st.integers(0, 1000), st.integers(1, 6))
def test_every_beam_is_a_word(words: list[Tokens], seed: int, width: int) -> None:
    found = [beam.tokens for beam in _search(Model(seed), words, width)]
    assert found and len(found) <= width and set(found) <= set(words)
    assert len(set(found)) == len(found)


def test_width_one_is_greedy() -> None:
    words = list(itertools.product(LETTERS, repeat=3))
    model = Model(5)
    greedy: Tokens = ()
    while len(greedy) < 3:
        likely = model.next(greedy)
        greedy = (*greedy, max(LETTERS, key=lambda token: likely[token]))
    assert [beam.tokens for beam in _search(model, words, 1)] == [greedy]


def test_a_wider_beam_is_never_less_likely_in_the_end() -> None:
    words = list(itertools.product(LETTERS, repeat=LENGTH))
    for seed in range(20):
        model = Model(seed)
        ranks = [_search(model, words, width)[0].rank for width in (1, 81)]
        assert ranks[1] >= ranks[0] - 1e-12


def test_what_is_forced_asks_no_model() -> None:
    model = Model(1)
    (beam,) = _search(model, [(1, 2, 3, 1)], 3)
    assert beam.log_probability == 0.0 and model.asked == 0


def test_no_end_in_time_gives_nothing() -> None:
    work = beam_search(Model(1).score, Words([(1, 2, 3, 1)]), frozenset({END}), 2, 3)
    assert asyncio.run(work) == []
