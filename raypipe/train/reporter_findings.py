"""Random finding sets for training reports: what a detector could claim of a series.

In: the knowledge graph, a random generator. Out: findings and the context of a series.
Does not know: images, wording, language models.

Sizes and attenuation lie in the ranges of the graph; now and then a series has no scale, no HU, or
a finding that the detector does not look for, so that a model learns what it then has to leave out.
"""

import math
import random

from raypipe.geometry import Box
from raypipe.knowledge.graph import REGIONS, KnowledgeGraph, Region
from raypipe.types import Finding, Flag, SeriesContext

_PARTS: dict[str | None, tuple[Region, ...]] = {
    "head": ("head",),
    "chest": ("chest",),
    "abdomen": ("abdomen",),
    "chest_abdomen": ("chest", "abdomen"),
    "chest_abdomen_pelvis": ("chest", "abdomen"),
    "abdomen_pelvis": ("abdomen",),
    "whole_body": REGIONS,
    None: REGIONS,
}
_KINDS = 3
"""Different findings of one report at most; several of one kind are common."""
_EMPTY_SHARE = 0.1
_OTHER_SHARE = 0.1
"""Of findings that the detector does not look for."""
_UNKNOWN_SHARE = 0.1
"""Of a missing side, HU or scale."""
_LEVEL_SHARE = 0.7
_ATTRIBUTE_SHARE = 0.6
_SIZES_MM = (3.0, 120.0)
_UNIT_BOX = Box(lower_zyx=(0.0, 0.0, 0.0), upper_zyx=(1.0, 1.0, 1.0))


def random_findings(
    rng: random.Random, graph: KnowledgeGraph, most: int
) -> tuple[tuple[Finding, ...], SeriesContext]:
    """Findings and context of one series.

    Args:
        rng: decides everything.
        graph: findings and what they may look like.
        most: findings at most.
    """
    part = rng.choice(list(_PARTS))
    labels = _labels(rng, graph, _PARTS[part])
    few = min(rng.randint(1, most), rng.randint(1, most))  # long reports are rare
    count = 0 if rng.random() < _EMPTY_SHARE else few
    scores = sorted((rng.uniform(0.2, 1.0) for _ in range(count)), reverse=True)
    findings = tuple(
        _finding(rng, graph, number, rng.choice(labels), score)
        for number, score in enumerate(scores, start=1)
    )
    flags = [f for f in (Flag.NO_GEOMETRY, Flag.NO_HU) if rng.random() < _UNKNOWN_SHARE / 2]
    context = SeriesContext(
        body_part=part, shape_zyx=(100, 512, 512), spacing_zyx_mm=(2.0, 0.8, 0.8),
        flags=tuple(flags),
    )  # fmt: skip
    return findings, context


def _labels(rng: random.Random, graph: KnowledgeGraph, regions: tuple[Region, ...]) -> list[str]:
    """The kinds of one report, all of its regions."""
    looked_for = [k for k in graph.detected if set(graph.finding(k).regions) & set(regions)]
    others = [
        key
        for key, node in graph.findings.items()
        if not node.detected and set(node.regions) & set(regions)
    ]
    kinds = [
        rng.choice(others if others and rng.random() < _OTHER_SHARE else looked_for)
        for _ in range(_KINDS)
    ]
    return kinds[: rng.randint(1, _KINDS)]


def _finding(
    rng: random.Random, graph: KnowledgeGraph, number: int, label: str, score: float
) -> Finding:
    node = graph.finding(label)
    levels = graph.anatomy[node.occurs_in[0]].levels
    low, high = node.size_range_mm or _SIZES_MM
    size = min(max(math.exp(rng.uniform(math.log(low), math.log(high))), low), high)
    hu_range = node.hu_range or (-100.0, 300.0)
    return Finding(
        finding_id=f"F{number}",
        label=label,
        box_zyx=_UNIT_BOX,
        center_lps_mm=(0.0, 0.0, 0.0),
        size_zyx_mm=(size, size, size),
        diameter_mm=size,
        mean_hu=None if rng.random() < _UNKNOWN_SHARE else rng.uniform(*hu_range),
        side=_side(rng, graph.is_sided(label)),
        level=rng.choice(levels) if levels and rng.random() < _LEVEL_SHARE else None,
        score=score,
        key_slice=0,
        attributes={
            name: rng.choice(values)
            for name, values in node.attributes.items()
            if rng.random() < _ATTRIBUTE_SHARE
        },
    )


def _side(rng: random.Random, sided: bool) -> str | None:
    """Left or right in paired organs; elsewhere the half of the body that it lies in, or none."""
    if rng.random() < (_UNKNOWN_SHARE if sided else 0.5):
        return None
    return rng.choice(("left", "right") if sided else ("left", "right", "midline"))
