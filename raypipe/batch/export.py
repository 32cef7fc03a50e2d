"""Write the results of a job as DICOM SR, DICOM SEG and FHIR.

    OUT/SERIES_KEY/sr.dcm seg.dcm fhir.json
    OUT/export.json          what was written, and for which series something could not be, and why

A file of an earlier export that this one cannot write anew is taken away.

In: an output folder of a job and the archive that it read. Out: files on disk or S3, a summary.
Does not know: what stands in the files (raypipe.exports does).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raypipe.archive.deidentify import Deidentifier
from raypipe.archive.manifest import is_s3_filesystem, read_manifest, series_ref
from raypipe.archive.storage import filesystem_for
from raypipe.batch.output import ID_COLUMN, JOB_FILE, Output
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError
from raypipe.exports import FILE_NAMES, Format, export_row
from raypipe.types import SeriesRef

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """What could not be written of one series.

    Args:
        series_key: the series.
        formats: those not written.
        reason: why, without patient data.
    """

    series_key: str
    formats: tuple[Format, ...]
    reason: str


@dataclass(frozen=True, kw_only=True)
class ExportSummary:
    """What an export did.

    Args:
        series: rows that were looked at.
        written: format -> files.
        skipped: what is missing, by series.
        key_is_random: whether keyed names hold for this export alone.
    """

    series: int
    written: dict[Format, int]
    skipped: tuple[Skipped, ...] = field(repr=False)
    key_is_random: bool


def parse_formats(text: str) -> tuple[Format, ...]:
    """The formats of a list such as "sr,fhir".

    Raises:
        ConfigError: one of them is not known.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in set(Format)]
    if unknown or not names:
        known = ", ".join(Format)
        raise ConfigError(f"--format {text!r}: write one or more of {known}, parted by commas")
    return tuple(dict.fromkeys(Format(name) for name in names))


class Exporter:
    """One export; holds the manifest and the key.

    Args:
        results: the output folder of a job.
        out: folder or s3:// prefix to write into.
        formats: what to write.
        config: how the archive is reached, its hash key, and whose name stands on what is written.

    Raises:
        ConfigError: the folder holds no results, or its manifest is gone.
    """

    def __init__(
        self,
        results: Output,
        out: str,
        formats: Sequence[Format],
        config: RaypipeConfig,
    ) -> None:
        record = results.read_text(JOB_FILE)
        if record is None:
            raise ConfigError(f"{results.uri} holds no results: make some with `raypipe run`")
        self._results, self._formats = results, tuple(formats)
        self._storage, self._identity = config.archive.storage, config.export.identity
        self._manifest = read_manifest(json.loads(record)["manifest"], self._storage)
        keys = self._manifest[ID_COLUMN].to_pylist()
        self._places = {key: place for place, key in enumerate(keys)}
        self._filesystem, self._folder = filesystem_for(out, self._storage)
        self._deidentifier = (
            Deidentifier(config.export, config.index.hash_key)
            if self._identity == "keyed"
            else None
        )

    def run(self, keys: Sequence[str], on_progress: Callable[[int, int], None]) -> ExportSummary:
        """Export every row whose key begins with one of `keys` (all if empty).

        Raises:
            ConfigError: no row is meant.
        """
        wanted = {
            row[ID_COLUMN]
            for row in self._results.iterate_rows([ID_COLUMN])
            if not keys or row[ID_COLUMN].startswith(tuple(keys))
        }
        if not wanted:
            raise ConfigError(f"{self._results.uri} has no series {', '.join(keys) or 'at all'}")
        written = dict.fromkeys(self._formats, 0)
        skipped: list[Skipped] = []
        rows = (row for row in self._results.iterate_rows() if row[ID_COLUMN] in wanted)
        for done, row in enumerate(rows, start=1):
            skipped += self._export(row, written)
            on_progress(done, len(wanted))
        summary = ExportSummary(
            series=len(wanted),
            written=written,
            skipped=tuple(sorted(skipped, key=lambda s: s.series_key)),
            key_is_random=self._deidentifier is not None and self._deidentifier.key_is_random,
        )
        record = asdict(summary) | {"identity": self._identity}
        self._write("export.json", json.dumps(record, indent=1).encode())
        return summary

    def _export(self, row: Row, written: dict[Format, int]) -> list[Skipped]:
        """Write one row and count its files; what could not be written."""
        key = row[ID_COLUMN]
        exported = export_row(row, self._ref(key), self._formats, self._storage, self._deidentifier)
        for format_, content in exported.contents.items():
            self._write(f"{key}/{FILE_NAMES[format_]}", content)
            written[format_] += 1
        by_reason: dict[str, list[Format]] = {}
        for format_, reason in exported.missing.items():
            self._remove(f"{key}/{FILE_NAMES[format_]}")
            by_reason.setdefault(reason, []).append(format_)
        return [
            Skipped(series_key=key, formats=tuple(formats), reason=reason)
            for reason, formats in by_reason.items()
        ]

    def _ref(self, key: str) -> SeriesRef | None:
        """Where a series lies; None where that is not known or it holds nothing to read."""
        place = self._places.get(key)
        listed = None if place is None else self._manifest.slice(place, 1).to_pylist()[0]
        return None if listed is None or listed["kind"] is None else series_ref(listed)

    def _remove(self, name: str) -> None:
        """Take away what an earlier export wrote, which may tell of another result."""
        target = f"{self._folder}/{name}"
        if not is_s3_filesystem(self._filesystem):
            Path(target).unlink(missing_ok=True)
        elif self._filesystem.isfile(target):
            self._filesystem.rm_file(target)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all: S3 puts are, on disk a rename is."""
        target = f"{self._folder}/{name}"
        if is_s3_filesystem(self._filesystem):
            self._filesystem.pipe_file(target, content)
            return
        path = Path(target)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(content)
        part.replace(path)
