"""The wording that reads best among those that a request admits: what a report model shall learn.

In: a ReportPlan. Out: the text of its two sections, one that the grammar of its request accepts.
Does not know: language models, requests, how findings were drawn.

The choice follows from the plan alone, so that it can be learnt: openings and verbs change from
sentence to sentence, the size stands now before the name and now behind, at most one property in a
row stands before the name, and the attenuation is told where it tells something (not in the lung).
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from raypipe.report.phrase import OneOf, Phrase, Seq
from raypipe.report.plan import Fact, ReportPlan
from raypipe.report.sections import Slot, findings_slots, impression_slots

_MOST_TEXTS = 4096
"""Wordings of one sentence that are looked at; no sentence has as many."""
_VERBS = re.compile(r"\b(?:is|are) (?:seen|present|identified|visible|noted)\b|\bthere is\b", re.I)
_LONG_SIZE = "in longest axial diameter"
_AERATED = "lung"


@dataclass(frozen=True, kw_only=True)
class _Before:
    """What a sentence is read behind.

    Args:
        lines: of its section.
        above: of the section before.
        verbs: how often each was used in its section.
        long_size: whether a size was told in full words.
    """

    lines: tuple[str, ...]
    above: frozenset[str]
    verbs: Counter[str]
    long_size: bool


def best_text(plan: ReportPlan) -> str:
    """The two sections of a report in the wording that reads best."""
    language = plan.terminology.language
    findings = _section(plan, findings_slots(plan), ())
    impression = _section(plan, impression_slots(plan), findings)
    return "\n".join([language.findings_header, *findings, language.impression_header, *impression])


def _section(plan: ReportPlan, slots: Sequence[Slot], above: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for slot in slots:
        facts = [plan.facts[finding_id] for finding_id in slot.finding_ids]
        before = _Before(
            lines=tuple(lines),
            above=frozenset(above),
            verbs=Counter(verb for line in lines for verb in _verbs(line)),
            long_size=any(_LONG_SIZE in line for line in lines),
        )
        options = islice(texts(slot.phrase), _MOST_TEXTS)
        costs = [(_cost(plan, text, facts, before), text) for text in options]
        lines.append(min(costs, key=lambda pair: pair[0])[1])  # the first of equals
    return lines


def texts(phrase: Phrase) -> Iterator[str]:
    """Every text of a phrase, the preferred ones first."""
    match phrase:
        case str():
            yield phrase
        case OneOf(options):
            for option in options:
                yield from texts(option)
        case Seq(parts):
            for chosen in product(*(list(texts(part)) for part in parts)):
                yield "".join(chosen)


def _cost(plan: ReportPlan, text: str, facts: Sequence[Fact], before: _Before) -> float:
    """How badly a sentence reads behind others; ties go to the first option."""
    cost = 0.01 * len(text) + 5.0 * (text in before.above)
    cost += sum(1.0 * before.verbs[verb] for verb in _verbs(text))
    if before.lines and _opening(text) == _opening(before.lines[-1]):
        cost += 3.0
    if _LONG_SIZE in text:
        cost += 3.0 if before.long_size else -0.5
    if facts:
        cost += 1.0 * _name_index(text, facts)
    if len(facts) == 1:
        cost += _fact_cost(plan, text, facts[0], even=len(before.lines) % 2 == 0)
    return cost


def _name_index(text: str, facts: Sequence[Fact]) -> int:
    """Which of the names of a kind stands in a text; 0 is the preferred one."""
    names = facts[0].term.written if len(facts) == 1 else facts[0].term.plurals
    read = text.lower()
    return next((i for i, name in enumerate(names) if name.lower() in read), 0)


def _fact_cost(plan: ReportPlan, text: str, fact: Fact, *, even: bool) -> float:
    """The part of one finding: size, properties, attenuation."""
    cost, read = 0.0, text.lower()
    name = fact.term.written[_name_index(text, (fact,))]
    name_at = max(read.find(name.lower()), 0)
    adjectives = [words for _, _, words in fact.adjectives if words in read[:name_at]]
    cost += 1.0 * max(len(adjectives) - 1, 0)
    if fact.size_mm is not None:
        leads = 0 <= read.find(plan.terminology.size_text(fact.size_mm)) < name_at
        cost += 1.0 * (leads != even)
    if fact.hu is not None:
        told = plan.terminology.hu_text(fact.hu) in text
        cost += 2.0 * (told == (fact.organ_key == _AERATED))
    return cost


def _verbs(text: str) -> list[str]:
    return [verb.lower() for verb in _VERBS.findall(text)]


def _opening(text: str) -> str:
    """The first words up to what differs anyway: articles count as one."""
    first = text.lower().split(maxsplit=2)[:2]
    return "a" if first[0] in ("a", "an") else " ".join(first)
