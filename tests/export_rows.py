"""Result rows whose findings are the known lesions of a phantom, and the job's folder around them.

Geometry comes from the archive reader and the Load stage; only the network is left out.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from raypipe.archive.identity import keyed_hash
from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.source_headers import read_source_frames
from raypipe.archive.storage import StorageConfig
from raypipe.batch.output import JOB_FILE
from raypipe.config import RaypipeConfig
from raypipe.geometry import Box
from raypipe.phantom import Lesion, Phantom
from raypipe.sink.dicom_source import SourceSlice
from raypipe.sink.schema import RESULT_SCHEMA, finding_row, report_row, to_table
from raypipe.stages import Load
from raypipe.types import Finding, Report, Sentence, Volume

Row = dict[str, Any]
FINISHED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Indexed:
    """A folder that was indexed: manifest rows, and the config that reads it."""

    manifest: Path
    rows: list[Row]
    config: RaypipeConfig


def index_folder(source: Path, manifest: Path, hash_key: str = "key") -> Indexed:
    """Index a folder of files."""
    config = RaypipeConfig.model_validate({"index": {"hash_key": hash_key}})
    build_index(str(source), str(manifest), config.index, lambda *_: None, storage=StorageConfig())
    rows = read_manifest(str(manifest), StorageConfig()).to_pylist()
    return Indexed(manifest=manifest, rows=rows, config=config)


def result_row(manifest_row: Row, indexed: Indexed, phantom: Phantom | None) -> Row:
    """The row that a perfect detector would give; without a phantom there are no findings."""
    row = Load(indexed.config)(manifest_row)
    volume: Volume = row.pop("volume")
    lesions = phantom.lesions if phantom is not None else ()
    findings = [_finding(i, lesion, phantom, volume) for i, lesion in enumerate(lesions, start=1)]
    key = indexed.config.index.hash_key
    row["findings"] = [finding_row(f, keyed_hash(f.instance_uid, key)) for f in findings]
    sentences = [
        Sentence(
            text=f"A {f.label.replace('_', ' ')} [{f.finding_id}] <5 mm & more.",
            finding_ids=(f.finding_id,),
        )
        for f in findings
    ]
    report = Report(
        technique="CT of the chest.",
        findings=tuple(sentences),
        impression=(Sentence(text="As described."),),
        needs_review=bool(findings),
        review_reasons=("number_differs",) if findings else (),
        model="template",
    )
    row["report"] = report_row(report)
    row["provenance"] |= {"weights_hash": "w" * 8, "config_hash": "c" * 8}
    row["timings"]["finished_at"] = FINISHED
    return {name: row.get(name) for name in RESULT_SCHEMA.names}


def _finding(number: int, lesion: Lesion, phantom: Phantom | None, volume: Volume) -> Finding:
    assert phantom is not None
    whole = phantom.volume.geometry.box_to(volume.geometry, lesion.box_zyx)
    shape = volume.geometry.shape_zyx
    lower, upper = np.clip(whole.lower_zyx, 0, shape), np.clip(whole.upper_zyx, 0, shape)
    box = Box(lower_zyx=tuple(lower.tolist()), upper_zyx=tuple(upper.tolist()))
    key_slice = round(box.center_zyx[0])
    return Finding(
        finding_id=f"F{number}",
        label=lesion.label,
        box_zyx=box,
        center_lps_mm=tuple(volume.geometry.to_lps_mm(box.center_zyx).tolist()),
        size_zyx_mm=volume.geometry.size_mm(box),
        diameter_mm=lesion.diameter_mm,
        mean_hu=lesion.mean_hu,
        side=lesion.side,
        level="upper third",
        score=0.75,
        probability=0.5,
        key_slice=key_slice,
        instance_uid=volume.instance_uids[key_slice] if volume.instance_uids else "",
        attributes=dict(lesion.attributes),
    )


def source_slices(manifest_row: Row) -> tuple[SourceSlice, ...]:
    """The stored slices of a series with the identity of the source."""
    frames = read_source_frames(series_ref(manifest_row), StorageConfig())
    return tuple(
        SourceSlice(
            header=lambda frame=frame: frame.header,  # type: ignore[misc]
            shape_yx=(int(frame.header.Rows), int(frame.header.Columns)),
            frame=frame.number,
            position_lps_mm=frame.plane.position_lps_mm,
            direction=frame.plane.direction,
            spacing_yx_mm=frame.plane.spacing_yx_mm,
        )
        for frame in frames
    )


def write_results(rows: Sequence[Row], output: Path, manifest: Path) -> Path:
    """The output folder of a job that ended with these rows."""
    (output / "results").mkdir(parents=True)
    pq.write_table(to_table(rows, RESULT_SCHEMA), output / "results" / "rows.parquet")
    (output / JOB_FILE).write_text(json.dumps({"manifest": str(manifest)}))
    return output
