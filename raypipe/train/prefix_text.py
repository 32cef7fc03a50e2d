"""Questions that only the image answers: attributes that the prompt hides and the text names.

In: findings with their attributes, a context. Out: a request whose grammar offers every value that
the knowledge graph allows, the true text, and the reading of any text of that grammar.
Does not know: images, language models, how either is trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from raypipe.knowledge.graph import KnowledgeGraph, load_graph
from raypipe.knowledge.terminology import load_terminology
from raypipe.report.config import ReportConfig
from raypipe.report.engine import GenerationRequest, Message
from raypipe.report.phrase import Phrase, ebnf, first, longest_bytes, one_of, seq
from raypipe.report.plan import Fact, ReportPlan, make_plan
from raypipe.report.request import prompt
from raypipe.report.sections import wording_of
from raypipe.types import Finding, SeriesContext

ASKED = ("margin", "shape", "density")
"""Attributes that are asked for, in the order of the text."""

Values = Mapping[str, str]
"""Attribute -> value."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One series to be described.

    Args:
        request: prompt and grammar.
        answer: the true text.
        order: number of the finding that each line is about.
        truth: of each line the values that are asked for.
        options: of each line every text -> the values that it names.
    """

    request: GenerationRequest
    answer: str
    order: tuple[int, ...]
    truth: tuple[Values, ...]
    options: tuple[Mapping[str, Values], ...] = field(repr=False)

    def read(self, text: str) -> tuple[Values, ...]:
        """The values that a text of the grammar names, line by line; none where it is no such."""
        lines = text.split("\n")
        if len(lines) != len(self.options):
            return tuple({} for _ in self.options)
        return tuple(
            options.get(line, {}) for line, options in zip(lines, self.options, strict=True)
        )


def make_question(
    findings: Sequence[Finding], context: SeriesContext, *, told: bool = False
) -> Question:
    """The question about a series.

    Args:
        findings: with their true attributes.
        context: of the series.
        told: whether the prompt names the attributes after all.
    """
    config, graph, terminology = ReportConfig(), load_graph(), load_terminology("en")
    shown = [replace(f, attributes=_asked_alone(f) if told else {}) for f in findings]
    plan = make_plan(shown, context, terminology, graph, config)
    plan = replace(plan, denied=())  # short prompts: what was not found is not asked for
    numbers = {finding.finding_id: i for i, finding in enumerate(findings)}
    order = tuple(numbers[fact.finding_id] for fact in plan.told)
    lines, truth = [], []
    for fact, i in zip(plan.told, order, strict=True):
        asked = asked_of(findings[i], graph)
        lines.append(_sentences(fact, asked, plan))
        truth.append({name: findings[i].attributes[name] for name in asked})
    answer = "\n".join(_text_of(line, values) for line, values in zip(lines, truth, strict=True))
    return Question(
        request=_request(plan, config, [tuple(line) for line in lines], answer),
        answer=answer,
        order=order,
        truth=tuple(truth),
        options=tuple(lines),
    )


def veiled(finding: Finding) -> Finding:
    """A finding by the name of what it is a kind of: a cyst or a mass as a focal lesion.

    Attributes that the wider kind cannot have are left out; a finding without one stays.
    """
    graph = load_graph()
    parent = graph.finding(finding.label).parent
    if parent is None:
        return finding
    allowed = graph.finding(parent).attributes
    kept = {k: v for k, v in finding.attributes.items() if v in allowed.get(k, ())}
    return replace(finding, label=parent, attributes=kept)


def _asked_alone(finding: Finding) -> dict[str, str]:
    return {name: value for name, value in finding.attributes.items() if name in ASKED}


def asked_of(finding: Finding, graph: KnowledgeGraph) -> dict[str, tuple[str, ...]]:
    """What is asked of a finding: attributes of several possible values, and these."""
    allowed = graph.finding(finding.label).attributes
    return {
        name: allowed[name]
        for name in ASKED
        if name in finding.attributes and len(allowed.get(name, ())) > 1
    }


def _sentences(
    fact: Fact, asked: Mapping[str, tuple[str, ...]], plan: ReportPlan
) -> dict[str, Values]:
    """Every sentence about a finding, one for each choice of values."""
    wording = wording_of(plan.terminology)
    out: dict[str, Values] = {}
    for chosen in product(*asked.values()):
        values = dict(zip(asked, chosen, strict=True))
        adjectives = tuple(
            (name, value, words)
            for name, value in values.items()
            if (words := plan.terminology.adjective(name, value)) is not None
        )
        out[first(wording.finding_sentence(replace(fact, adjectives=adjectives)))] = values
    return out


def _text_of(options: Mapping[str, Values], wanted: Values) -> str:
    return next(text for text, values in options.items() if values == wanted)


def _request(
    plan: ReportPlan, config: ReportConfig, lines: Sequence[Sequence[str]], answer: str
) -> GenerationRequest:
    parts: list[Phrase] = []
    for line in lines:
        parts += [*(["\n"] if parts else []), one_of(*line)]
    phrase = seq(*parts)
    return GenerationRequest(
        messages=(
            Message(role="system", content=plan.terminology.language.prompt.system),
            Message(role="user", content=prompt(plan, config)),
        ),
        grammar=ebnf(phrase),
        max_tokens=longest_bytes(phrase) + 1,
        example=answer,
    )
