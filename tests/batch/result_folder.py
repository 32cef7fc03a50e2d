"""An output folder as a run leaves it, made without one: manifest, rows, checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.archive.storage import StorageConfig
from raypipe.batch.output import JOB_FILE, Output, open_output
from raypipe.sink.schema import RESULT_SCHEMA, to_table

KEYS = tuple("abcdefgh")


def result_folder(
    where: Path, files: dict[str, Sequence[str]], keys: Sequence[str] = KEYS
) -> Output:
    """A folder with one result and one checkpoint file for each of `files` (name -> its series)."""
    output = open_output(str(where), StorageConfig())
    output.write_table("manifest/part-00000.parquet", pa.table({"series_key": list(keys)}))
    output.write_text(JOB_FILE, json.dumps({"manifest": output.manifest_uri, "limit": None}))
    for name, series in files.items():
        write_rows(output, name, series)
        write_ids(output, name, series)
    return output


def write_rows(output: Output, name: str, series: Sequence[str], **values: Any) -> Path:
    """A result file; every row has a vector of noise, which no compression makes small."""
    rng = np.random.default_rng(len(series))
    rows = [
        {"series_key": key, "status": "ok", "features": rng.random(256).tolist()} | values
        for key in series
    ]
    output.write_table(f"results/{name}-0.parquet", to_table(rows, RESULT_SCHEMA))
    return Path(output.results) / f"{name}-0.parquet"


def write_ids(output: Output, name: str, series: Sequence[str]) -> Path:
    """A checkpoint file, as Ray Data writes it."""
    path = Path(output.checkpoint) / f"{name}.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"series_key": list(series)}), path)
    return path
