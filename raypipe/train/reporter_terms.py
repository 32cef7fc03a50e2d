"""Where medical terms stand in a text: what a report model must not get wrong.

In: a text, the terminology of its language. Out: spans of characters.
Does not know: tokens, losses.

Terms are findings, sides, levels, sizes and negation: the facts by which reports are compared.
"""

import re
from collections.abc import Iterable
from functools import cache

from raypipe.knowledge.patterns import any_of
from raypipe.knowledge.terminology import Terminology

_VERTEBRA = r"\b(?:C[1-7]|T(?:[1-9]|1[0-2])|L[1-5]|S[1-5])\b"

Span = tuple[int, int]


def term_spans(text: str, terminology: Terminology) -> list[Span]:
    """Half-open spans of the terms of a text, by their start; they may overlap."""
    spans = [match.span() for match in _patterns(terminology).finditer(text)]
    start = 0
    for line in text.splitlines(keepends=True):
        for mention in terminology.read(line).mentions:
            spans.append((start + mention.start, start + mention.end))
        start += len(line)
    return sorted(spans)


@cache
def _patterns(terminology: Terminology) -> re.Pattern[str]:
    """Everything but findings."""
    language, reading = terminology.language, terminology.language.reading
    number = rf"\d+(?:{re.escape(language.decimal)}\d+)?"
    units = "|".join(word for words in reading.units.values() for word in words)
    words: Iterable[str] = (
        *reading.negation_before,
        *reading.negation_after,
        *(word for words in reading.sides.values() for word in words),
    )
    levels = any_of(terminology.level_name(level) for level in terminology.levels).pattern
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return re.compile(
        rf"{number}[\s-]*(?:{units})\b|{levels}|(?-i:{_VERTEBRA})|\b(?:{'|'.join(longest_first)})\b",
        re.I,
    )
