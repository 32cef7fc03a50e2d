"""An independent reading of reports: whether one says what its input lacks, or omits what it has.

Shares no code with the terminology and the verifier, so that it cannot share their errors.
"""

import re
from functools import cache

from raypipe.knowledge.graph import load_graph
from raypipe.report.reporter import ReportInput
from raypipe.types import Finding, Flag, Report, Sentence

LEVELS = {"upper third", "middle third", "lower third"}


def untruths(one: ReportInput, report: Report) -> list[str]:
    """What a report invents or omits; empty where it is true."""
    findings = {finding.finding_id: finding for finding in one.findings}
    has_scale = Flag.NO_GEOMETRY not in one.context.flags
    problems: list[str] = []
    for sentence in (*report.findings, *report.impression):
        problems += _invented(sentence, findings, has_scale)
    told = [i for sentence in report.findings for i in sentence.finding_ids]
    if sorted(told) != sorted(findings):
        problems.append(f"told {told}, not {list(findings)}")
    for sentence in report.findings:
        if len(sentence.finding_ids) == 1 and "further" not in sentence.text:
            problems += _omitted(sentence, findings[sentence.finding_ids[0]], has_scale)
    return problems


def _invented(sentence: Sentence, findings: dict[str, Finding], has_scale: bool) -> list[str]:
    if sentence.text == "The remaining findings are described above.":
        return [] if findings else ["speaks of findings where there are none"]
    cited = [findings[i] for i in sentence.finding_ids]
    text = re.sub(r"\[F[\d-]+(F\d+)?\]", "", sentence.text)
    named, rest = _named(text)
    denies = re.search(r"\b(no|not)\b", text, re.I) is not None
    problems = []
    if denies == bool(cited):
        problems.append(f"denies and claims: {text}")
    present = {finding.label for finding in findings.values()}
    if denies:
        problems += [f"denies {label}, which is there" for label in named & present]
    else:
        problems += [f"invents {label}" for label in named - {f.label for f in cited}]
    words = set(re.findall(r"left|right|midline", rest.lower()))
    if "both sides" in rest:
        words |= {"left", "right"}
    problems += [f"invents the side {w}" for w in words - {f.side for f in cited}]
    levels = {level for level in LEVELS if level in rest.lower()}
    problems += [f"invents the level {x}" for x in levels - {f.level for f in cited}]
    sizes = set(re.findall(r"([\d.]+) ?(?:mm|cm)", rest))
    allowed = {_size(f) for f in cited} if has_scale else set()
    problems += [f"invents the size {size}" for size in sizes - allowed]
    hu = {float(number) for number in re.findall(r"(-?[\d.]+) HU", rest)}
    problems += [
        f"invents {value} HU"
        for value in hu
        if not any(f.mean_hu is not None and abs(f.mean_hu - value) <= 0.5 for f in cited)
    ]
    return problems


def _omitted(sentence: Sentence, finding: Finding, has_scale: bool) -> list[str]:
    text = sentence.text.lower()
    named, rest = _named(text)
    problems = []
    if finding.label not in named:
        problems.append(f"does not name {finding.label}: {text}")
    if finding.side and finding.side not in rest:
        problems.append(f"omits the side {finding.side}: {text}")
    if finding.level and finding.level not in text:
        problems.append(f"omits the level {finding.level}: {text}")
    if has_scale and not re.search(rf"(?<![\d.]){re.escape(_size(finding))} ?mm", text):
        problems.append(f"omits the size {_size(finding)}: {text}")
    return problems


def _size(finding: Finding) -> str:
    mm = finding.diameter_mm
    return f"{mm:.0f}" if round(mm, 1) >= 10 else f"{mm:.1f}".removesuffix(".0")


def _named(text: str) -> tuple[set[str], str]:
    """Labels whose names stand in a text, the longest names first; the text without them."""
    names, pattern = _names()
    labels = {names[match.lower()] for match in pattern.findall(text)}
    return labels, pattern.sub("#", text)


@cache
def _names() -> tuple[dict[str, str], re.Pattern[str]]:
    names: dict[str, str] = {}
    for label, node in load_graph().findings.items():
        own = [node.name, node.plural, *node.synonyms]
        own += [node.plural.removesuffix("s"), *(f"{name}s" for name in own)]
        own += [f"{name}es" for name in own if name.endswith("ss")]
        own += [name.replace("calculus", "calculi") for name in own if "calculus" in name]
        for name in own:
            names.setdefault(name.lower(), label)
    for label, node in load_graph().findings.items():
        names[node.name.lower()] = names[node.plural.lower()] = label
    longest_first = sorted(names, key=len, reverse=True)
    words = "|".join(map(re.escape, longest_first))
    return names, re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.I)
