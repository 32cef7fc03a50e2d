"""The verifier: reads a report's text back into facts and compares them with the findings.

In: a ReportPlan and the text that a language model wrote. Out: sentences with finding ids, each
true to the plan, and the reasons for a review where something remains open.
Does not know: how the text was made. It trusts no grammar: a sentence that reads wrong is
replaced by the fixed wording of its facts.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.knowledge.terminology import Statement, Terminology, hu_text, size_text
from raypipe.report.phrase import Phrase, first
from raypipe.report.plan import Fact, ReportPlan
from raypipe.report.request import FINDINGS_HEADER, IMPRESSION_HEADER
from raypipe.report.wording import (
    REST_ABOVE,
    counted_sentence,
    findings_section,
    impression_section,
    in_order,
    is_nothing_found,
)
from raypipe.types import Sentence

_CITATION = re.compile(r"\[F(\d+)(?:-F(\d+))?\]")


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A checked report.

    Args:
        findings: sentences of the findings.
        impression: lines of the impression.
        replaced: what was wrong with sentences that were replaced by fixed wording.
        open: what is still wrong; the report needs review where this is not empty.
    """

    findings: tuple[Sentence, ...]
    impression: tuple[Sentence, ...]
    replaced: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def verify(plan: ReportPlan, text: str, terminology: Terminology) -> Verified:
    """Check a report and mend it.

    Args:
        plan: what the report has to say.
        text: the two sections as a language model wrote them; anything at all is accepted.
    """
    findings, impression = split_sections(text)
    kept = _mended(plan, findings, _findings_wanted(plan), terminology, full=True)
    lines = _mended(plan, impression, _impression_wanted(plan), terminology, full=False)
    told = list(kept.sentences)
    if plan.counted:
        told.append(
            Sentence(
                text=counted_sentence(plan.counted),
                finding_ids=tuple(fact.finding_id for fact in plan.counted),
            )
        )
    still = check(plan, told, lines.sentences, terminology)
    return Verified(
        findings=tuple(told),
        impression=tuple(lines.sentences),
        replaced=(*kept.problems, *lines.problems),
        open=(*plan.doubts, *still),
    )


def check(
    plan: ReportPlan,
    findings: Sequence[Sentence],
    impression: Sequence[Sentence],
    terminology: Terminology,
) -> list[str]:
    """Everything that is wrong with a finished report; empty where nothing is."""
    problems: list[str] = []
    for full, sentence in [
        *((True, sentence) for sentence in findings),
        *((False, sentence) for sentence in impression),
    ]:
        problems += sentence_problems(plan, sentence.text, terminology, full=full)
        if cited_ids(sentence.text) != list(sentence.finding_ids):
            problems.append("a sentence cites other findings than it is stored with")
    cited = [i for sentence in findings for i in sentence.finding_ids]
    for finding_id in plan.facts:
        if cited.count(finding_id) != 1:
            problems.append(f"{finding_id}: cited {cited.count(finding_id)} times in the findings")
    named = [i for sentence in impression for i in sentence.finding_ids]
    for fact in (fact for group in plan.impression for fact in group):
        if named.count(fact.finding_id) != 1:
            problems.append(f"{fact.finding_id}: not once in the impression")
    return problems


def split_sections(text: str) -> tuple[list[str], list[str]]:
    """The lines below the two headers."""
    head, _, tail = text.partition(IMPRESSION_HEADER)
    head = head.replace(FINDINGS_HEADER, "", 1)
    return (
        [line.strip() for line in head.splitlines() if line.strip()],
        [line.strip() for line in tail.splitlines() if line.strip()],
    )


def cited_ids(text: str) -> list[str]:
    """Finding ids that a sentence cites, in order; a range names all within it."""
    ids: list[str] = []
    for match in _CITATION.finditer(text):
        low, high = int(match.group(1)), int(match.group(2) or match.group(1))
        ids += [f"F{n}" for n in range(low, min(high, low + 10_000) + 1)]
    return ids


_Wanted = list[tuple[tuple[str, ...], Phrase]]
"""For each sentence of a section the ids that it has to cite, and its wording."""


def _findings_wanted(plan: ReportPlan) -> _Wanted:
    wording = findings_section(plan)
    ids: list[tuple[str, ...]] = [(fact.finding_id,) for fact in plan.told]
    return list(zip([*ids, *[()] * (len(wording) - len(ids))], wording, strict=True))


def _impression_wanted(plan: ReportPlan) -> _Wanted:
    wording = impression_section(plan)
    ids = [in_order(group) for group in plan.impression]
    return list(zip([*ids, *[()] * (len(wording) - len(ids))], wording, strict=True))


@dataclass(frozen=True)
class _Mended:
    sentences: list[Sentence]
    problems: list[str]


def _mended(
    plan: ReportPlan,
    lines: Sequence[str],
    wanted: _Wanted,
    terminology: Terminology,
    *,
    full: bool,
) -> _Mended:
    """For each wanted sentence the line that says it, or its fixed wording."""
    sentences: list[Sentence] = []
    problems: list[str] = []
    left = list(lines)
    for ids, phrase in wanted:
        line = next((x for x in left if tuple(cited_ids(x)) == ids), None)
        wrong = ["is missing"]
        if line is not None:
            left.remove(line)
            wrong = sentence_problems(plan, line, terminology, full=full)
        if line is None or wrong:
            name = " ".join(ids) or "a statement without findings"
            problems += [f"{name}: {problem}" for problem in wrong]
            line = first(phrase)
        sentences.append(Sentence(text=line, finding_ids=ids))
    problems += ["a sentence was left out that no finding asks for"] * len(left)
    return _Mended(sentences, problems)


def sentence_problems(
    plan: ReportPlan, text: str, terminology: Terminology, *, full: bool
) -> list[str]:
    """What is wrong with one sentence: invented, missing or different facts.

    Args:
        plan: what the report has to say.
        text: the sentence.
        terminology: reads it.
        full: whether it has to state level and properties too; the impression need not.
    """
    stated = terminology.read(_CITATION.sub("", text))
    ids = cited_ids(text)
    facts = [plan.facts[i] for i in ids if i in plan.facts]
    if len(facts) < len(ids):
        return ["cites a finding that there is not"]
    if not facts:
        return _problems_without_findings(plan, text, stated)
    if text == counted_sentence(facts):
        return []
    problems = _problems_of_names(facts, stated)
    if len(facts) == 1:
        return problems + _problems_of_one(facts[0], stated, full)
    return problems + _problems_of_group(facts, text, stated)


def _problems_without_findings(plan: ReportPlan, text: str, stated: Statement) -> list[str]:
    problems = []
    if stated.labels():
        problems.append("claims a finding without citing one")
    denied = stated.labels(negated=True)
    if denied - {term.label for term in plan.denied}:
        problems.append("denies a finding that was not looked for or was seen")
    if not stated.mentions and text != REST_ABOVE and not is_nothing_found(text):
        problems.append("says something that cannot be read")
    if is_nothing_found(text) and plan.facts:
        problems.append("says that there is nothing where there are findings")
    if stated.sides or stated.levels or stated.sizes_mm or stated.hu or stated.attributes:
        problems.append("states a place or a measure without a finding")
    return problems


def _problems_of_names(facts: Sequence[Fact], stated: Statement) -> list[str]:
    problems = []
    labels = {fact.term.label for fact in facts}
    if stated.labels(negated=True):
        problems.append("denies a finding that it cites")
    if stated.labels() - labels:
        problems.append("names another finding")
    if labels - stated.labels():
        problems.append("does not name its finding")
    if any(mention.uncertain for mention in stated.mentions):
        problems.append("doubts its finding")
    return problems


def _problems_of_one(fact: Fact, stated: Statement, full: bool) -> list[str]:
    problems = []
    if stated.sides != ({fact.side} if fact.side else set()):
        problems.append("the side differs")
    levels = {fact.level} if fact.level else set()
    if stated.levels - levels or (full and stated.levels != levels):
        problems.append("the level differs")
    sizes = [size_text(size) for size in stated.sizes_mm]
    if sizes != ([size_text(fact.size_mm)] if fact.size_mm is not None else []):
        problems.append("the size differs")
    hu = [hu_text(value) for value in stated.hu]
    if hu and hu != ([hu_text(fact.hu)] if fact.hu is not None else []):
        problems.append("the attenuation differs")
    known = {name: value for name, value, _ in fact.adjectives}
    for name, values in stated.attributes.items():
        if values != {known.get(name)}:
            problems.append(f"the {name} differs")
    if full and set(known) - set(stated.attributes):
        problems.append("a property is missing")
    return problems


def _problems_of_group(facts: Sequence[Fact], text: str, stated: Statement) -> list[str]:
    problems = []
    if not stated.sides <= {fact.side for fact in facts}:
        problems.append("the side differs")
    if stated.levels or stated.hu or stated.attributes:
        problems.append("states for several findings what belongs to one")
    sizes = [fact.size_mm for fact in facts if fact.size_mm is not None]
    wanted = [size_text(max(sizes))] if sizes else []
    if [size_text(size) for size in stated.sizes_mm] != wanted:
        problems.append("the largest size differs")
    return problems
