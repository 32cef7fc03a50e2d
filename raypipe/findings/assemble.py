"""Raw boxes of a series to the findings that raypipe claims.

In: a Prediction and its ModelInput, the Volume's grid, a second stage. Out: findings, the
likeliest first, boxes on the Volume's grid. Does not know: networks, files, reports.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from raypipe.errors import CheckpointError
from raypipe.findings.attributes import (
    Anatomy,
    lung_level,
    mean_hu,
    measure_anatomy,
    side_of,
    vote,
)
from raypipe.findings.contour import contoured
from raypipe.findings.decode import FindingsConfig, decode
from raypipe.findings.evidence import EVIDENCE, evidence, logit
from raypipe.findings.link import Track, best_first, link, one_label_each
from raypipe.geometry import Box, Geometry
from raypipe.knowledge.graph import FindingNode, KnowledgeGraph, load_graph
from raypipe.rescoring import Rescoring
from raypipe.types import Finding, ModelInput, Prediction

SURROUNDING_SHAPES = frozenset({"crescent", "layering"})
"""Shapes that bend around something else: the box's inner half is not the lesion."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Series:
    """What every finding of one series is measured against."""

    model_input: ModelInput
    anatomy: Anatomy | None
    volume_geometry: Geometry
    instance_uids: Sequence[str]
    graph: KnowledgeGraph
    config: FindingsConfig


def assemble_findings(
    prediction: Prediction,
    model_input: ModelInput,
    volume_geometry: Geometry,
    instance_uids: Sequence[str],
    has_hu: bool,
    config: FindingsConfig,
    rescoring: Rescoring | None,
) -> tuple[Finding, ...]:
    """Suppress, link, score anew, measure and name the lesions of a series.

    Args:
        prediction: boxes on the grid of model_input.
        model_input: what the detector saw.
        volume_geometry: the grid on which findings are given.
        instance_uids: one a slice of that grid, or empty.
        has_hu: whether grey values are HU; without them neither HU nor side is measured.
        config: thresholds and calibration.
        rescoring: the weights' second stage; None: tracks keep the scores of their boxes.

    Returns:
        Findings F1, F2, ... by falling probability, or by score where none is calibrated.
    """
    claimed = [
        track
        for track in candidates(prediction, model_input, has_hu, config, rescoring)
        if track.score > config.threshold_of(track.label)
    ]
    tracks = one_label_each(claimed, config)
    if not tracks:
        return ()
    series = _Series(
        model_input=model_input,
        anatomy=measure_anatomy(model_input.hu) if has_hu else None,
        volume_geometry=volume_geometry,
        instance_uids=instance_uids,
        graph=load_graph(),
        config=config,
    )
    found = [finding for track in tracks if (finding := _finding(track, series)) is not None]
    found.sort(key=lambda f: (-_rank(f), f.label, f.box_zyx.lower_zyx))
    return tuple(
        replace(finding, finding_id=f"F{i}")
        for i, finding in enumerate(found[: config.max_findings], start=1)
    )


def candidates(
    prediction: Prediction,
    model_input: ModelInput,
    has_hu: bool,
    config: FindingsConfig,
    rescoring: Rescoring | None,
) -> tuple[Track, ...]:
    """Everything that may become a finding, best first, on the grid of model_input.

    Labels do not compete yet.
    """
    of_slice = decode(prediction.detections, config)
    tracks = link(of_slice, config, model_input.geometry.spacing_zyx_mm[0])
    if has_hu:
        tracks = contoured(tracks, model_input.hu, config)
    if rescoring is None:
        return tracks
    check_rescoring(rescoring)
    found = evidence(tracks, model_input, prediction.label_scores, has_hu)
    scores = rescoring.scores(found, [t.label for t in tracks], [t.score for t in tracks])
    return best_first(
        replace(track, score=float(score)) for track, score in zip(tracks, scores, strict=True)
    )


def check_rescoring(rescoring: Rescoring | None) -> None:
    """Refuse a second stage that goes by other evidence than is measured here.

    Raises:
        CheckpointError: naming what differs.
    """
    if rescoring is not None and rescoring.columns != EVIDENCE:
        differ = sorted(set(rescoring.columns) ^ set(EVIDENCE)) or ["another order"]
        raise CheckpointError(
            f"weights: their second stage goes by other evidence ({', '.join(differ)}); "
            "fit it again with `raypipe train rescoring`"
        )


def _rank(finding: Finding) -> float:
    return finding.score if finding.probability is None else finding.probability


def _finding(track: Track, series: _Series) -> Finding | None:
    """A finding without its id; None where it lies off the Volume or cannot be."""
    grid, node = series.model_input.geometry, series.graph.finding(track.label)
    target = series.volume_geometry
    box = clipped(grid.box_to(target, track.box_zyx), target)
    if box is None:
        return None
    hu = None if series.anatomy is None else mean_hu(series.model_input.hu, track.box_zyx)
    diameter = grid.diameter_mm(track.box_zyx)
    attributes = vote(track.detections, node)
    if series.config.plausible_only and not _plausible(
        node, hu, attributes.get("shape"), series.config
    ):
        return None
    side, level = _place(track.box_zyx, node, series)
    key_slice = _key_slice(track, grid, target)
    x, y, z = (float(v) for v in target.to_lps_mm(box.center_zyx))
    return Finding(
        finding_id="",
        label=track.label,
        box_zyx=box,
        center_lps_mm=(x, y, z),
        size_zyx_mm=target.size_mm(box),
        diameter_mm=diameter,
        mean_hu=hu,
        side=side,
        level=level,
        score=track.score,
        probability=_probability(track, series.config),
        key_slice=key_slice,
        instance_uid=series.instance_uids[key_slice] if series.instance_uids else "",
        attributes=attributes,
    )


def _plausible(
    node: FindingNode, hu: float | None, shape: str | None, config: FindingsConfig
) -> bool:
    if hu is None or node.hu_range is None or shape in SURROUNDING_SHAPES:
        return True
    return node.hu_range[0] - config.hu_margin <= hu <= node.hu_range[1] + config.hu_margin


def _place(box: Box, node: FindingNode, series: _Series) -> tuple[str | None, str | None]:
    """Side and level of a box on the model's grid."""
    if series.anatomy is None:
        return None, None
    side = side_of(box, series.anatomy) if series.graph.is_sided(node.key) else None
    # a level is told only where all organs of the finding share one set of levels
    named = {series.graph.anatomy[organ].levels for organ in node.occurs_in}
    levels = named.pop() if len(named) == 1 else ()
    return side, lung_level(box, series.anatomy, levels)


def _key_slice(track: Track, grid: Geometry, target: Geometry) -> int:
    index = target.to_index(grid.to_lps_mm(track.best.box_zyx.center_zyx))
    return min(max(round(float(index[0])), 0), target.shape_zyx[0] - 1)


def _probability(track: Track, config: FindingsConfig) -> float | None:
    slope = config.calibration_slope.get(track.label)
    if slope is None:
        return None
    offset = config.calibration_intercept.get(track.label, 0.0)
    return 1.0 / (1.0 + math.exp(-(slope * logit(track.score) + offset)))


def clipped(box: Box, geometry: Geometry) -> Box | None:
    """The part of a box that lies on its grid; None where there is none."""
    lower = [max(lo, 0.0) for lo in box.lower_zyx]
    upper = [min(u, float(n)) for u, n in zip(box.upper_zyx, geometry.shape_zyx, strict=True)]
    if any(u <= lo for lo, u in zip(lower, upper, strict=True)):
        return None
    return Box(lower_zyx=(lower[0], lower[1], lower[2]), upper_zyx=(upper[0], upper[1], upper[2]))
