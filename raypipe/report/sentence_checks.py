"""What is wrong with one sentence of a report: invented, missing or different facts.

In: a ReportPlan and a sentence. Out: problems in words, none where the sentence is true.
Does not know: sections, engines, how a sentence is mended.

A sentence is true where all that it states is a fact of the findings that it cites, all that it has
to state is there, and no word is left that cannot be read.
"""

import re
from collections.abc import Callable, Sequence

from raypipe.knowledge.statement import Statement
from raypipe.report.plan import Fact, ReportPlan, in_order
from raypipe.report.sections import wording_of

_CITATION = re.compile(r"\[F([1-9]\d{0,4})(?:-F([1-9]\d{0,4}))?\]", re.ASCII)
_RANGE_LIMIT = 10_000
_ROUNDED = 0.5 + 1e-6
"""How far a number that is written may lie from the one that was measured."""


def cited_ids(text: str) -> list[str]:
    """Finding ids that a sentence cites, in order; a range names all within it."""
    ids: list[str] = []
    for match in _CITATION.finditer(text):
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        ids += [f"F{n}" for n in range(low, min(high, low + _RANGE_LIMIT) + 1)]
    return ids


def stated_by(plan: ReportPlan, text: str) -> Statement:
    """What a sentence states beside its citations."""
    return plan.terminology.read(_CITATION.sub("", text))


def sentence_problems(plan: ReportPlan, text: str, *, full: bool) -> list[str]:
    """What is wrong with one sentence.

    Args:
        plan: what the report has to say.
        text: the sentence.
        full: whether it has to state level and properties too; a line of the impression, which
            need not, says nothing of what was not detected.
    """
    ids = cited_ids(text)
    facts = [plan.facts[i] for i in ids if i in plan.facts]
    if len(facts) < len(ids):
        return ["cites a finding that there is not"]
    if not facts:
        return _problems_without_findings(plan, text, full)
    wording = wording_of(plan.terminology)
    if tuple(ids) == in_order(plan.counted) and text == wording.counted_sentence(plan.counted):
        return []
    stated = stated_by(plan, text)
    problems = _problems_of_any(stated) + _problems_of_names(facts, stated)
    if len(facts) == 1:
        return problems + _problems_of_one(plan, facts[0], stated, full)
    return problems + _problems_of_group(plan, facts, stated)


def _problems_of_any(stated: Statement) -> list[str]:
    """What no sentence may hold."""
    problems = []
    if stated.unread:
        problems.append("says something that cannot be read")
    if stated.changes or stated.prior_mm:
        problems.append("compares with an earlier study")
    return problems


def _problems_without_findings(plan: ReportPlan, text: str, full: bool) -> list[str]:
    """The sections end in other statements: one denies, or says that there is nothing at all; the
    other says that there is nothing, or that more was said above.
    """
    wording = wording_of(plan.terminology)
    if text in wording.nothing_found():
        if plan.facts:
            return ["says that there is nothing where there are findings"]
        return ["does not name what was not detected"] if full and plan.denied else []
    if text == wording.rest_above():
        named = sum(len(group) for group in plan.impression)
        right = not full and named < len(plan.facts)
        return [] if right else ["speaks of further findings where there are none"]
    stated = stated_by(plan, text)
    problems = _problems_of_any(stated)
    if not full:
        problems.append("is no statement of an impression")
    if not stated.mentions and not stated.unread:
        problems.append("says something that cannot be read")
    if stated.labels():
        problems.append("claims a finding without citing one")
    denied = stated.labels(negated=True)
    if denied - {term.label for term in plan.denied}:
        problems.append("denies a finding that was not looked for or was seen")
    if {term.label for term in plan.denied} - denied:
        problems.append("does not name what was not detected")
    if stated.doubts:
        problems.append("doubts what was not detected")
    measured = (stated.measures_mm, stated.hu, stated.counts)
    placed = (stated.sides, stated.levels, stated.organs, stated.attributes)
    if any(measured) or any(placed):
        problems.append("states a place or a measure without a finding")
    return problems


def _problems_of_names(facts: Sequence[Fact], stated: Statement) -> list[str]:
    problems = []
    labels = {fact.term.label for fact in facts}
    if stated.negates:
        problems.append("denies a finding that it cites")
    if stated.labels() - labels:
        problems.append("names another finding")
    if labels - stated.labels():
        problems.append("does not name its finding")
    if stated.doubts:
        problems.append("doubts its finding")
    return problems


def _problems_of_one(plan: ReportPlan, fact: Fact, stated: Statement, full: bool) -> list[str]:
    problems = []
    if len(stated.mentions) > 1:
        problems.append("names its finding twice")
    if any(mention.several for mention in stated.mentions):
        problems.append("speaks of several where there is one")
    if stated.sides != ({fact.side} if fact.side else set()):
        problems.append("the side differs")
    levels = {fact.level} if fact.level else set()
    if stated.levels - levels or (full and stated.levels != levels):
        problems.append("the level differs")
    if stated.organs - {fact.organ_key}:
        problems.append("the organ differs")
    if stated.counts:
        problems.append("counts what is one")
    size = () if fact.size_mm is None else (fact.size_mm,)
    if not _same_sizes(plan, stated, size):
        problems.append("the size differs")
    hu = () if fact.hu is None else (fact.hu,)
    if stated.hu and not _same_numbers(stated.hu, hu, plan.terminology.hu_text):
        problems.append("the attenuation differs")
    known = {name: value for name, value, _ in fact.adjectives}
    for name, values in stated.attributes.items():
        if values != {known.get(name)}:
            problems.append(f"the {name} differs")
    if full and set(known) - set(stated.attributes):
        problems.append("a property is missing")
    return problems


def _problems_of_group(plan: ReportPlan, facts: Sequence[Fact], stated: Statement) -> list[str]:
    problems = []
    sides = {fact.side for fact in facts}
    if sides in ({"left"}, {"right"}):
        right = stated.sides == sides
    else:  # several sides may be told or not; unknown ones are not
        right = not stated.sides or (sides == {"left", "right"} and stated.sides == sides)
    if not right:
        problems.append("the side differs")
    if stated.levels or stated.hu or stated.attributes or stated.organs:
        problems.append("states for several findings what belongs to one")
    if any(count != len(facts) for count in stated.counts) or not stated.counts:
        problems.append("the number of findings differs")
    sizes = [fact.size_mm for fact in facts if fact.size_mm is not None]
    if not _same_sizes(plan, stated, (max(sizes),) if sizes else ()):
        problems.append("the largest size differs")
    return problems


def _same_sizes(plan: ReportPlan, stated: Statement, wanted_mm: tuple[float, ...]) -> bool:
    """Whether exactly the wanted sizes are stated, each as one number."""
    if any(len(numbers) > 1 for numbers in stated.measures_mm):
        return False
    return _same_numbers(stated.sizes_mm, wanted_mm, plan.terminology.size_text)


def _same_numbers(
    stated: Sequence[float], wanted: Sequence[float], written: Callable[[float], str]
) -> bool:
    """Whether numbers are written alike, and none is told more exactly than it is true."""
    return [written(number) for number in stated] == [written(number) for number in wanted] and all(
        abs(a - b) <= _ROUNDED for a, b in zip(stated, wanted, strict=True)
    )
