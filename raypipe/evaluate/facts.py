"""The facts of a report, and how those of two reports differ.

In: text and a terminology, or the findings that a report was made from. Out: facts by finding, and
counts of facts that are right, invented, left out or told otherwise.
Does not know: systems, intervals, how text is written.

A fact is one of: a finding is there; it is denied; its side; its level; its size. Facts of one
kind of finding are taken together over all sentences of a report, so a report that swaps two
findings of one kind is told by the pairs of side and size alone.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from raypipe.knowledge.statement import Statement
from raypipe.knowledge.terminology import Terminology

CITATION = re.compile(r"\[F\d+(?:-F\d+)?\]")
"""How a sentence cites findings by their ids."""


@dataclass(frozen=True)
class Size:
    """A length and the side that the same sentence names, None where it names none or two."""

    mm: float
    side: str | None = None

    def agrees(self, other: "Size", tolerance_mm: float) -> bool:
        """Whether both may be the same: equal up to the tolerance, and not on other sides."""
        apart = None not in (self.side, other.side) and self.side != other.side
        return not apart and math.isclose(self.mm, other.mm, rel_tol=0.0, abs_tol=tolerance_mm)


@dataclass(frozen=True)
class Told:
    """What a report says of all findings of one kind."""

    sides: frozenset[str] = frozenset()
    levels: frozenset[str] = frozenset()
    sizes: tuple[Size, ...] = ()

    def joined(self, other: "Told") -> "Told":
        """Both together."""
        return Told(
            self.sides | other.sides,
            self.levels | other.levels,
            tuple(dict.fromkeys((*self.sizes, *other.sizes))),
        )


@dataclass(frozen=True)
class ReportFacts:
    """The facts of one report.

    Args:
        told: label -> what is said of it, of findings that are there.
        denied: labels that are said not to be there.
        complete: whether every finding that is not told is known not to be there.
    """

    told: Mapping[str, Told] = field(default_factory=dict)
    denied: frozenset[str] = frozenset()
    complete: bool = False


@dataclass(frozen=True, kw_only=True)
class FactCounts:
    """Counts over one report, of a text against the truth.

    Args:
        stated: facts that the text states.
        stated_right: of these, those that the truth holds.
        known: facts that the truth holds.
        known_told: of these, those that the text states.
        claimed: findings that the text says are there.
        invented: of these, those that are not in the truth.
        present: findings that are there.
        omitted: of these, those that the text does not name.
        sided: findings of both whose side both tell.
        side_wrong: of these, those with a side that the truth lacks.
        sized: sizes told of findings whose size is known.
        size_wrong: of these, those that no known size agrees with.
        levelled: findings of both whose level both tell.
        level_wrong: of these, those with a level that the truth lacks.
        reports_inventing: 1 where anything is invented.
        reports: always 1.
    """

    stated: int
    stated_right: int
    known: int
    known_told: int
    claimed: int
    invented: int
    present: int
    omitted: int
    sided: int
    side_wrong: int
    sized: int
    size_wrong: int
    levelled: int
    level_wrong: int
    reports_inventing: int
    reports: int = 1

    def row(self) -> list[int]:
        """The counts in the order of COUNTS."""
        return [getattr(self, name) for name in COUNTS]


COUNTS = tuple(each.name for each in fields(FactCounts))

RATES = {
    "fact_precision": ("stated_right", "stated"),
    "fact_recall": ("known_told", "known"),
    "hallucination_rate": ("invented", "claimed"),
    "hallucinating_reports": ("reports_inventing", "reports"),
    "omission_rate": ("omitted", "present"),
    "side_error_rate": ("side_wrong", "sided"),
    "level_error_rate": ("level_wrong", "levelled"),
    "size_error_rate": ("size_wrong", "sized"),
}
"""Measure -> the counts that it divides."""


def read_facts(text: str, terminology: Terminology) -> ReportFacts:
    """The facts that a text states; a finding both told and denied counts as told."""
    told: dict[str, Told] = {}
    denied: set[str] = set()
    for _, statement in terminology.read_text(CITATION.sub("", text)):
        denied |= statement.labels(negated=True)
        labels = statement.labels()
        here = _told(statement, alone=len(labels) == 1)
        for label in labels:
            told[label] = told[label].joined(here) if label in told else here
    return ReportFacts(told, frozenset(denied - set(told)))


def _told(statement: Statement, *, alone: bool) -> Told:
    """What a sentence says of its finding; of several findings it may mean any, so nothing."""
    if not alone:
        return Told()
    side = next(iter(statement.sides)) if len(statement.sides) == 1 else None
    sizes = tuple(Size(mm, side) for mm in statement.sizes_mm)
    return Told(statement.sides, statement.levels, sizes)


def known_facts(
    findings: Iterable[tuple[str, str | None, str | None, float | None]],
) -> ReportFacts:
    """The facts of the findings that a report was made from.

    Args:
        findings: label, side, level, size in mm; None where not known.
    """
    told: dict[str, Told] = {}
    for label, side, level, size_mm in findings:
        one = Told(
            frozenset({side} if side else ()),
            frozenset({level} if level else ()),
            () if size_mm is None else (Size(size_mm, side),),
        )
        told[label] = told[label].joined(one) if label in told else one
    return ReportFacts(told, complete=True)


def compare_facts(text: ReportFacts, truth: ReportFacts, tolerance_mm: float) -> FactCounts:
    """Count what a text has right, invents, leaves out and tells otherwise."""
    invented = set(text.told) - set(truth.told)
    both = sorted(set(text.told) & set(truth.told))
    pairs = [(text.told[label], truth.told[label]) for label in both]
    sided = [(a.sides, b.sides) for a, b in pairs if a.sides and b.sides]
    levelled = [(a.levels, b.levels) for a, b in pairs if a.levels and b.levels]
    sized = [(size, b.sizes) for a, b in pairs if b.sizes for size in a.sizes]
    stated, stated_right = _held(text, truth, tolerance_mm)
    known, known_told = _held(truth, text, tolerance_mm)
    return FactCounts(
        stated=stated,
        stated_right=stated_right,
        known=known,
        known_told=known_told,
        claimed=len(text.told),
        invented=len(invented),
        present=len(truth.told),
        omitted=len(set(truth.told) - set(text.told)),
        sided=len(sided),
        side_wrong=sum(bool(a - b) for a, b in sided),
        sized=len(sized),
        size_wrong=sum(not _any_agrees(a, b, tolerance_mm) for a, b in sized),
        levelled=len(levelled),
        level_wrong=sum(bool(a - b) for a, b in levelled),
        reports_inventing=int(bool(invented)),
    )


def _held(one: ReportFacts, other: ReportFacts, tolerance_mm: float) -> tuple[int, int]:
    """Facts of one report, and how many of them the other holds too."""
    denied = [
        label in other.denied or (other.complete and label not in other.told)
        for label in one.denied
    ]
    held = list(denied)
    for label, told in one.told.items():
        there = other.told.get(label)
        held.append(there is not None)
        known = there or Told()
        held += [side in known.sides for side in told.sides]
        held += [level in known.levels for level in told.levels]
        held += [_any_agrees(size, known.sizes, tolerance_mm) for size in told.sizes]
    return len(held), sum(held)


def _any_agrees(size: Size, others: Iterable[Size], tolerance_mm: float) -> bool:
    return any(size.agrees(other, tolerance_mm) for other in others)
