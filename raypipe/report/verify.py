"""The verifier: reads a report's text back into facts and compares them with the findings.

In: a ReportPlan and the text that a language model wrote. Out: sentences with finding ids and
score, each true to the plan, and the reasons for a review where something remains open.
Does not know: how the text was made. It trusts no grammar: a sentence that reads wrong is not
kept, and what replaces it is read again.

    draft = read_back(plan, text)      the line of every sentence that is wanted, and its faults
    draft = repaired(draft, text)      lines of a second answer in the place of faulty ones
    verified = finished(draft)         fixed wording for what is still faulty; the last check
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raypipe.report.phrase import first
from raypipe.report.plan import ReportPlan, in_order
from raypipe.report.sections import Slot, findings_slots, impression_slots, wording_of
from raypipe.report.sentence_checks import cited_ids, sentence_problems, stated_by
from raypipe.types import Sentence

_SCORE_DIGITS = 6
_MISSING = ("is missing",)


@dataclass(frozen=True)
class Line:
    """One wanted sentence and what was written for it.

    Args:
        slot: what it has to say.
        text: what was written, None where nothing was.
        problems: what is wrong with it; empty where it may stay.
    """

    slot: Slot
    text: str | None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A report as it was read.

    Args:
        plan: what it has to say.
        findings: sentences of the findings.
        impression: lines of the impression.
        surplus: sentences that nothing asks for; they are left out.
        repairs: problems that a second answer has mended.
    """

    plan: ReportPlan
    findings: tuple[Line, ...]
    impression: tuple[Line, ...]
    surplus: int = 0
    repairs: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[Line, ...]:
        """The lines that may not stay."""
        return tuple(line for line in (*self.findings, *self.impression) if line.problems)

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that is wrong, by sentence."""
        found = [f"{_name(line)}: {problem}" for line in self.wrong for problem in line.problems]
        return (*found, *["a sentence was left out that no finding asks for"] * self.surplus)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A checked report.

    Args:
        findings: sentences of the findings.
        impression: lines of the impression.
        repaired: what was wrong with sentences that the model wrote anew.
        replaced: what was wrong with sentences that were left out or put into fixed wording.
        open: what is still wrong; the report needs review where this is not empty.
    """

    findings: tuple[Sentence, ...]
    impression: tuple[Sentence, ...]
    repaired: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


def verify(plan: ReportPlan, text: str) -> Verified:
    """Check a report and mend it by fixed wording.

    Args:
        plan: what the report has to say.
        text: the two sections as a language model wrote them; anything at all is accepted.
    """
    return finished(read_back(plan, text))


def read_back(plan: ReportPlan, text: str) -> Draft:
    """Find the line of every wanted sentence and what is wrong with it."""
    findings, impression = split_sections(plan, text)
    told, left = _matched(plan, findings, findings_slots(plan))
    lines, more = _matched(plan, impression, impression_slots(plan))
    return Draft(plan=plan, findings=told, impression=lines, surplus=left + more)


def repaired(draft: Draft, text: str) -> Draft:
    """Put lines of a second answer in the place of faulty ones, each where it reads right.

    Args:
        draft: as read.
        text: a line for each of `draft.wrong`, in order; anything at all is accepted.
    """
    answers = [line.strip() for line in text.splitlines() if line.strip()]
    fresh = {}
    for line, answer in zip(draft.wrong, answers, strict=False):
        problems = _line_problems(draft.plan, line.slot, answer)
        if not problems:
            fresh[id(line)] = Line(line.slot, answer)
    mended = [
        f"{_name(line)}: {problem}"
        for line in draft.wrong
        if id(line) in fresh
        for problem in line.problems
    ]
    return replace(
        draft,
        findings=tuple(fresh.get(id(line), line) for line in draft.findings),
        impression=tuple(fresh.get(id(line), line) for line in draft.impression),
        repairs=(*draft.repairs, *mended),
    )


def finished(draft: Draft) -> Verified:
    """The report: fixed wording for faulty lines, counted findings, and the last check."""
    plan = draft.plan
    told = [_sentence(plan, line) for line in draft.findings]
    lines = [_sentence(plan, line) for line in draft.impression]
    if plan.counted:
        ids = in_order(plan.counted)
        text = wording_of(plan.terminology).counted_sentence(plan.counted)
        told.append(Sentence(text=text, finding_ids=ids, score=_score(plan, ids)))
    return Verified(
        findings=tuple(told),
        impression=tuple(lines),
        repaired=draft.repairs,
        replaced=draft.problems,
        open=(*plan.doubts, *check(plan, told, lines)),
    )


def check(
    plan: ReportPlan, findings: Sequence[Sentence], impression: Sequence[Sentence]
) -> list[str]:
    """Everything that is wrong with a finished report; empty where nothing is."""
    problems: list[str] = []
    for full, sentence in [
        *((True, sentence) for sentence in findings),
        *((False, sentence) for sentence in impression),
    ]:
        problems += sentence_problems(plan, sentence.text, full=full)
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
    return problems + contradictions(plan, [s.text for s in (*findings, *impression)])


def contradictions(plan: ReportPlan, texts: Sequence[str]) -> list[str]:
    """What one sentence of a report claims and another denies."""
    stated = [stated_by(plan, text) for text in texts]
    claimed = {label for one in stated for label in one.labels()}
    denied = {label for one in stated for label in one.labels(negated=True)}
    problems = [f"{label} is both claimed and denied" for label in sorted(claimed & denied)]
    nothing = set(wording_of(plan.terminology).nothing_found()) & set(texts)
    if nothing and claimed:
        problems.append("says that there is nothing and claims a finding")
    return problems


def split_sections(plan: ReportPlan, text: str) -> tuple[list[str], list[str]]:
    """The lines below the two headers."""
    language = plan.terminology.language
    head, _, tail = text.partition(language.impression_header)
    head = head.replace(language.findings_header, "", 1)
    return (
        [line.strip() for line in head.splitlines() if line.strip()],
        [line.strip() for line in tail.splitlines() if line.strip()],
    )


def _matched(
    plan: ReportPlan, lines: Sequence[str], slots: Sequence[Slot]
) -> tuple[tuple[Line, ...], int]:
    """For each wanted sentence the line that cites its ids; how many lines nothing asks for."""
    matched: list[Line] = []
    left = list(lines)
    for slot in slots:
        read = [
            Line(slot, text, tuple(_line_problems(plan, slot, text)))
            for text in left
            if tuple(cited_ids(text)) == slot.finding_ids
        ]
        line = min(read, key=lambda one: len(one.problems), default=Line(slot, None, _MISSING))
        if line.text is not None:
            left.remove(line.text)
        matched.append(line)
    return tuple(matched), len(left)


def _line_problems(plan: ReportPlan, slot: Slot, text: str) -> list[str]:
    if tuple(cited_ids(text)) != slot.finding_ids:
        return ["cites other findings"]
    return sentence_problems(plan, text, full=slot.full)


def _sentence(plan: ReportPlan, line: Line) -> Sentence:
    text = first(line.slot.phrase) if line.problems or line.text is None else line.text
    ids = line.slot.finding_ids
    return Sentence(text=text, finding_ids=ids, score=_score(plan, ids))


def _score(plan: ReportPlan, ids: Sequence[str]) -> float | None:
    scores = [plan.facts[finding_id].score for finding_id in ids]
    return round(min(scores), _SCORE_DIGITS) if scores else None


def _name(line: Line) -> str:
    return " ".join(line.slot.finding_ids) or "a statement without findings"
