"""What is kept of jobs, on disk or S3, so that none is lost whatever dies.

    FOLDER/JOB/job.json         the record; a job exists once it is there
    FOLDER/JOB/upload/          what the caller sent
    FOLDER/JOB/manifest/        the index of it
    FOLDER/JOB/results.parquet  the rows, as batch writes them
    FOLDER/JOB/out/KEY/         exports and pictures of a series

In: records, rows, files. Out: the same. Does not know: the order of jobs, callers, Ray.
"""

import contextlib
import io
import os
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from pydantic import Field, ValidationError

from raypipe.archive.manifest import is_s3_filesystem
from raypipe.archive.storage import StorageConfig, filesystem_for, is_s3
from raypipe.parquet import read_parquet
from raypipe.settings import Settings
from raypipe.sink.schema import RESULT_SCHEMA, to_table

Row = dict[str, Any]

_JOB_ID = re.compile(r"[0-9a-f]{32}")


class State(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({State.DONE, State.FAILED, State.CANCELLED})


class SeriesState(Settings):
    """One series of a job."""

    series_key: str
    status: str = Field(description="pending, ok, rejected or failed")
    reason: str | None = None
    message: str | None = None
    kind: str | None = None
    modality: str | None = None
    body_part: str | None = None
    instances: int = 0
    shape_zyx: list[int] | None = None
    spacing_zyx_mm: list[float | None] | None = None
    findings: int | None = Field(None, description="how many")
    needs_review: bool | None = None


class JobRecord(Settings):
    """One job; what is written down of it."""

    id: str
    owner: str
    state: State = State.QUEUED
    created_at: datetime
    finished_at: datetime | None = None
    source: str = Field(description="where its series lie")
    uploaded: bool = Field(description="whether that is an upload, which is deleted in time")
    upload_deleted: bool = False
    adapter: str | None = None
    export_at_end: bool = Field(False, description="SR and SEG are made without being asked for")
    byte_size: int = 0
    attempts: int = 0
    stage: str = "load"
    fraction: float = 0.0
    reason: str | None = None
    message: str | None = None
    series: tuple[SeriesState, ...] = ()
    studies: tuple[str, ...] = Field((), description="StudyInstanceUIDs of the exports")

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    @property
    def has_upload(self) -> bool:
        """Whether there is an upload that is deleted in time."""
        return self.uploaded and not self.upload_deleted

    def changed(self, **values: Any) -> "JobRecord":
        """A copy with other values."""
        return self.model_copy(update=values)


def now() -> datetime:
    """The time, UTC."""
    return datetime.now(UTC)


class JobStore:
    """The folder of jobs.

    Args:
        folder: path or s3:// prefix.
        storage: how S3 is reached.
    """

    def __init__(self, folder: str, storage: StorageConfig) -> None:
        self.uri = folder.rstrip("/") if is_s3(folder) else str(Path(folder).absolute())
        self._fs, self._root = filesystem_for(self.uri, storage)
        self._remote = is_s3_filesystem(self._fs)
        if not self._remote:
            Path(self._root).mkdir(parents=True, exist_ok=True, mode=0o700)

    def address(self, job_id: str, name: str) -> str:
        """The address of something of a job."""
        return f"{self.uri}/{_checked(job_id)}/{name}"

    def spool(self, job_id: str) -> Path:
        """A local folder for an upload that is on its way."""
        parent = Path(self._root) if not self._remote else Path(os.environ.get("TMPDIR", "/tmp"))
        folder = parent / f".spool-{_checked(job_id)}"
        folder.mkdir(parents=True, mode=0o700)
        return folder

    def adopt(self, job_id: str, spool: Path) -> str:
        """Move an upload that is complete to its job; returns its address."""
        target = self.address(job_id, "upload")
        if self._remote:
            self._fs.put(f"{spool}/", target.removeprefix("s3://"), recursive=True)
            shutil.rmtree(spool)
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            spool.replace(target)
        return target

    def write(self, record: JobRecord) -> None:
        """Write a record down; it is on stable storage once this returns."""
        self.put(record.id, "job.json", record.model_dump_json().encode())

    def load(self) -> list[JobRecord]:
        """Every record, oldest first; a folder without one is no job."""
        found = []
        for name in self._children():
            content = self.get(name, "job.json")
            if content is not None:
                with contextlib.suppress(ValidationError):  # of another version
                    found.append(JobRecord.model_validate_json(content))
        return sorted(found, key=lambda record: record.created_at)

    def put(self, job_id: str, name: str, content: bytes) -> None:
        """Write a file of a job, whole or not at all."""
        path = f"{self._root}/{_checked(job_id)}/{name}"
        if self._remote:
            self._fs.pipe_file(path, content)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = target.with_name(f".{target.name}.part")
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name too
        finally:
            os.close(folder)

    def get(self, job_id: str, name: str) -> bytes | None:
        """A file of a job; None where there is none."""
        try:
            return bytes(self._fs.cat_file(f"{self._root}/{_checked(job_id)}/{name}"))
        except FileNotFoundError:
            return None

    def put_rows(self, job_id: str, rows: Sequence[Row]) -> None:
        """Write the result rows of a job."""
        buffer = io.BytesIO()
        pq.write_table(to_table(rows, RESULT_SCHEMA), buffer, compression="zstd")
        self.put(job_id, "results.parquet", buffer.getvalue())

    def get_rows(self, job_id: str) -> list[Row]:
        """The result rows of a job, by series_key; none where there are none."""
        content = self.get(job_id, "results.parquet")
        if content is None:
            return []
        rows: list[Row] = read_parquet(content).to_pylist()
        return sorted(rows, key=lambda row: str(row["series_key"]))

    def erase(self, job_id: str, name: str = "") -> None:
        """Delete a job, or a folder of it; deleting twice is fine."""
        path = f"{self._root}/{_checked(job_id)}" + (f"/{name}" if name else "")
        if not self._remote:
            shutil.rmtree(path, ignore_errors=True)
        elif self._fs.exists(path):
            self._fs.rm(path, recursive=True)

    def strays(self, known: set[str], older_than_s: float) -> list[str]:
        """Delete what uploads left that never became a job; returns how they were called."""
        if self._remote:  # spools lie on local disks, and an upload is adopted at once
            return []
        limit = now().timestamp() - older_than_s
        gone = []
        for entry in Path(self._root).iterdir():
            job_id = entry.name.removeprefix(".spool-")
            if not _JOB_ID.fullmatch(job_id) or job_id in known:
                continue
            if entry.stat().st_mtime < limit and not (entry / "job.json").exists():
                shutil.rmtree(entry, ignore_errors=True)
                gone.append(entry.name)
        return gone

    def _children(self) -> list[str]:
        if not self._fs.isdir(self._root):
            return []
        if self._remote:
            self._fs.invalidate_cache(self._root)
        names = [str(n).rstrip("/").rsplit("/", 1)[-1] for n in self._fs.ls(self._root, False)]
        return [name for name in names if _JOB_ID.fullmatch(name)]


def _checked(job_id: str) -> str:
    assert _JOB_ID.fullmatch(job_id), "a job id is made by us and checked at the door"
    return job_id
