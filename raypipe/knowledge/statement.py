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
from raypipe.knowledge.patterns import TWINS, Words, folded

_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_DIGITS = re.compile(r"(?<![\w.,])\d+(?:[.,]\d+)?")
_SIGN = re.compile(r"[^\w\s.,;:!?()\[\]/'\"\u2018-\u201e\u2010-\u2015\u2212-]")
"""Signs beside punctuation, such as those of "<12 mm" and "~12 mm"."""
_LARGEST = 1e9
"""No number of a report is larger; a row of digits without end is read as this one."""
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
        several: whether its name is a plural.
    """

    label: str
    start: int
    end: int
    negated: bool = False
    uncertain: bool = False
    several: bool = False


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
        unread: words that state nothing known, in lower case, and signs.
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
        plurals: names of findings that are plurals and no singulars.
    """

    def __init__(
        self,
        language: Language,
        labels: Mapping[str, str],
        organs: Mapping[str, str],
        levels: Mapping[str, str],
        plurals: Iterable[str] = (),
    ) -> None:
        self._language = language
        self._labels, self._organs = _by_folded(labels), _by_folded(organs)
        self._levels = _by_folded(levels)
        self._plurals = frozenset(map(folded, plurals))

    def read(self, sentence: str) -> Statement:
        """The facts that a sentence states."""
        # "_" marks what was read, and marks of emphasis part no words
        words, rest = self._words, sentence.replace(_BLANK, " ").translate(TWINS)
        mentions = tuple(self._mentions(rest))
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
            name, value = words.value_of[folded(match.group())]
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
            levels=frozenset(self._levels.get(folded(m.group()), m.group()) for m in levels),
            organs=frozenset(self._organs[folded(m.group())] for m in organs),
            measures_mm=tuple(self._measure(m) for m in sizes),
            prior_mm=tuple(self._measure(m) for m in prior),
            hu=tuple(self._number(m.group("hu")) * (-1 if m.group("minus") else 1) for m in hu),
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
            name = folded(match.group())
            yield Mention(
                label=self._labels[name],
                start=match.start(),
                end=match.end(),
                negated=bool(denied),
                uncertain=words.doubt.search(sentence[start:end]) is not None,
                several=name in self._plurals,
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
        """Counts, and words and signs that state nothing known."""
        language = self._language.reading
        numbers = {folded(word): float(n) for n, word in enumerate(language.counts, start=1)}
        found = [self._number(m.group()) for m in _DIGITS.finditer(rest)]
        unread = []
        for match in _WORD.finditer(rest.replace(_BLANK, " ")):
            word = match.group().lower()
            if word in numbers:
                found.append(numbers[word])
            elif word not in self._words.plain:
                unread.append(word)
        return tuple(found), (*unread, *_SIGN.findall(rest))

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
        """A number; behind the sign that is not the language's stand thousands or decimals."""
        decimal = self._language.decimal
        whole, mark, rest = text.partition("," if decimal == "." else ".")
        if mark:
            text = whole + rest if len(rest) == 3 else f"{whole}.{rest}"
        return min(float(text.replace(decimal, ".")), _LARGEST)

    @cached_property
    def _words(self) -> Words:
        return Words(self._language, self._labels, self._organs, self._levels)


def _blanked(text: str, start: int, end: int) -> str:
    return f"{text[:start]}{_BLANK * (end - start)}{text[end:]}"


def _take(pattern: re.Pattern[str], text: str) -> tuple[list[re.Match[str]], str]:
    """Every match, and the text without them; its length stays."""
    found = list(pattern.finditer(text))
    for match in found:
        text = _blanked(text, match.start(), match.end())
    return found, text


def _by_folded(named: Mapping[str, str]) -> dict[str, str]:
    return {folded(name): key for name, key in named.items()}
