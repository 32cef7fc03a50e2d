"""What a report has to say: findings as closed vocabulary, their order, and what is left out.

In: findings, the context of a series, the terminology and the knowledge graph. Out: a ReportPlan,
from which request, template and verifier all work.
Does not know: wording, grammars, engines.

No free text goes through here: a label, side, level or attribute that is not of the terminology
is left out, and where that loses a fact the plan says so and the report needs review.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from raypipe.knowledge.graph import REGIONS, KnowledgeGraph, Region
from raypipe.knowledge.terminology import SIDES, Term, Terminology, is_length
from raypipe.report.config import ReportConfig
from raypipe.types import Finding, Flag, SeriesContext

_ID = re.compile(r"F[1-9]\d{0,4}")
_ATTRIBUTE_ORDER = ("severity", "margin", "shape", "density")

_NAMED_ORGANS = frozenset({"lung", "kidney", "adrenal_gland", "breast", "ovary"})
"""Sided organs that a report names as the place."""
_REGIONS_OF_PART: dict[str, tuple[Region, ...]] = {
    "head": ("head",),
    "head_neck": ("head",),
    "chest": ("chest",),
    "chest_abdomen": ("chest", "abdomen"),
    "chest_abdomen_pelvis": ("chest", "abdomen"),
    "abdomen": ("abdomen",),
    "abdomen_pelvis": ("abdomen",),
    "whole_body": ("head", "chest", "abdomen"),
}
_ACUTE_FIRST = (
    *("subdural_haematoma", "epidural_haematoma", "intracranial_haemorrhage", "brain_infarct"),
    *("aortic_dissection", "pulmonary_embolism", "pneumothorax", "pneumoperitoneum"),
    *("lung_mass", "liver_mass", "renal_mass", "pulmonary_consolidation", "pleural_effusion"),
    *("pulmonary_nodule", "lymph_node_enlargement", "adrenal_nodule", "kidney_stone", "gallstone"),
)
_MINOR = frozenset({"liver_cyst", "renal_cyst"})
_DENIED_LIMIT = 4


@dataclass(frozen=True, kw_only=True)
class Fact:
    """One finding in the words of the closed vocabulary.

    Args:
        finding_id: what sentences cite.
        term: its names.
        side: "left", "right", "midline" or None.
        level: named level or None.
        organ: words of the sided organ that a report names as its place, None where it names none.
        organ_key: key of that organ.
        size_mm: None where the series has no scale.
        hu: mean attenuation, None where the series has no HU.
        adjectives: (attribute, value, words) of fine-grained properties, in order of the text.
        score: of the finding, uncalibrated.
        probability: of the finding, None without a calibration.
    """

    finding_id: str
    term: Term
    side: str | None = None
    level: str | None = None
    organ: str | None = None
    organ_key: str | None = None
    size_mm: float | None = None
    hu: float | None = None
    adjectives: tuple[tuple[str, str, str], ...] = ()
    score: float = 1.0
    probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class ReportPlan:
    """What a report has to say.

    Args:
        told: findings with a sentence each, in the order of the text.
        counted: findings that are only counted, in one sentence.
        impression: groups of findings of one kind, one line each, the most pressing first.
        denied: findings that the model looks for in these regions and did not see.
        regions: of the body, as far as known.
        doubts: facts that could not be put into words; each makes the report need review.
        context: how the series was made.
        terminology: the words of the report's language.
    """

    told: tuple[Fact, ...]
    counted: tuple[Fact, ...] = ()
    impression: tuple[tuple[Fact, ...], ...] = ()
    denied: tuple[Term, ...] = ()
    regions: tuple[Region, ...] = ()
    doubts: tuple[str, ...] = ()
    context: SeriesContext = field(repr=False)
    terminology: Terminology = field(repr=False)

    @property
    def facts(self) -> dict[str, Fact]:
        """Finding id -> fact."""
        return {fact.finding_id: fact for fact in (*self.told, *self.counted)}


def make_plan(
    findings: Sequence[Finding],
    context: SeriesContext,
    terminology: Terminology,
    graph: KnowledgeGraph,
    config: ReportConfig,
) -> ReportPlan:
    """Decide what a report says and in which order.

    Raises:
        ValueError: finding ids are not "F1", "F2", ... or come twice.
        ConfigError: a label is not in the terminology.
    """
    ids = [finding.finding_id for finding in findings]
    if len(set(ids)) < len(ids) or not all(_ID.fullmatch(i) for i in ids):
        raise ValueError('findings: each has an id of its own of the form "F1"')
    doubts: list[str] = []
    has_scale = Flag.NO_GEOMETRY not in context.flags
    facts = [_fact(f, terminology, graph, doubts, has_scale) for f in findings]
    facts.sort(key=lambda fact: _reading_order(fact, graph))
    kept = {f.finding_id for f in sorted(facts, key=_urgency)[: config.findings_limit]}
    told = tuple(f for f in facts if f.finding_id in kept)
    regions = _regions(facts, context, graph)
    return ReportPlan(
        told=told,
        counted=tuple(f for f in facts if f.finding_id not in kept),
        impression=_groups(told)[: config.impression_limit],
        denied=_denied(facts, regions, terminology, graph),
        regions=regions,
        doubts=tuple(doubts),
        context=context,
        terminology=terminology,
    )


def _fact(
    finding: Finding,
    terminology: Terminology,
    graph: KnowledgeGraph,
    doubts: list[str],
    has_scale: bool,
) -> Fact:
    term = terminology.term(finding.label)
    side, level, size = finding.side, finding.level, finding.diameter_mm
    if side is not None and side not in SIDES:
        doubts.append(f"{finding.finding_id}: its side is not of the terminology")
        side = None
    if level is not None and not terminology.knows_level(level):
        doubts.append(f"{finding.finding_id}: its level is not of the terminology")
        level = None
    if has_scale and not is_length(size):
        doubts.append(f"{finding.finding_id}: its size is not a length")
    organ = _organ(finding.label, graph)
    return Fact(
        finding_id=finding.finding_id,
        term=term,
        side=side,
        level=level,
        organ=terminology.organ_name(organ) if organ else None,
        organ_key=organ,
        size_mm=float(size) if has_scale and is_length(size) else None,
        hu=finding.mean_hu,
        adjectives=_adjectives(finding, terminology, graph),
        score=finding.score,
        probability=finding.probability,
    )


def _organ(label: str, graph: KnowledgeGraph) -> str | None:
    node = graph.findings.get(label)
    if node is None or len(node.occurs_in) != 1:
        return None
    return node.occurs_in[0] if node.occurs_in[0] in _NAMED_ORGANS else None


def _adjectives(
    finding: Finding, terminology: Terminology, graph: KnowledgeGraph
) -> tuple[tuple[str, str, str], ...]:
    """Words for attributes that tell something: a value that is the only possible one does not."""
    node = graph.findings.get(finding.label)
    out = []
    for name in _ATTRIBUTE_ORDER:
        value = finding.attributes.get(name)
        words = terminology.adjective(name, value) if value is not None else None
        told = node is None or len(node.attributes.get(name, ())) > 1
        if value is not None and words is not None and told:
            out.append((name, value, words))
    return tuple(out)


def _reading_order(fact: Fact, graph: KnowledgeGraph) -> tuple[int, str, float, int]:
    """By organ as the graph lists them, then by kind, then the largest first."""
    node = graph.findings.get(fact.term.label)
    organs = list(graph.anatomy)
    organ = organs.index(node.occurs_in[0]) if node is not None else len(organs)
    return organ, fact.term.label, -(fact.size_mm or 0.0), _number(fact)


def _urgency(fact: Fact) -> tuple[int, float, int]:
    label = fact.term.label
    rank = _ACUTE_FIRST.index(label) if label in _ACUTE_FIRST else len(_ACUTE_FIRST)
    return rank + (label in _MINOR), -(fact.size_mm or 0.0), _number(fact)


def _number(fact: Fact) -> int:
    return int(fact.finding_id[1:])


def _groups(told: Sequence[Fact]) -> tuple[tuple[Fact, ...], ...]:
    by_label: dict[str, list[Fact]] = defaultdict(list)
    for fact in sorted(told, key=_urgency):
        by_label[fact.term.label].append(fact)
    return tuple(tuple(group) for group in by_label.values())


def _regions(
    facts: Sequence[Fact], context: SeriesContext, graph: KnowledgeGraph
) -> tuple[Region, ...]:
    regions = set(_REGIONS_OF_PART.get(context.body_part or "", ()))
    for fact in facts:
        node = graph.findings.get(fact.term.label)
        if node is not None and len(node.regions) == 1:
            regions.update(node.regions)
    return tuple(region for region in REGIONS if region in regions)


def _denied(
    facts: Sequence[Fact],
    regions: Sequence[Region],
    terminology: Terminology,
    graph: KnowledgeGraph,
) -> tuple[Term, ...]:
    """Findings that were looked for and not seen, none of them akin to one that was seen."""
    seen = {fact.term.label for fact in facts} & set(graph.findings)
    akin = {fact.term.label for fact in facts}
    for label in seen:
        node = graph.finding(label)
        akin.update(graph.ancestors(label), node.suggests, node.mimics)
    out = []
    for label in graph.detected:
        node = graph.finding(label)
        looked_at = len(node.regions) == 1 and node.regions[0] in regions
        if looked_at and label not in akin and not seen & set(graph.ancestors(label)):
            out.append(label)
    out.sort(key=lambda label: _ACUTE_FIRST.index(label) if label in _ACUTE_FIRST else 99)
    return tuple(terminology.term(label) for label in out[:_DENIED_LIMIT])


def citation(facts: Sequence[Fact]) -> str:
    """ "[F3] [F7-F12]": ids in order, runs of three and more as a range."""
    numbers = sorted(int(fact.finding_id[1:]) for fact in facts)
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = []
    for run in runs:
        if len(run) > 2:
            parts.append(f"[F{run[0]}-F{run[-1]}]")
        else:
            parts += [f"[F{number}]" for number in run]
    return " ".join(parts)


def in_order(facts: Sequence[Fact]) -> tuple[str, ...]:
    """Ids by their number."""
    return tuple(sorted((fact.finding_id for fact in facts), key=lambda i: int(i[1:])))
