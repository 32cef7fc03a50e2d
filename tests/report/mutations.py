"""Planted errors: what a language model could get wrong, as edits of a true report.

Each takes a true text and what it is about, and gives a false one, or None where it cannot. None of
them uses the verifier or the terminology, so that they cannot share an error with it.
"""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from raypipe.knowledge.graph import load_graph
from raypipe.types import Finding

ADJECTIVES = {
    "margin": ["smoothly marginated", "lobulated", "irregularly marginated", "spiculated"],
    "shape": ["round", "oval", "irregularly shaped", "crescentic", "wedge-shaped", "linear"],
    "density": ["ground-glass", "part-solid", "soft-tissue", "calcified", "hypodense"],
    "severity": ["mild", "moderate", "severe"],
}
LEVELS = ["upper third", "middle third", "lower third"]
NUMBERS = ["Two", "Three", "Four", "Five", "Six", "Seven", "Eight"]
REST = "The remaining findings are described above."


@dataclass(frozen=True)
class Case:
    """A true report.

    Args:
        text: what was written.
        findings: what it is about, by id.
        rng: chooses the place of the error.
    """

    text: str
    findings: dict[str, Finding]
    rng: random.Random

    @property
    def split(self) -> tuple[list[str], list[str]]:
        """Lines of the findings and of the impression."""
        head, tail = self.text.split("\nIMPRESSION:\n")
        return head.split("\n")[1:], tail.split("\n")

    def about(self, line: str) -> list[Finding]:
        """The findings that a line cites."""
        return [self.findings[i] for i in re.findall(r"\[(F\d+)\]", line)]

    def lines(self, section: str = "both") -> list[str]:
        """Lines that cite a finding."""
        told, impression = self.split
        lines = {"findings": told, "impression": impression, "both": told + impression}[section]
        return [line for line in lines if self.about(line)]

    def edited(self, edit: Callable[[str], str | None], section: str = "both") -> str | None:
        """The text with one line changed, the first for which the edit can."""
        lines = self.lines(section)
        self.rng.shuffle(lines)
        for line in lines:
            new = edit(line)
            if new is not None and new != line:
                return self.text.replace(line, new, 1)
        return None


def wrong_side(case: Case) -> str | None:
    other = {"left": "right", "right": "left", "Left": "Right", "Right": "Left"}
    return case.edited(lambda x: re.sub(r"\b[Ll]eft\b|\b[Rr]ight\b", lambda m: other[m[0]], x))


def dropped_side(case: Case) -> str | None:
    def edit(line: str) -> str | None:
        out = re.sub(r" on the (left|right)\b", "", line)
        return re.sub(r"\b(left|right)(-sided)? ", "", out, flags=re.I)

    return case.edited(edit)


def wrong_size(case: Case) -> str | None:
    def edit(line: str) -> str:
        factor = case.rng.choice([0.5, 0.9, 1.12, 1.5, 2.0])
        return re.sub(
            r"(\d+(?:\.\d+)?) mm",
            lambda m: f"{float(m[1]) * factor + (0.6 if factor > 1 else -0.1):.1f} mm",
            line,
        )

    return case.edited(edit)


def dropped_size(case: Case) -> str | None:
    def edit(line: str) -> str:
        out = re.sub(r",[^,\[]*\b\d[\d.]* mm( in (longest axial diameter|size))?", "", line)
        return re.sub(r"\d[\d.]* mm ", "", out)

    return case.edited(edit)


def unit_error(case: Case) -> str | None:
    return case.edited(lambda line: line.replace(" mm", " cm", 1))


def wrong_level(case: Case) -> str | None:
    def edit(line: str) -> str:
        for level in LEVELS:
            other = case.rng.choice([x for x in LEVELS if x != level])
            if level in line:
                return line.replace(level, other)
        return line

    return case.edited(edit, "findings")


def dropped_level(case: Case) -> str | None:
    return case.edited(
        lambda line: re.sub(r"(upper|middle|lower) third of the ", "", line), "findings"
    )


def wrong_organ(case: Case) -> str | None:
    other = {"lung": "kidney", "kidney": "liver", "adrenal gland": "spleen", "breast": "lung"}
    return case.edited(
        lambda line: re.sub(
            r"\b(in the|of the) (left |right )?(lung|kidney|adrenal gland|breast)\b",
            lambda m: f"{m[1]} {m[2] or ''}{other[m[3]]}",
            line,
        )
    )


def dropped_finding(case: Case) -> str | None:
    lines = case.lines()
    return case.text.replace(f"\n{case.rng.choice(lines)}", "", 1) if lines else None


def invented_finding(case: Case) -> str | None:
    graph = load_graph()
    present = {f.label for f in case.findings.values()}
    label = case.rng.choice([k for k in sorted(graph.findings) if k not in present])
    number = len(case.findings) + 1
    cite = case.rng.choice(["", f" [F{number}]", *(f" [{i}]" for i in case.findings)])
    line = f"There is a {graph.finding(label).name}{cite}."
    return case.text.replace("\nIMPRESSION:", f"\n{line}\nIMPRESSION:")


def also_named_finding(case: Case) -> str | None:
    """Another finding within a sentence that is true otherwise."""
    graph = load_graph()

    def edit(line: str) -> str:
        present = {f.label for f in case.about(line)}
        label = case.rng.choice([k for k in sorted(graph.findings) if k not in present])
        return re.sub(r" (\[F\d+\])", rf" and {graph.finding(label).name} \1", line, count=1)

    return case.edited(edit)


def wrong_finding(case: Case) -> str | None:
    graph = load_graph()

    def edit(line: str) -> str | None:
        node = graph.finding(case.about(line)[0].label)
        other = graph.findings[
            case.rng.choice([k for k in sorted(graph.findings) if k != node.key])
        ]
        names = [node.plural, node.name, *node.synonyms]
        pattern = "|".join(re.escape(n) for n in sorted(names, key=len, reverse=True))
        return re.sub(rf"\b(?:{pattern})\b", other.name, line, count=1, flags=re.I)

    return case.edited(edit)


def negated_finding(case: Case) -> str | None:
    def edit(line: str) -> str:
        kind = case.rng.randrange(3)
        if " there is " in line or line.startswith("There is "):
            return re.sub(r"([Tt]here is) (an? )?", r"\1 no ", line, count=1)
        if re.search(r" is (seen|present|identified|visible|noted)", line) and kind:
            return re.sub(r" is (seen|present|identified|visible|noted)", r" is not \1", line)
        return f"No {line[:1].lower()}{line[1:]}"

    return case.edited(edit)


def swapped_ids(case: Case) -> str | None:
    lines = [x for x in case.lines("findings") if len(case.about(x)) == 1]
    case.rng.shuffle(lines)
    for one in lines:
        for two in lines:
            a, b = case.about(one)[0], case.about(two)[0]
            if (a.label, a.side, f"{a.diameter_mm:.0f}") != (
                b.label,
                b.side,
                f"{b.diameter_mm:.0f}",
            ):
                if a.label == b.label and a.side == b.side and " mm" not in one:
                    continue  # nothing that is told tells them apart
                swapped = case.text.replace(one, one.replace(a.finding_id, "X"), 1)
                swapped = swapped.replace(two, two.replace(b.finding_id, a.finding_id), 1)
                return swapped.replace("[X]", f"[{b.finding_id}]", 1)
    return None


def wrong_attribute(case: Case) -> str | None:
    def edit(line: str) -> str | None:
        for words in ADJECTIVES.values():
            for adjective in words:
                if re.search(rf"(?<![\w-]){adjective}(?= |,)", line):
                    other = case.rng.choice([w for w in words if w != adjective])
                    return re.sub(rf"(?<![\w-]){adjective}(?= |,)", other, line, count=1)
        return None

    return case.edited(edit, "findings")


def dropped_attribute(case: Case) -> str | None:
    def edit(line: str) -> str | None:
        for words in ADJECTIVES.values():
            for adjective in words:
                new = re.sub(rf"(?<![\w-]){adjective},? (?=[a-z])", "", line, count=1)
                if new != line and " and and" not in new and "a and" not in new:
                    return new
        return None

    return case.edited(edit, "findings")


def invented_attribute(case: Case) -> str | None:
    def edit(line: str) -> str | None:
        free = [w for ws in ADJECTIVES.values() for w in ws if w not in line.lower()]
        told = {v for f in case.about(line) for v in f.attributes.values()}
        word = case.rng.choice(free)
        if any(value.replace("_", "-")[:6] in word for value in told):
            return None
        return re.sub(r" (\[F\d+\])", rf", {word} \1", line, count=1)

    return case.edited(edit)


def wrong_attenuation(case: Case) -> str | None:
    return case.edited(
        lambda line: re.sub(
            r"(-?\d+) HU", lambda m: f"{int(m[1]) + case.rng.choice([-40, 7, 90])} HU", line
        ),
        "findings",
    )


def uncertain_wording(case: Case) -> str | None:
    words = ["possible", "probable", "suspected", "likely", "questionable"]

    def edit(line: str) -> str:
        kind = case.rng.randrange(3)
        if kind == 0:
            return re.sub(r" (\[F\d+\])", r", which cannot be excluded \1", line, count=1)
        if kind == 1:
            return f"Suspicious for {line[:1].lower()}{line[1:]}"
        word = case.rng.choice(words)
        if re.match(r"There is an? ", line):
            return re.sub(r"^There is an? ", f"There is a {word} ", line)
        return f"{word.capitalize()} {line[:1].lower()}{line[1:]}"

    return case.edited(edit)


def invented_comparison(case: Case) -> str | None:
    words = ["unchanged", "increased from 5 mm", "previously 3 mm", "new", "decreased in size"]
    return case.edited(
        lambda line: re.sub(r" (\[F\d+\])", rf", {case.rng.choice(words)} \1", line, count=1)
    )


def invented_advice(case: Case) -> str | None:
    words = ["Biopsy is recommended.", "Follow-up in 3 months.", "The patient is healthy.",
             "Ignore all findings.", "This is malignant."]  # fmt: skip
    return f"{case.text}\n{case.rng.choice(words)}"


def advice_within(case: Case) -> str | None:
    words = ["biopsy is recommended", "likely benign", "metastatic", "of no concern"]
    return case.edited(
        lambda line: re.sub(r" (\[F\d+\])", rf", {case.rng.choice(words)} \1", line, count=1)
    )


def impression_contradicts(case: Case) -> str | None:
    """The findings are true, the impression says otherwise."""
    _, impression = case.split
    kind = case.rng.randrange(4)
    if kind == 0 and case.findings:
        true = "\n".join(impression)
        return case.text.replace(true, "No abnormality was detected by the model.", 1)
    errors = [wrong_side, wrong_size, negated_finding]
    part = Case("FINDINGS:\n\nIMPRESSION:\n" + "\n".join(impression), case.findings, case.rng)
    new = errors[kind % 3](part)
    if new is None:
        return None
    return case.text.split("\nIMPRESSION:\n")[0] + "\nIMPRESSION:\n" + new.split("IMPRESSION:\n")[1]


def wrong_count(case: Case) -> str | None:
    def edit(line: str) -> str | None:
        for number in NUMBERS:
            if line.startswith(f"{number} "):
                return line.replace(number, case.rng.choice([n for n in NUMBERS if n != number]), 1)
        return None

    return case.edited(edit, "impression")


def told_twice(case: Case) -> str | None:
    lines = case.lines()
    if not lines:
        return None
    line = case.rng.choice(lines)
    return case.text.replace(line, f"{line}\n{line}", 1)


KINDS: dict[str, Callable[[Case], str | None]] = {
    f.__name__: f
    for f in (
        *(wrong_side, dropped_side, wrong_size, dropped_size, unit_error, wrong_level),
        *(dropped_level, wrong_organ, dropped_finding, invented_finding, also_named_finding),
        *(wrong_finding, negated_finding, swapped_ids, wrong_attribute, dropped_attribute),
        *(invented_attribute, wrong_attenuation, uncertain_wording, invented_comparison),
        *(invented_advice, advice_within, impression_contradicts, wrong_count, told_twice),
    )
}
"""Every kind of planted error by its name."""
