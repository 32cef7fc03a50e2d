"""The words of a language as patterns.

In: the words of a language, names of findings, organs and levels. Out: compiled patterns.
Does not know: sentences, what a match states.
"""

import re
from collections.abc import Iterable, Mapping

from raypipe.knowledge.language import Language

_VERTEBRA = r"(?:C[1-7]|T(?:[1-9]|1[0-2])|L[1-5]|S[1-5])"
TWINS = str.maketrans("\u0130\u0131\u017f", "Iis")
"""Letters that match another one whatever the case, and whose lower case is not that one's."""


class Words:
    """The words of a language as patterns, compiled once."""

    def __init__(
        self,
        language: Language,
        labels: Mapping[str, str],
        organs: Mapping[str, str],
        levels: Mapping[str, str],
    ) -> None:
        reading = language.reading
        self.names, self.organs = any_of(labels), any_of(organs)
        self.levels = re.compile(rf"\b(?:(?i:{_joined(levels)})|{_VERTEBRA})\b")
        self.before, self.doubt = _phrases(reading.negation_before), _phrases(reading.doubt)
        self.after = _phrases(reading.negation_after) if reading.negation_after else None
        self.not_negation = _phrases(reading.not_negation) if reading.not_negation else None
        self.clause_end = _phrases(reading.clause_end) if reading.clause_end else None
        self.changes = {change: _phrases(words) for change, words in reading.change.items()}
        self.sides = {side: _phrases(words) for side, words in reading.sides.items()}
        self.plain = frozenset(map(folded, reading.plain))
        self.cm = re.compile("|".join(reading.units["cm"]), re.I)
        number = rf"\d+(?:{re.escape(language.decimal)}\d+)?"
        unit = "|".join(word for words in reading.units.values() for word in words)
        by = "|".join(reading.by)
        size = (
            rf"(?<![\w.,-])(?P<n0>{number})(?:[\s-]*(?P<u0>{unit}))?"
            rf"(?:\s*(?:{by})\s*(?P<n1>{number})(?:[\s-]*(?P<u1>{unit}))?)?"
            rf"(?:\s*(?:{by})\s*(?P<n2>{number})(?:[\s-]*(?P<u2>{unit}))?)?"
            rf"[\s-]*(?P<unit>{unit})\b"
        )
        self.size = re.compile(size, re.I)
        self.prior = re.compile(rf"\b(?:{'|'.join(reading.prior)})\s+(?:\w+\s+)?{size}", re.I)
        self.hu = re.compile(
            rf"(?:(?<![\w.,])(?<!\d\s)(?P<minus>[-\u2212\u2013])\s?|(?<![\w.,]))"
            rf"(?P<hu>{number})\s*(?:{'|'.join(reading.hu)})\b",
            re.I,
        )
        self.value_of = {
            folded(words): (name, value)
            for name, values in language.adjectives.items()
            for value, words in values.items()
        }
        for value in language.adjectives.get("margin", {}) if language.margins else ():
            told = language.margins.format(value=value.replace("_", "-"))
            self.value_of[folded(told)] = ("margin", value)
        self.adjectives = any_of(self.value_of)


_PUNCTUATION = re.compile(r"\\[.?]|\[;|^;$")
"""Marks in a pattern, which have no border of a word beside them."""


def folded(text: str) -> str:
    """In lower case, of the same length, and equal where a pattern sees no difference."""
    return text.translate(TWINS).lower()


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Any of the words, whole; the longest first."""
    return re.compile(rf"(?<![\w-])(?:{_joined(words)})(?![\w-])", re.I)


def _joined(words: Iterable[str]) -> str:
    longest_first = sorted(words, key=lambda word: (-len(word), word))
    return "|".join(map(re.escape, longest_first)) or r"(?!)"


def _phrases(patterns: Iterable[str]) -> re.Pattern[str]:
    """Any of some patterns, the longest first; those of letters as whole words."""
    longest_first = sorted(patterns, key=lambda pattern: (-len(pattern), pattern))
    words = [p for p in longest_first if not _PUNCTUATION.search(p)]
    marks = [p for p in longest_first if _PUNCTUATION.search(p)]
    whole = [rf"\b(?:{'|'.join(words)})\b"] if words else []
    return re.compile("|".join([*whole, *marks]), re.I)
