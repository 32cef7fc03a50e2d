"""Look back from a result row to the pixels that it came from.

In: an output folder. Out: chosen rows; the Volume of a row, read from the archive again.
Does not know: how rows and pictures are shown.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow.compute as pc

from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import read_series
from raypipe.batch.output import ID_COLUMN, JOB_FILE, Output
from raypipe.config import RaypipeConfig
from raypipe.errors import SeriesError
from raypipe.types import Volume
from raypipe.volume.assemble import to_volume

Row = dict[str, Any]


def selected_rows(
    output: Output,
    *,
    keys: Sequence[str] = (),
    status: str | None = None,
    limit: int | None = None,
) -> list[Row]:
    """Result rows whose key begins with one of `keys` (all if empty), by series_key."""
    chosen = [
        row
        for row in output.iterate_rows()
        if (not keys or row["series_key"].startswith(tuple(keys)))
        and (status is None or row["status"] == status)
    ]
    return sorted(chosen, key=lambda row: str(row["series_key"]))[:limit]


def load_volume(output: Output, row: Mapping[str, Any], config: RaypipeConfig) -> Volume | None:
    """The Volume of a row, read again from the archive; None where that is not possible."""
    record = output.read_text(JOB_FILE)
    if record is None:
        return None
    manifest = read_manifest(json.loads(record)["manifest"], config.archive.storage)
    found = manifest.filter(pc.equal(manifest[ID_COLUMN], row[ID_COLUMN])).to_pylist()
    if not found:
        return None
    try:
        return to_volume(read_series(series_ref(found[0]), config.archive), config.volume)
    except SeriesError:
        return None
