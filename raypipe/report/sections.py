"""The sections of a report: which sentences, in which order, about which findings.

In: a ReportPlan. Out: for each sentence the ids that it has to cite and every wording that it may
have; the wording of a language. Does not know: words of any language, grammars, engines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raypipe.knowledge.terminology import Term, Terminology
from raypipe.report import wording as english
from raypipe.report.pattern_wording import PatternWording
from raypipe.report.phrase import Phrase, one_of, seq
from raypipe.report.plan import Fact, ReportPlan, in_order
from raypipe.types import SeriesContext


class Wording(Protocol):
    """How one language puts facts into sentences."""

    def finding_sentence(self, fact: Fact) -> Phrase:
        """One sentence about one finding."""

    def denied_sentence(self, terms: Sequence[Term]) -> Phrase:
        """That some findings were looked for and not detected."""

    def counted_sentence(self, facts: Sequence[Fact]) -> str:
        """The sentence about findings that are not told one by one."""

    def impression_line(self, group: Sequence[Fact]) -> Phrase:
        """One line about all findings of one kind."""

    def nothing_found(self) -> tuple[str, ...]:
        """What an impression says where nothing was detected."""

    def rest_above(self) -> str:
        """That an impression does not name all findings."""

    def technique(self, context: SeriesContext) -> str:
        """How the series was acquired and read."""


@dataclass(frozen=True)
class Slot:
    """One sentence that a report has to hold.

    Args:
        finding_ids: that it cites, in order; none for a statement without findings.
        phrase: every wording; the first text is the fixed wording.
        full: whether it states level and properties too; a line of the impression need not.
    """

    finding_ids: tuple[str, ...]
    phrase: Phrase
    full: bool


def wording_of(terminology: Terminology) -> Wording:
    """The wording of a language: own code for English, patterns of its file for any other."""
    language = terminology.language
    if language.patterns is None or language.technique is None:
        return english
    return PatternWording(terminology, language.patterns, language.technique)


def findings_slots(plan: ReportPlan) -> list[Slot]:
    """The sentences of the findings that a language model writes, in order."""
    wording = wording_of(plan.terminology)
    slots = [Slot((f.finding_id,), wording.finding_sentence(f), full=True) for f in plan.told]
    if plan.denied:
        slots.append(Slot((), wording.denied_sentence(plan.denied), full=True))
    return slots or [Slot((), one_of(*wording.nothing_found()), full=True)]


def impression_slots(plan: ReportPlan) -> list[Slot]:
    """The lines of the impression, in order."""
    wording = wording_of(plan.terminology)
    if not plan.told:
        return [Slot((), one_of(*wording.nothing_found()), full=False)]
    slots = [
        Slot(in_order(group), wording.impression_line(group), full=False)
        for group in plan.impression
    ]
    named = sum(len(group) for group in plan.impression)
    if named < len(plan.told) + len(plan.counted):
        slots.append(Slot((), wording.rest_above(), full=False))
    return slots


def report_phrase(plan: ReportPlan) -> Phrase:
    """Every text that a language model may write for a plan."""
    language = plan.terminology.language
    return seq(
        _section(language.findings_header, findings_slots(plan)),
        "\n",
        _section(language.impression_header, impression_slots(plan)),
    )


def _section(header: str, slots: Sequence[Slot]) -> Phrase:
    return seq(header, *(part for slot in slots for part in ("\n", slot.phrase)))
