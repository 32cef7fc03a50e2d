import random

from hypothesis import given
from hypothesis import strategies as st
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from raypipe.report.phrase import (
    OneOf,
    Phrase,
    Seq,
    ebnf,
    first,
    longest_bytes,
    maybe,
    one_of,
    pick,
    seq,
)

_LETTERS = st.text(alphabet='ab"\\\n é', max_size=4)
PHRASES: st.SearchStrategy[Phrase] = st.recursive(
    _LETTERS,
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda x: OneOf(tuple(x)))
        | st.lists(inner, max_size=3).map(lambda x: Seq(tuple(x)))
    ),
    max_leaves=8,
)


@given(PHRASES, st.randoms(use_true_random=False))
def test_the_grammar_accepts_every_text_of_a_phrase(phrase: Phrase, rng: random.Random) -> None:
    grammar = Grammar.from_ebnf(ebnf(phrase))
    text = pick(phrase, rng.randrange)
    assert _is_grammar_accept_string(grammar, text)
    assert len(text.encode()) <= longest_bytes(phrase)
    assert not _is_grammar_accept_string(grammar, f"{'c' * longest_bytes(phrase)}c")


def test_the_first_text_is_the_template() -> None:
    phrase = seq("a", one_of("b", "c"), maybe("d"))
    assert first(phrase) == "ab"
    assert longest_bytes(phrase) == 3
    assert {pick(phrase, random.Random(seed).randrange) for seed in range(40)} == {
        "ab",
        "abd",
        "ac",
        "acd",
    }


def test_equal_options_are_one() -> None:
    assert one_of("a", "a") == "a"
    assert ebnf(seq(one_of("a", "b"), one_of("a", "b"))).count("::=") == 2
