"""Reading: what one sentence states, by the words of a language.

In: a sentence. Out: a Statement: findings with negation and doubt, sides, levels, organs, sizes in
mm, attenuation, properties, comparison, counts, and every word that could not be read.
Does not know: where names come from, reports, what is true.

What is read is blanked out step by step, so that no word counts twice: "ground-glass opacity" is
a name and states no density.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from raypipe.knowledge.language import Change, Language

_VERTEBRA = r"(?:C[1-7]|T(?:[1-9]|1[0-2])|L[1-5]|S[1-5])"
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_DIGITS = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?")
_BLANK = "_"


@dataclass(frozen=True)
class Mention:
    """A finding that a sentence names.

    Args:
        label: key of the finding.
        start: first character in the sentence.
        end: one past the last.
        negated: whether the sentence denies it.
        uncertain: whether the sentence doubts it.
    """

    label: str
    start: int
    end: int
    negated: bool = False
    uncertain: bool = False


@dataclass(frozen=True, kw_only=True)
class Statement:
    """All that one sentence states.

    Args:
        mentions: findings, in order of the text.
        sides: of left, right, midline; left and right for "bilateral".
        levels: names of anatomical levels, as the knowledge graph has them.
        organs: keys of organs.
        measures_mm: the numbers of each size, in mm: (12.0,) or (30.0, 40.0).
        prior_mm: the same of sizes of an earlier study.
        hu: every number that is an attenuation.
        attributes: attribute -> values named.
        changes: comparisons with an earlier study.
        counts: numbers that are neither a size nor an attenuation.
        negates: whether anything is denied.
        doubts: whether anything is doubted.
        unread: words that state nothing known, in lower case.
    """

    mentions: tuple[Mention, ...] = ()
    sides: frozenset[str] = frozenset()
    levels: frozenset[str] = frozenset()
    organs: frozenset[str] = frozenset()
    measures_mm: tuple[tuple[float, ...], ...] = ()
    prior_mm: tuple[tuple[float, ...], ...] = ()
    hu: tuple[float, ...] = ()
    attributes: Mapping[str, frozenset[str]]
    changes: frozenset[Change] = frozenset()
    counts: tuple[float, ...] = ()
    negates: bool = False
    doubts: bool = False
    unread: tuple[str, ...] = ()

    @property
    def sizes_mm(self) -> tuple[float, ...]:
        """The largest number of each size, in mm."""
        return tuple(max(numbers) for numbers in self.measures_mm)

    def labels(self, *, negated: bool = False) -> frozenset[str]:
        """Labels that are claimed, or those that are denied."""
        return frozenset(m.label for m in self.mentions if m.negated == negated)


class Reader:
    """Reads sentences of one language.

    Args:
        language: its words.
        labels: every name of a finding in lower case -> its label.
        organs: every name of an organ in lower case -> its key.
        levels: every name of a level -> the level as the knowledge graph has it.
    """

    def __init__(
        self,
        language: Language,
        labels: Mapping[str, str],
        organs: Mapping[str, str],
        levels: Mapping[str, str],
    ) -> None:
        self._language = language
        self._labels, self._organs = labels, organs
        self._levels = {name.lower(): level for name, level in levels.items()}

    def read(self, sentence: str) -> Statement:
        """The facts that a sentence states."""
        words, rest = self._words, sentence
        mentions = tuple(self._mentions(sentence))
        for mention in mentions:
            rest = _blanked(rest, mention.start, mention.end)
        changes = frozenset(c for c, pattern in words.changes.items() if pattern.search(rest))
        negates = self._denies(rest)
        prior, rest = _take(words.prior, rest)
        sizes, rest = _take(words.size, rest)
        hu, rest = _take(words.hu, rest)
        levels, rest = _take(words.levels, rest)
        organs, rest = _take(words.organs, rest)
        adjectives, rest = _take(words.adjectives, rest)
        attributes: dict[str, set[str]] = {}
        for match in adjectives:
            name, value = words.value_of[match.group().lower()]
            attributes.setdefault(name, set()).add(value)
        sides, rest = self._take_sides(rest)
        for pattern in words.changes.values():
            rest = _take(pattern, rest)[1]
        doubts, rest = _take(words.doubt, rest)
        for negation in (words.not_negation, words.before, words.after):
            rest = _take(negation, rest)[1] if negation is not None else rest
        counts, unread = self._left_over(rest)
        return Statement(
            mentions=mentions,
            sides=sides,
            levels=frozenset(self._levels.get(m.group().lower(), m.group()) for m in levels),
            organs=frozenset(self._organs[m.group().lower()] for m in organs),
            measures_mm=tuple(self._measure(m) for m in sizes),
            prior_mm=tuple(self._measure(m) for m in prior),
            hu=tuple(self._number(m.group("hu").replace("\u2212", "-")) for m in hu),
            attributes={name: frozenset(values) for name, values in attributes.items()},
            changes=changes,
            counts=counts,
            negates=negates,
            doubts=bool(doubts),
            unread=unread,
        )

    def _mentions(self, sentence: str) -> Iterable[Mention]:
        words, plain = self._words, sentence
        if words.not_negation is not None:  # its length stays, so places do too
            plain = _take(words.not_negation, sentence)[1]
        for match in words.names.finditer(sentence):
            start, end = 0, len(sentence)
            for border in words.clause_end.finditer(sentence) if words.clause_end else ():
                if border.end() <= match.start():
                    start = border.end()
                elif border.start() >= match.end():
                    end = border.start()
                    break
            before, after = plain[start : match.start()], plain[match.end() : end]
            denied = words.before.search(before) or (words.after and words.after.search(after))
            yield Mention(
                label=self._labels[match.group().lower()],
                start=match.start(),
                end=match.end(),
                negated=bool(denied),
                uncertain=words.doubt.search(sentence[start:end]) is not None,
            )

    def _denies(self, rest: str) -> bool:
        words = self._words
        if words.not_negation is not None:
            rest = _take(words.not_negation, rest)[1]
        return any(p.search(rest) for p in (words.before, words.after) if p is not None)

    def _take_sides(self, rest: str) -> tuple[frozenset[str], str]:
        sides: set[str] = set()
        for side, pattern in self._words.sides.items():
            found, rest = _take(pattern, rest)
            if found:
                sides |= {"left", "right"} if side == "both" else {side}
        return frozenset(sides), rest

    def _left_over(self, rest: str) -> tuple[tuple[float, ...], tuple[str, ...]]:
        """Counts, and words that state nothing known."""
        language = self._language.reading
        numbers = {word: float(n) for n, word in enumerate(language.counts, start=1)}
        found = [self._number(m.group()) for m in _DIGITS.finditer(rest)]
        unread = []
        for match in _WORD.finditer(rest.replace(_BLANK, " ")):
            word = match.group().lower()
            if word in numbers:
                found.append(numbers[word])
            elif word not in self._words.plain:
                unread.append(word)
        return tuple(found), tuple(unread)

    def _measure(self, match: re.Match[str]) -> tuple[float, ...]:
        """The numbers of a size in mm; a unit behind one number holds for those without."""
        groups = match.groupdict()
        units = [groups.get(f"u{i}") for i in range(3)]
        last = next(unit for unit in (groups["unit"], *reversed(units)) if unit)
        sizes = []
        for i in range(3):
            if groups.get(f"n{i}"):
                factor = 10.0 if self._is_cm(units[i] or last) else 1.0
                sizes.append(self._number(groups[f"n{i}"]) * factor)
        return tuple(sizes)

    def _is_cm(self, unit: str) -> bool:
        return self._words.cm.fullmatch(unit) is not None

    def _number(self, text: str) -> float:
        return float(text.replace(",", ".") if self._language.decimal == "," else text)

    @cached_property
    def _words(self) -> "_Words":
        return _Words(self._language, self._labels, self._organs, self._levels)


class _Words:
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
        self.plain = frozenset(word.lower() for word in reading.plain)
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
            rf"(?<![\w.,])(?P<hu>[-\u2212]?{number})\s*(?:{'|'.join(reading.hu)})\b", re.I
        )
        self.value_of = {
            words.lower(): (name, value)
            for name, values in language.adjectives.items()
            for value, words in values.items()
        }
        for value in language.adjectives.get("margin", {}) if language.margins else ():
            told = language.margins.format(value=value.replace("_", "-"))
            self.value_of[told] = ("margin", value)
        self.adjectives = any_of(self.value_of)


_PUNCTUATION = re.compile(r"\\[.?]|\[;|^;$")
"""Marks in a pattern, which have no border of a word beside them."""


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


def _blanked(text: str, start: int, end: int) -> str:
    return f"{text[:start]}{_BLANK * (end - start)}{text[end:]}"


def _take(pattern: re.Pattern[str], text: str) -> tuple[list[re.Match[str]], str]:
    """Every match, and the text without them; its length stays."""
    found = list(pattern.finditer(text))
    for match in found:
        text = _blanked(text, match.start(), match.end())
    return found, text
