"""Random finding sets: what a detector could claim, and what it should not be able to say."""

import random
from typing import Any

from hypothesis import strategies as st

from raypipe.geometry import Box
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import load_terminology
from raypipe.report.config import ReportConfig
from raypipe.report.plan import ReportPlan, make_plan
from raypipe.report.reporter import ReportInput
from raypipe.types import Finding, Flag, SeriesContext

BODY_PARTS = (None, "head", "chest", "abdomen", "chest_abdomen_pelvis", "whole_body", "pelvis")


def make_finding(number: int = 1, label: str = "pulmonary_nodule", **fields: Any) -> Finding:
    diameter = fields.pop("diameter_mm", 12.4)
    values: dict[str, Any] = {
        "finding_id": f"F{number}",
        "label": label,
        "box_zyx": Box(lower_zyx=(1.0, 2.0, 3.0), upper_zyx=(4.0, 5.0, 6.0)),
        "center_lps_mm": (0.0, 0.0, 0.0),
        "size_zyx_mm": (diameter, diameter, diameter),
        "diameter_mm": diameter,
        "mean_hu": 34.6,
        "side": "right",
        "level": None,
        "score": 0.8,
        "key_slice": 2,
    }
    return Finding(**(values | fields))


def make_context(**fields: Any) -> SeriesContext:
    values: dict[str, Any] = {
        "body_part": "chest",
        "shape_zyx": (100, 512, 512),
        "spacing_zyx_mm": (2.5, 0.78, 0.78),
    }
    return SeriesContext(**(values | fields))


def plan_of(one: ReportInput, config: ReportConfig | None = None) -> ReportPlan:
    config = config or ReportConfig()
    terminology = load_terminology(config.language)
    return make_plan(one.findings, one.context, terminology, load_graph(), config)


def random_input(rng: random.Random, most: int = 6) -> ReportInput:
    """Findings that the detector could claim, several of one kind among them."""
    graph = load_graph()
    labels = rng.sample(graph.detected, 3)
    findings = tuple(
        _random_finding(rng, number, rng.choice(labels))
        for number in range(1, rng.randint(2, most))
    )
    return ReportInput(findings, make_context(body_part=rng.choice(BODY_PARTS)))


def _random_finding(rng: random.Random, number: int, label: str) -> Finding:
    graph = load_graph()
    node = graph.finding(label)
    levels = graph.anatomy[node.occurs_in[0]].levels
    sides = ["left", "right"] if graph.is_sided(label) else [None]
    return make_finding(
        number,
        label,
        diameter_mm=rng.uniform(2.0, 120.0),
        mean_hu=rng.choice([None, rng.uniform(-800.0, 900.0)]),
        side=rng.choice(sides),
        level=rng.choice([*levels, None]),
        score=rng.uniform(0.05, 1.0),
        attributes={
            name: rng.choice(values)
            for name, values in node.attributes.items()
            if rng.random() < 0.6
        },
    )


@st.composite
def report_inputs(
    draw: st.DrawFn, max_findings: int = 8, detected_only: bool = False
) -> ReportInput:
    graph = load_graph()
    labels = graph.detected if detected_only else tuple(graph.findings)
    count = draw(st.integers(0, max_findings))
    findings = tuple(draw(_findings(number, labels)) for number in range(1, count + 1))
    flags = draw(st.sets(st.sampled_from([Flag.NO_GEOMETRY, Flag.NO_HU, Flag.GANTRY_TILT])))
    context = make_context(
        body_part=draw(st.sampled_from(BODY_PARTS)),
        contrast=draw(st.sampled_from([None, True, False])),
        flags=tuple(sorted(flags)),
    )
    return ReportInput(findings, context)


@st.composite
def _findings(draw: st.DrawFn, number: int, labels: tuple[str, ...]) -> Finding:
    graph = load_graph()
    label = draw(st.sampled_from(labels))
    node = graph.finding(label)
    levels = graph.anatomy[node.occurs_in[0]].levels
    return make_finding(
        number,
        label,
        diameter_mm=draw(st.floats(0.3, 400.0)),
        mean_hu=draw(st.none() | st.floats(-1024.0, 3071.0)),
        side=draw(st.sampled_from(["left", "right", "midline", None])),
        level=draw(st.sampled_from([*levels, None])),
        attributes={
            name: draw(st.sampled_from(values))
            for name, values in node.attributes.items()
            if draw(st.booleans())
        },
    )
