"""Scan an archive once into a manifest; scan it again and only what is new is read.

In: a folder, file or s3:// prefix. Out: a manifest (see archive.manifest) and an IndexSummary.
Does not know: progress bars, pixels, Ray.

A series never changes its part file. A second run rewrites the parts whose rows changed, each
whole or not at all, then adds parts for new series; whenever it is stopped, the manifest holds
every series at most once, and the next run makes it whole.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, SecretStr

from raypipe.archive.addresses import as_name, as_text
from raypipe.archive.grouping import group_entries
from raypipe.archive.headers import header_from_json, quiet_pydicom
from raypipe.archive.identity import keyed_hash
from raypipe.archive.manifest import Row, first_row, manifest_row, part_files, read_part, write_rows
from raypipe.archive.scan import scan
from raypipe.archive.splitting import Entry
from raypipe.archive.state import Remembered, State
from raypipe.archive.storage import (
    MEMBER_MARK,
    StorageConfig,
    StoredObject,
    filesystem_for,
    is_s3,
    list_objects,
)
from raypipe.errors import ConfigError, SeriesError
from raypipe.settings import Settings

OnProgress = Callable[[int, int, int], None]
"""Called with files done, files in all, bytes read."""


class IndexConfig(Settings):
    """How an archive is indexed."""

    hash_key: SecretStr = Field(
        SecretStr(""),
        description="Secret of the archive that keys all hashes; without one, whoever knows a UID "
        "can find its row. A change needs a new manifest.",
    )
    rows_per_part: int = Field(2000, ge=1, description="Series in one part file.")
    remember_every: int = Field(
        20_000, ge=1, description="Files after which a stopped scan need not start anew."
    )


class IndexSummary(Settings):
    """What a scan found."""

    source: str
    files: int = Field(description="Files and members found.")
    files_read: int = Field(description="Of these, opened now because they are new or changed.")
    files_vanished: int = Field(description="Known before, not there any more.")
    dicomdir_ignored: int = Field(description="DICOMDIR files, which make no row.")
    series: int = Field(description="Rows of the manifest.")
    series_added: int
    series_changed: int
    series_removed: int
    status_counts: dict[str, int]
    reason_counts: dict[str, int]
    kind_counts: dict[str, int]
    source_bytes: int = Field(description="Size of all files and members.")
    bytes_read: int = Field(description="Bytes fetched to read headers.")
    seconds: float


def build_index(
    source: str,
    out: str,
    config: IndexConfig,
    on_progress: OnProgress = lambda done, total, size: None,
    *,
    storage: StorageConfig | None = None,
) -> IndexSummary:
    """Index an archive, or bring its manifest up to date.

    Args:
        source: folder, file or s3:// prefix.
        out: folder or s3:// prefix of the manifest; may lie inside the source.
        config: key and sizes.
        on_progress: called after every file.
        storage: how to reach S3.

    Raises:
        ConfigError: the source is missing or empty, or the manifest is of another source or key.
    """
    started = time.perf_counter()
    storage = storage or StorageConfig()
    source = _absolute(source, storage)
    objects = _listed(source, out, storage)
    if as_text(f"{source}/") != f"{source}/":
        raise ConfigError(
            f"source {as_text(source)}: its path is valid UTF-8 without '{MEMBER_MARK}', because "
            f"rows of the manifest hold it: rename a folder, or link to it under another name"
        )
    filesystem, path = filesystem_for(out, storage)
    _refuse_other(filesystem, path, source, config)
    state = _state(filesystem, path, source, config)
    known = state.load()
    with quiet_pydicom():
        current, volatile, bytes_read, files_read = _bring_up_to_date(
            objects, known, state, config, storage, on_progress
        )
    vanished = known.keys() - current.keys()
    state.compact(current.values(), changed=bool(vanished))
    everything = {**current, **volatile}
    entries = list(_entries(everything.values(), objects))
    rows = {
        row["series_key"]: row
        for row in (
            manifest_row(g, source, config.hash_key)
            for g in group_entries(e for e in entries if e.header.kind != "dicomdir")
        )
    }
    counts = _write(rows, filesystem, path, config.rows_per_part)
    return IndexSummary(
        source=source,
        files=len(entries),
        files_read=files_read,
        files_vanished=len([v for v in vanished if not known[v].members]),
        dicomdir_ignored=sum(e.header.kind == "dicomdir" for e in entries),
        series=len(rows),
        series_added=counts["added"],
        series_changed=counts["changed"],
        series_removed=counts["removed"],
        status_counts=_counted(row["status"] for row in rows.values()),
        reason_counts=_counted(row["reason"] for row in rows.values() if row["reason"]),
        kind_counts=_counted(row["kind"] or "other" for row in rows.values()),
        source_bytes=sum(e.byte_size for e in entries),
        bytes_read=bytes_read,
        seconds=time.perf_counter() - started,
    )


def check_manifest_key(manifest: str, config: IndexConfig, storage: StorageConfig) -> None:
    """See that a manifest was made with the same key of hashes, where it tells.

    Raises:
        ConfigError: it was made with another one.
    """
    filesystem, path = filesystem_for(manifest, storage)
    if filesystem.isdir(f"{path}/_state"):
        _state(filesystem, path, first_row(manifest, storage)["source"], config)


def _state(filesystem: Any, path: str, source: str, config: IndexConfig) -> State:
    state = State(filesystem, path, f"{source} {keyed_hash('raypipe', config.hash_key)}")
    if state.is_foreign():
        raise ConfigError(
            f"{path} was made with another index.hash_key: give that key, or a new folder"
        )
    return state


def _absolute(source: str, storage: StorageConfig) -> str:
    if is_s3(source):
        return source.rstrip("/")
    return filesystem_for(source, storage)[1]


def _listed(source: str, out: str, storage: StorageConfig) -> list[StoredObject]:
    """Every object of the source, without those of the manifest itself."""
    try:
        objects = list_objects(source, storage)
    except SeriesError as error:
        raise ConfigError(f"source {source} cannot be listed: {error.message}") from error
    own = out.rstrip("/") if is_s3(out) else filesystem_for(out, storage)[1]
    objects = [
        replace(o, relative=as_text(o.relative)) for o in objects if not o.uri.startswith(f"{own}/")
    ]
    if not objects:
        raise ConfigError(f"source {source} holds no files: check the address")
    return objects


def _refuse_other(filesystem: object, path: str, source: str, config: IndexConfig) -> None:
    for part in part_files(filesystem, path)[:1]:
        sources = {row["source"] for row in read_part(part, filesystem, ["source"])}
        if sources - {source}:
            raise ConfigError(
                f"{path} is the manifest of {sources.pop()}: give this source a folder of its own"
            )


def _bring_up_to_date(
    objects: Sequence[StoredObject],
    known: dict[str, Remembered],
    state: State,
    config: IndexConfig,
    storage: StorageConfig,
    on_progress: OnProgress,
) -> tuple[dict[str, Remembered], dict[str, Remembered], int, int]:
    """What is there now (lasting, and to be tried again), bytes fetched, files opened."""
    members: dict[str, list[Remembered]] = {}
    for record in known.values():
        if MEMBER_MARK in record.relative:
            members.setdefault(record.relative.split(MEMBER_MARK)[0], []).append(record)
    current: dict[str, Remembered] = {}
    to_read = []
    for stored in objects:
        before = known.get(stored.relative)
        if before and (before.byte_size, before.version) == (stored.byte_size, stored.version):
            current[stored.relative] = before
            if before.members:
                own = members.get(stored.relative, ())
                current.update((m.relative, m) for m in own if m.version == stored.version)
        else:
            to_read.append(stored)
    done, bytes_read = len(objects) - len(to_read), 0
    on_progress(done, len(objects), bytes_read)
    volatile: dict[str, Remembered] = {}
    fresh: list[Remembered] = []
    for scanned in scan(to_read, storage, config.hash_key):
        done, bytes_read = done + 1, bytes_read + scanned.bytes_read
        target = current if scanned.lasting else volatile
        target.update((record.relative, record) for record in scanned.records)
        if scanned.lasting:
            fresh.extend(scanned.records)
        if len(fresh) >= config.remember_every:
            state.append(fresh)
            fresh = []
        on_progress(done, len(objects), bytes_read)
    if fresh:
        state.append(fresh)
    return current, volatile, bytes_read, len(to_read)


def _entries(records: Iterable[Remembered], objects: Sequence[StoredObject]) -> Iterator[Entry]:
    """Files and members with their addresses; archive files themselves make no row."""
    uris = {o.relative: o.uri for o in objects}
    for record in records:
        if record.members:
            continue
        container, mark, member = record.relative.partition(MEMBER_MARK)
        yield Entry(
            relative=record.relative,
            uri=uris[container] + mark + as_name(member),
            byte_size=record.byte_size,
            header=header_from_json(record.header),
        )


def _write(rows: dict[str, Row], filesystem: object, path: str, rows_per_part: int) -> Counter[str]:
    """Write what differs from the parts that are there; returns how many rows did."""
    counts: Counter[str] = Counter()
    new = dict(rows)
    number = 0
    for part in part_files(filesystem, path):
        number = max(number, int(part.rsplit("-", 1)[-1].split(".")[0]) + 1)
        before = read_part(part, filesystem)
        now = [new.pop(r["series_key"]) for r in before if r["series_key"] in new]
        old = {r["series_key"]: r for r in before}
        counts["removed"] += len(before) - len(now)
        counts["changed"] += sum(old[r["series_key"]] != r for r in now)
        if now != before:
            write_rows(now, part, filesystem)
    counts["added"] = len(new)
    fresh = sorted(new.values(), key=lambda r: str(r["series_key"]))
    for i in range(0, len(fresh), rows_per_part):
        write_rows(fresh[i : i + rows_per_part], f"{path}/part-{number:05d}.parquet", filesystem)
        number += 1
    return counts


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
