"""The manifest: one row per series, as Parquet.

In: groups of files. Out: rows by MANIFEST_SCHEMA; part files; SeriesRef of a row.
Does not know: how files were found or what they hold.

    MANIFEST/part-00000.parquet ...   rows; a series never changes its part
    MANIFEST/_state/                  what the index remembers of every file (archive.state)

File names stand in the rows, because the files must be found again; they may name a patient where
an archive's do. Nothing else of a row does.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import SecretStr

from raypipe.archive.addresses import as_address, as_name
from raypipe.archive.grouping import Group
from raypipe.archive.headers import Header
from raypipe.archive.identity import keyed_hash
from raypipe.archive.splitting import Entry
from raypipe.archive.storage import StorageConfig, filesystem_for
from raypipe.errors import FAILURES, ConfigError, Reason, Status
from raypipe.parquet import read_parquet
from raypipe.types import Flag, InstanceRef, Kind, SeriesRef

Row = dict[str, Any]

_INSTANCE = pa.struct(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("byte_size", pa.int64(), nullable=False, metadata={"unit": "byte"}),
        pa.field("instance_uid", pa.string(), nullable=False),
    ]
)

MANIFEST_SCHEMA = pa.schema(
    [
        pa.field("series_key", pa.string(), nullable=False),
        pa.field("study_key", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("message", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("instances", pa.list_(_INSTANCE), nullable=False),
        pa.field("repeated", pa.list_(_INSTANCE), nullable=False),
        pa.field("modality", pa.string()),
        pa.field("manufacturer", pa.string()),
        pa.field("transfer_syntax", pa.string()),
        pa.field("shape_zyx", pa.list_(pa.int32()), metadata={"unit": "voxel"}),
        pa.field("spacing_zyx_mm", pa.list_(pa.float64()), metadata={"unit": "mm"}),
        pa.field("thickness_mm", pa.float64(), metadata={"unit": "mm"}),
        pa.field("orientation", pa.string()),
        pa.field("kvp", pa.float64(), metadata={"unit": "kV"}),
        pa.field("contrast", pa.bool_()),
        pa.field("body_part", pa.string()),
        pa.field("flags", pa.list_(pa.string()), nullable=False),
    ]
)
"""Columns of a manifest. `repeated` are further copies of instances, which are not read;
`orientation` is axial, coronal, sagittal or oblique; spacing along z is the median distance."""

_KINDS = {kind.value for kind in Kind}
_OBLIQUE_COSINE = 0.85


def manifest_row(group: Group, source: str, key: SecretStr) -> Row:
    """The row of one group."""
    first = group.entries[0].header
    status = Status.OK
    if group.reason:
        status = Status.FAILED if Reason(group.reason) in FAILURES else Status.REJECTED
    thickness = [e.header.thickness_mm for e in group.entries]
    return {
        "series_key": keyed_hash(f"series {group.identity}", key),
        "study_key": keyed_hash(f"study {first.study}", key) if first.study else None,
        "status": status.value,
        "reason": group.reason or None,
        "message": group.message or None,
        "source": source,
        "kind": first.kind if first.kind in _KINDS else None,
        "instances": [_instance(e) for e in group.entries],
        "repeated": [_instance(e) for e in group.repeated],
        "modality": first.modality or None,
        "manufacturer": first.manufacturer or None,
        "transfer_syntax": first.transfer_syntax or None,
        "shape_zyx": _shape(group.entries),
        "spacing_zyx_mm": _spacing(group.entries),
        "thickness_mm": nominal_thickness_mm(thickness),
        "orientation": orientation(first),
        "kvp": first.kvp,
        "contrast": first.contrast,
        "body_part": first.body_part,
        "flags": [flag.value for flag in group.flags],
    }


def _instance(entry: Entry) -> Row:
    return {
        "uri": as_address(entry.uri),
        "byte_size": entry.byte_size,
        "instance_uid": entry.header.instance_uid,
    }


def _shape(entries: Sequence[Entry]) -> list[int] | None:
    shapes = [e.header.shape_zyx for e in entries]
    if any(s is None for s in shapes) or len({s[1:] for s in shapes if s}) != 1:
        return None
    first = shapes[0]
    assert first is not None, "just looked at"
    return [sum(s[0] for s in shapes if s), first[1], first[2]]


def _spacing(entries: Sequence[Entry]) -> list[float | None] | None:
    header = entries[0].header
    if header.spacing_zyx_mm is None:
        return None
    z, y, x = header.spacing_zyx_mm
    if len(entries) > 1 and header.direction is not None:
        normal = np.cross(header.direction[:3], header.direction[3:])
        along = np.array([e.header.position_lps_mm for e in entries], dtype=np.float64) @ normal
        z = round(float(np.median(np.abs(np.diff(along)))), 6)
    return [z, y, x]


def orientation(header: Header) -> str | None:
    """Which anatomical plane the slices of a DICOM object lie in."""
    if header.direction is None:
        return None
    normal = np.abs(np.cross(header.direction[:3], header.direction[3:]))
    axis = int(np.argmax(normal))
    return ("sagittal", "coronal", "axial")[axis] if normal[axis] > _OBLIQUE_COSINE else "oblique"


def nominal_thickness_mm(thickness_mm: Iterable[float | None]) -> float | None:
    """The thickness that most slices have, the smaller of two; None where none has one."""
    counts = Counter(t for t in thickness_mm if t is not None)
    return min(counts, key=lambda t: (-counts[t], t)) if counts else None


def series_ref(row: Mapping[str, Any]) -> SeriesRef:
    """What reading needs to know of a row with status "ok"."""
    return SeriesRef(
        series_key=row["series_key"],
        kind=Kind(row["kind"]),
        instances=tuple(
            InstanceRef(
                uri=as_name(i["uri"]), byte_size=i["byte_size"], instance_uid=i["instance_uid"]
            )
            for i in row["instances"]
        ),
        flags=tuple(Flag(flag) for flag in row["flags"] or ()),
    )


def read_manifest(
    uri: str, storage: StorageConfig, columns: Sequence[str] | None = None
) -> pa.Table:
    """All rows of a manifest, or some of their columns.

    Raises:
        ConfigError: there is no manifest.
    """
    filesystem, parts = _parts(uri, storage)
    return pa.concat_tables([read_parquet(filesystem.cat_file(part), columns) for part in parts])


def series_keys(uri: str, storage: StorageConfig, limit: int | None = None) -> set[str]:
    """The keys of a manifest's series, or of the first `limit` by key.

    Raises:
        ConfigError: there is no manifest.
    """
    keys = read_manifest(uri, storage, ["series_key"])["series_key"].to_pylist()
    return set(keys) if limit is None else set(sorted(keys)[:limit])


def first_row(uri: str, storage: StorageConfig) -> Row:
    """The first row of a manifest, however long that is.

    Raises:
        ConfigError: there is no manifest.
    """
    filesystem, parts = _parts(uri, storage)
    with filesystem.open(parts[0]) as file:
        first = next(pq.ParquetFile(file).iter_batches(batch_size=1, use_threads=False))
        row: Row = first.to_pylist()[0]
    return row


def _parts(uri: str, storage: StorageConfig) -> tuple[Any, list[str]]:
    filesystem, path = filesystem_for(uri, storage)
    parts = part_files(filesystem, path)
    if not parts:
        raise ConfigError(f"{uri} holds no manifest: make one with `raypipe index SOURCE {uri}`")
    return filesystem, parts


def part_files(filesystem: Any, path: str) -> list[str]:
    """Paths of the part files of a manifest, sorted; none where there is no manifest."""
    if not filesystem.isdir(path):
        return []
    names = filesystem.ls(path, detail=False)
    return sorted(n for n in names if n.rsplit("/", 1)[-1].startswith("part-"))


def read_part(path: str, filesystem: Any, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of one part file."""
    rows: list[Row] = read_parquet(filesystem.cat_file(path), columns).to_pylist()
    return rows


def write_rows(rows: Sequence[Row], path: str, filesystem: Any) -> None:
    """Write one part file, whole or not at all."""
    assert all(row.keys() == set(MANIFEST_SCHEMA.names) for row in rows), "a row per the schema"
    write_table(pa.Table.from_pylist(list(rows), schema=MANIFEST_SCHEMA), path, filesystem)


def write_table(table: pa.Table, path: str, filesystem: Any) -> None:
    """Write a Parquet file, whole or not at all: S3 puts are, on disk a rename is."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    if is_s3_filesystem(filesystem):
        filesystem.pipe_file(path, buffer.getvalue())
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.tmp")
    part.write_bytes(buffer.getvalue())
    part.replace(target)


def is_s3_filesystem(filesystem: Any) -> bool:
    """Whether an fsspec filesystem is S3."""
    return "s3" in filesystem.protocol
