"""Audit an output folder: every series of the manifest once, every file as it was written.

In: an output folder, on disk or S3. Out: an Audit. Does not know: the stages, how it is shown.

Every page of a result file carries a checksum, which is compared here; so a file that was changed
or cut off after it was written is found, wherever it lies.
"""

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa
from pydantic import Field

from raypipe.archive.manifest import series_keys
from raypipe.archive.storage import StorageConfig
from raypipe.batch.output import ID_COLUMN, PENDING, Output, stem
from raypipe.settings import Settings
from raypipe.sink.schema import RESULT_SCHEMA


class Audit(Settings):
    """What an audit found; everything but the counts is empty where all is well."""

    series_in_manifest: int
    rows: int
    files: int
    missing: tuple[str, ...] = Field((), description="Series of the manifest without a row.")
    double: tuple[str, ...] = Field((), description="Series with more than one row.")
    orphan: tuple[str, ...] = Field((), description="Rows of series that the manifest lacks.")
    uncommitted: tuple[str, ...] = Field(
        (), description="Rows that the checkpoint lacks: a next run would do them again."
    )
    lost: tuple[str, ...] = Field(
        (), description="Series that count as done in the checkpoint, but have no row."
    )
    damaged: dict[str, str] = Field({}, description="Result files that cannot be read, and why.")
    other_schema: dict[str, str] = Field(
        {}, description="Result files with columns of another kind, and which."
    )
    in_flight: tuple[str, ...] = Field(
        (), description="Files of a run that works on the folder, or was killed while it did."
    )

    @property
    def problems(self) -> dict[str, int]:
        """How many of each kind of fault there are."""
        kinds = ("missing", "double", "orphan", "uncommitted", "lost", "damaged", "other_schema")
        return {kind: len(getattr(self, kind)) for kind in kinds if getattr(self, kind)}


def verify(output: Output, storage: StorageConfig) -> Audit:
    """Compare manifest, rows and checkpoint of an output folder, and check every file.

    Raises:
        ConfigError: the folder holds no job.
    """
    wanted = _wanted(output, storage)
    checkpoint = output.checkpoint_files()
    pending = [stem(f).removesuffix(".pending") for f in checkpoint if f.endswith(PENDING)]
    committed = set(_ids(output, (f for f in checkpoint if not f.endswith(PENDING))))
    counts: Counter[str] = Counter()
    damaged, other_schema, in_flight = {}, {}, []
    for file in output.result_files():
        name = file.rsplit("/", 1)[-1]
        if stem(file).startswith(tuple(pending)):
            in_flight.append(name)
            continue
        table, fault = _checked(output, file)
        if table is None:
            damaged[name] = fault
            continue
        counts.update(table[ID_COLUMN].to_pylist())
        if fault:
            other_schema[name] = fault
    return Audit(
        series_in_manifest=len(wanted),
        rows=counts.total(),
        files=len(output.result_files()),
        missing=tuple(sorted(wanted - counts.keys())),
        double=tuple(sorted(key for key, number in counts.items() if number > 1)),
        orphan=tuple(sorted(counts.keys() - wanted)),
        uncommitted=tuple(sorted(counts.keys() - committed)),
        lost=tuple(sorted(committed - counts.keys())),
        damaged=damaged,
        other_schema=other_schema,
        in_flight=tuple(in_flight),
    )


def _wanted(output: Output, storage: StorageConfig) -> set[str]:
    """The series that the last run was asked for."""
    job = output.read_job()
    manifest, limit = job["manifest"], job.get("limit")
    wanted = series_keys(manifest, storage, limit)
    if limit is not None:
        # rows of an earlier run with a larger part are no orphans
        done = _ids(output, output.checkpoint_files())
        wanted |= series_keys(manifest, storage).intersection(done)
    return wanted


def _checked(output: Output, file: str) -> tuple[pa.Table | None, str]:
    """The rows of a file, and what is wrong with it."""
    try:
        table = output.read_rows(file, check_pages=True)
    except (OSError, ValueError, MemoryError, pa.ArrowException) as error:
        text = "a checksum differs" if "CRC" in str(error) else "it cannot be read"
        return None, f"{text} ({type(error).__name__})"
    if table is None:
        return None, "it is not a whole Parquet file"
    if ID_COLUMN not in table.column_names:
        return None, f"it has no column {ID_COLUMN}"
    return table, _schema_fault(table.schema)


def _schema_fault(schema: pa.Schema) -> str:
    known = {field.name: field.type for field in RESULT_SCHEMA}
    found = {field.name: field.type for field in schema}
    wrong = [name for name in known | found if known.get(name) != found.get(name)]
    return f"columns {', '.join(wrong)}" if wrong else ""


def _ids(output: Output, files: Iterable[str]) -> Iterable[str]:
    for file in files:
        table = output.read_rows(file, [ID_COLUMN])
        if table is not None:
            yield from table[ID_COLUMN].to_pylist()
