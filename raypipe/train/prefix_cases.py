"""Generated CT cases for a visual prefix: lesions of known attributes, and what the detector sees.

In: seeds, a detector. Out: cases: findings as a report knows them, and a vector of each.
Does not know: language models, wording.

The findings are the inserted lesions with their true boxes, so that every case has an answer,
whatever the detector would have found; the vectors are what Detect makes of such a box.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raypipe.errors import ConfigError
from raypipe.geometry import Geometry
from raypipe.knowledge.graph import KnowledgeGraph, load_graph
from raypipe.model.attended import attended_features, places_of
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.phantom import Lesion, Phantom, make_phantom
from raypipe.settings import Settings
from raypipe.sink.schema import finding_row, typed_finding
from raypipe.train.synthesis import SynthesisConfig, draw_spec
from raypipe.types import Finding, SeriesContext
from raypipe.volume.preprocess import preprocess

Row = dict[str, Any]

_CASES, _FEATURES = "cases.json", "features.npy"
_LEAST_VOXELS = 12
"""A lesion of fewer voxels shows nothing but its place."""


class PrefixDataConfig(Settings):
    """Which cases are made."""

    cases: int = Field(default=400, gt=0, description="phantom series with a lesion")
    most_findings: int = Field(default=3, ge=1, le=16, description="lesions of a case that count")
    seed: int = Field(default=40_000, ge=0, description="of the first series")
    synthesis: SynthesisConfig = Field(
        default=SynthesisConfig(slab_slices=(6, 8)), description="how a series is drawn"
    )
    detector: DetectorConfig = Field(
        default=DetectorConfig(threads=1), description="what looks at them"
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PrefixCase:
    """One series.

    Args:
        series: its seed.
        findings: with their true attributes.
        context: how it was made.
        features_nd: a vector of each finding, float32.
    """

    series: int
    findings: tuple[Finding, ...]
    context: SeriesContext
    features_nd: NDArray[np.float32] = field(repr=False)


def prefix_cases(
    folder: Path, config: PrefixDataConfig, on_case: Callable[[int], None] = lambda _: None
) -> tuple[list[PrefixCase], str]:
    """Cases of a config, made once and kept in a folder; and the hash of the detector's weights.

    Args:
        folder: for the cases.
        config: which cases.
        on_case: called with the number made so far.

    Raises:
        ConfigError: the folder holds cases of another config.
    """
    detector = Detector(config.detector, config.synthesis.preprocess.fingerprint)
    told: Row = {"config": config.model_dump(mode="json"), "detector": detector.weights_hash}
    if not (folder / _CASES).is_file():
        made: list[PrefixCase] = []
        seed = config.seed
        while len(made) < config.cases:
            case = make_case(seed, config, detector)
            seed += 1
            if case is not None:
                made.append(case)
                on_case(len(made))
        _write(folder, told, made)
    return _read(folder, told), detector.weights_hash


def parted(case: PrefixCase, together: int) -> list[PrefixCase]:
    """A case as several, each with a few of its findings; ids begin anew in each."""
    parts = []
    for first in range(0, len(case.findings), together):
        own = case.findings[first : first + together]
        findings = tuple(replace(f, finding_id=f"F{i}") for i, f in enumerate(own, start=1))
        vectors = case.features_nd[first : first + together]
        parts.append(replace(case, findings=findings, features_nd=vectors))
    return parts


def make_case(seed: int, config: PrefixDataConfig, detector: Detector) -> PrefixCase | None:
    """The case of a seed; None where no lesion found room."""
    spec = draw_spec(seed, config.synthesis)
    phantom = make_phantom(spec)
    findings = _findings(phantom, config.most_findings)
    if not findings:
        return None
    volume = phantom.volume
    model_input = preprocess(volume, config.synthesis.preprocess)
    places = places_of(findings, volume.geometry, model_input.geometry)
    series_d = detector.predict(model_input).features
    return PrefixCase(
        series=seed,
        findings=findings,
        context=SeriesContext(
            body_part=spec.region,
            shape_zyx=volume.geometry.shape_zyx,
            spacing_zyx_mm=volume.geometry.spacing_zyx_mm,
        ),
        features_nd=attended_features(detector, model_input, places, series_d),
    )


def _findings(phantom: Phantom, most: int) -> tuple[Finding, ...]:
    graph, volume = load_graph(), phantom.volume
    told = [
        (number, lesion)
        for number, lesion in enumerate(phantom.lesions, start=1)
        if lesion.voxels >= _LEAST_VOXELS
    ][:most]
    return tuple(
        _finding(f"F{i}", lesion, phantom.lesion_map == number, volume.geometry, graph)
        for i, (number, lesion) in enumerate(told, start=1)
    )


def _finding(
    finding_id: str,
    lesion: Lesion,
    mask: NDArray[np.bool_],
    geometry: Geometry,
    graph: KnowledgeGraph,
) -> Finding:
    """A lesion as a finding, without its HU, which would tell the density."""
    node = graph.finding(lesion.label)
    return Finding(
        finding_id=finding_id,
        label=lesion.label,
        box_zyx=lesion.box_zyx,
        center_lps_mm=lesion.center_lps_mm,
        size_zyx_mm=geometry.size_mm(lesion.box_zyx),
        diameter_mm=lesion.diameter_mm,
        mean_hu=None,
        side=lesion.side if graph.is_sided(lesion.label) else None,
        level=None,
        score=1.0,
        key_slice=int(mask.sum(axis=(1, 2)).argmax()),
        attributes={
            name: value
            for name, value in lesion.attributes.items()
            if value in node.attributes.get(name, ())
        },
    )


def _write(folder: Path, told: Row, cases: Sequence[PrefixCase]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / _FEATURES, np.concatenate([case.features_nd for case in cases]))
    rows = [
        {
            "series": case.series,
            "body_part": case.context.body_part,
            "shape_zyx": case.context.shape_zyx,
            "spacing_zyx_mm": case.context.spacing_zyx_mm,
            "findings": [finding_row(finding, "") for finding in case.findings],
        }
        for case in cases
    ]
    partial = folder / f"{_CASES}.partial"
    partial.write_text(json.dumps({**told, "cases": rows}))
    partial.replace(folder / _CASES)  # last, so that a run that was cut off begins anew


def _read(folder: Path, told: Row) -> list[PrefixCase]:
    stored = json.loads((folder / _CASES).read_text())
    if {key: stored[key] for key in told} != told:
        raise ConfigError(f"prefix cases: {folder} holds other cases than asked for; empty it")
    features, first = np.load(folder / _FEATURES), 0
    cases = []
    for row in stored["cases"]:
        findings = tuple(typed_finding(value) for value in row["findings"])
        cases.append(
            PrefixCase(
                series=row["series"],
                findings=findings,
                context=SeriesContext(
                    body_part=row["body_part"],
                    shape_zyx=tuple(row["shape_zyx"]),
                    spacing_zyx_mm=tuple(row["spacing_zyx_mm"]),
                ),
                features_nd=features[first : first + len(findings)],
            )
        )
        first += len(findings)
    return cases
