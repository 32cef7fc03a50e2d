"""The output folder of a small run whose findings are what is true, made without Ray."""

import json
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.batch.output import JOB_FILE, Output, open_output
from raypipe.config import RaypipeConfig, load_config
from raypipe.geometry import Box, box_around
from raypipe.phantom import SeriesTruth, write_archive
from raypipe.sink.schema import RESULT_SCHEMA, finding_row, to_table
from raypipe.stages import Describe, Detect, Load, Prepare, Row, geometry_of
from raypipe.types import Finding
from tests.tiny_detector import fast_settings

_FOLDER = tempfile.TemporaryDirectory(prefix="finished-run-")  # goes with the process


@dataclass(frozen=True)
class FinishedRun:
    """Where it lies, and what is true of it."""

    output: Output
    truth: Path
    truths: list[SeriesTruth]
    config: RaypipeConfig

    def truth_of(self, row: Row) -> SeriesTruth:
        """The truth of a row, by the grid that its phantom was written on."""
        manifest = read_manifest(self.output.manifest_uri, self.config.archive.storage).to_pylist()
        found = next(m for m in manifest if m["series_key"] == row["series_key"])
        uri = found["instances"][0]["uri"]
        return next(t for t in self.truths if any(uri.endswith(path) for path in t.paths))


@cache
def finished_run() -> FinishedRun:
    """Archive, manifest, rows of five series: axial, oblique, coronal, tilted; made once."""
    folder = Path(_FOLDER.name)
    config = load_config(overrides=fast_settings())
    truths = write_archive(
        folder / "archive", 5, seed=3, shape_zyx=(12, 64, 64), truth_path=folder / "t.json"
    )
    output = open_output(str(folder / "results"), config.archive.storage)
    build_index(str(folder / "archive"), output.manifest_uri, config.index)
    output.write_text(JOB_FILE, json.dumps({"manifest": output.manifest_uri}))
    run = FinishedRun(output, folder / "t.json", truths, config)
    load, prepare, detect, describe = (s(config) for s in (Load, Prepare, Detect, Describe))
    rows = []
    for series in read_manifest(output.manifest_uri, config.archive.storage).to_pylist():
        row = detect(prepare(load(series)))
        if row["status"] == "ok":
            row["findings"] = [
                finding_row(_claimed(lesion, row, i), "")
                for i, lesion in enumerate(run.truth_of(row).lesions, start=1)
            ]
        rows.append(row)
    output.write_table("results/part-0.parquet", to_table(describe(rows), RESULT_SCHEMA))
    return run


def _claimed(lesion: dict[str, Any], row: Row, number: int) -> Finding:
    """A finding around a lesion, placed by its centre and size in the patient alone."""
    grid = geometry_of(row)
    center = np.array(lesion["center_lps_mm"])
    around = box_around(grid, center[None])
    half = np.array(lesion["box_zyx"]["upper_zyx"]) - np.array(lesion["box_zyx"]["lower_zyx"])
    middle, half = np.array(around.lower_zyx), half / 2.0
    box = Box(
        lower_zyx=tuple(float(v) for v in middle - half),  # type: ignore[arg-type]
        upper_zyx=tuple(float(v) for v in middle + half),  # type: ignore[arg-type]
    )
    return Finding(
        finding_id=f"F{number}",
        label=lesion["label"],
        box_zyx=box,
        center_lps_mm=lesion["center_lps_mm"],
        size_zyx_mm=grid.size_mm(box),
        diameter_mm=lesion["diameter_mm"],
        mean_hu=lesion["mean_hu"],
        side=lesion["side"],
        level=None,
        score=0.9,
        probability=0.95,
        key_slice=int(middle[0]),
    )
