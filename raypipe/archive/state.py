"""What the index remembers of every file, so that a second run opens only what is new.

In: Remembered facts. Out: Parquet files below MANIFEST/_state/; a later file wins over an earlier.
Does not know: how files are read or grouped.
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.archive.manifest import write_table
from raypipe.parquet import read_parquet

STATE_VERSION = 2
"""Counts up when headers of an older index do not serve any more; files are then read again."""

_SCHEMA = pa.schema(
    [
        pa.field("relative", pa.string(), nullable=False),
        pa.field("byte_size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("members", pa.bool_(), nullable=False),
        pa.field("header", pa.string(), nullable=False),
    ]
)
_COMPACT_FROM = 8


@dataclass(frozen=True)
class Remembered:
    """One file or member as it was when it was read.

    Args:
        relative: path below the source.
        byte_size: in bytes.
        version: of the object on disk or S3; that of the archive file for a member.
        members: whether this is an archive file whose members follow; it makes no row itself.
        header: Header.to_json.
    """

    relative: str
    byte_size: int
    version: str
    members: bool
    header: str


class State:
    """The state files of one manifest.

    Args:
        filesystem: fsspec filesystem of the manifest.
        manifest: its path on it.
        identity: what the state was made with (source, key); other state is not used.
    """

    def __init__(self, filesystem: Any, manifest: str, identity: str) -> None:
        self._filesystem, self._folder = filesystem, f"{manifest}/_state"
        self._identity = f"{STATE_VERSION} {identity}"
        self._files = self._listed()

    def _listed(self) -> list[str]:
        if not self._filesystem.isdir(self._folder):
            return []
        names = self._filesystem.ls(self._folder, detail=False)
        return sorted(n for n in names if n.endswith(".parquet"))

    def load(self) -> dict[str, Remembered]:
        """Everything that is remembered, by relative path."""
        remembered: dict[str, Remembered] = {}
        for file in self._files:
            table = read_parquet(self._filesystem.cat_file(file))
            if (table.schema.metadata or {}).get(b"identity") != self._identity.encode():
                continue
            columns = [table[name].to_pylist() for name in _SCHEMA.names]
            for values in zip(*columns, strict=True):
                remembered[values[0]] = Remembered(*values)
        return remembered

    def is_foreign(self) -> bool:
        """Whether the newest state is of this version, but of another source or key."""
        for file in self._files[-1:]:
            found = (self._read_identity(file) or b"").decode()
            return found.startswith(f"{STATE_VERSION} ") and found != self._identity
        return False

    def _read_identity(self, file: str) -> bytes | None:
        content = io.BytesIO(self._filesystem.cat_file(file))
        metadata = pq.read_schema(content).metadata or {}
        identity: bytes | None = metadata.get(b"identity")
        return identity

    def append(self, records: Sequence[Remembered]) -> None:
        """Write newly read files down."""
        last = self._files[-1] if self._files else "files-00000"
        number = int(last.rsplit("-", 1)[-1].split(".")[0]) + 1
        self._write(records, f"{self._folder}/files-{number:05d}.parquet")

    def compact(self, records: Iterable[Remembered], *, changed: bool) -> None:
        """Make one file of many, and forget what is gone, once it is worth it."""
        if not changed and len(self._files) < _COMPACT_FROM:
            return
        before = list(self._files)
        self.append(list(records))
        for file in before:  # the new file alone holds everything by now
            self._filesystem.rm_file(file)

    def _write(self, records: Sequence[Remembered], path: str) -> None:
        arrays = [
            pa.array([getattr(r, field.name) for r in records], field.type) for field in _SCHEMA
        ]
        schema = _SCHEMA.with_metadata({"identity": self._identity})
        write_table(pa.Table.from_arrays(arrays, schema=schema), path, self._filesystem)
        self._files = sorted({*self._files, path})
