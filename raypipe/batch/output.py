"""The folder that a job writes, on disk or S3, and what may be done to it.

    OUTPUT/results/*.parquet      one row per series (sink.schema.RESULT_SCHEMA)
    OUTPUT/checkpoint/*.parquet   series_key of every committed row; Ray Data resumes from it
    OUTPUT/manifest/              where the job indexed a source itself
    OUTPUT/config.yaml            the resolved config
    OUTPUT/job.json               where the manifest lies, and the hash of the config
    OUTPUT/run.json               the summary of the last run
    OUTPUT/attempts/              what is being worked on (batch.attempts)
    OUTPUT/progress.json          how far a run is (batch.progress)
    OUTPUT/log.jsonl              what happened (batch.run_log)
    OUTPUT/retry.json             only while rows are being taken back for a retry
    OUTPUT/selection/             only while a run with a limit works: its rows of the manifest

In: an address. Out: paths, rows, and the two ways to change a finished folder.
Does not know: Ray, the stages.
"""

import io
import json
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from raypipe.archive.storage import StorageConfig, filesystem_for, is_s3
from raypipe.errors import ConfigError, Status

log = logging.getLogger(__name__)

ID_COLUMN = "series_key"
JOB_FILE = "job.json"
PENDING = ".pending.parquet"
"""End of the names of checkpoint files that Ray Data has not committed yet."""


@dataclass(frozen=True)
class Output:
    """Where the results of one job lie.

    Args:
        filesystem: a pyarrow filesystem.
        path: the folder on it, without a protocol.
        uri: the folder as the user named it.
    """

    filesystem: pafs.FileSystem
    path: str
    uri: str

    @property
    def on_s3(self) -> bool:
        """Whether it lies on S3, where a file is written as a whole or not at all."""
        return is_s3(self.uri)

    @property
    def results(self) -> str:
        """Folder of the result rows."""
        return f"{self.path}/results"

    @property
    def checkpoint(self) -> str:
        """Folder of the committed ids."""
        return f"{self.path}/checkpoint"

    @property
    def manifest_uri(self) -> str:
        """Address of the manifest that the job made itself."""
        return f"{self.uri}/manifest"

    def read_text(self, name: str) -> str | None:
        """A small file of the folder, None where there is none."""
        if not self._is_file(f"{self.path}/{name}"):
            return None
        with self.filesystem.open_input_stream(f"{self.path}/{name}") as stream:
            return bytes(stream.read()).decode("utf-8")

    def read_job(self) -> dict[str, Any]:
        """What job.json tells of the job that wrote the folder.

        Raises:
            ConfigError: the folder holds no job.
        """
        text = self.read_text(JOB_FILE)
        if text is None:
            raise ConfigError(f"{self.uri} holds no job: give the --output of a `raypipe run`")
        job: dict[str, Any] = json.loads(text)
        return job

    def write_text(self, name: str, text: str) -> None:
        """Write a small file whole or not at all."""
        with self._replacing(name) as stream:
            stream.write(text.encode("utf-8"))

    def write_table(self, name: str, table: pa.Table) -> None:
        """Write a Parquet file whole or not at all."""
        with self._replacing(name) as stream:
            pq.write_table(table, stream, write_page_checksum=True)

    def remove_folder(self, name: str) -> None:
        """Remove a folder with all that is in it."""
        self.filesystem.delete_dir(f"{self.path}/{name}")

    def result_files(self) -> list[str]:
        """The files of the result rows, sorted."""
        return _parquet_files(self.filesystem, self.results)

    def checkpoint_files(self) -> list[str]:
        """Paths of the files of committed and of pending ids, sorted."""
        return _parquet_files(self.filesystem, self.checkpoint)

    def iterate_rows(self, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """Result rows one by one; no more than one file is in memory."""
        for file in self.result_files():
            table = self.read_rows(file, columns)
            if table is not None:
                yield from table.to_pylist()

    def read_rows(
        self, file: str, columns: Sequence[str] | None = None, *, check_pages: bool = False
    ) -> pa.Table | None:
        """The rows of one file; None where it is not whole.

        Ray Data writes a file in place and commits it afterwards: one that is being written, or
        that a kill cut off, holds nothing committed, and a resume does its series again.

        Args:
            file: its path.
            columns: those to read, as far as the file has them; all if None.
            check_pages: also compare every page with its checksum, and raise where one differs.

        Raises:
            OSError: a page differs from its checksum.
        """
        try:
            with self.filesystem.open_input_file(file) as opened:
                parquet = pq.ParquetFile(opened, page_checksum_verification=check_pages)
                known = parquet.schema_arrow.names
                wanted = None if columns is None else [c for c in columns if c in known]
                return parquet.read(columns=wanted, use_threads=False)  # see raypipe/parquet.py
        except (ValueError, FileNotFoundError):  # of pyarrow too: ArrowInvalid is a ValueError
            log.info("left out %s: it is not whole (yet)", file.rsplit("/", 1)[-1])
            return None

    def keys_of(self, status: Status, reasons: Collection[str] = ()) -> list[str]:
        """series_key of the rows of this status, and of these reasons where some are named."""
        return [
            row[ID_COLUMN]
            for row in self.iterate_rows([ID_COLUMN, "status", "reason"])
            if row["status"] == status and (not reasons or row["reason"] in reasons)
        ]

    def take_back(self, status: Status, reasons: Collection[str] = ()) -> list[str]:
        """Make rows of this status undone, so that the next run does them again.

        A journal is written first and worked off by `finish_taking_back`, which every run calls:
        a stop half-way neither loses nor doubles a row.

        Args:
            status: of the rows.
            reasons: only those that ended for one of these; all if empty.

        Returns:
            series_key of the rows that were taken back.
        """
        keys = self.keys_of(status, reasons)
        if keys:
            self.write_text("retry.json", json.dumps(keys))
            self.finish_taking_back()
        return keys

    def finish_taking_back(self) -> None:
        """Work off the journal of `take_back`, if one is left; doing it twice changes nothing."""
        journal = self.read_text("retry.json")
        if journal is None:
            return
        keys = json.loads(journal)
        for file in (*self.result_files(), *self.checkpoint_files()):
            self.drop_rows(file, keys)
        self.filesystem.delete_file(f"{self.path}/retry.json")

    def drop_rows(self, file: str, series_keys: Sequence[str]) -> None:
        """Take rows out of one file, which goes with its last row."""
        table = self.read_rows(file)
        if table is None:
            return
        keys = pa.array(series_keys, pa.string())
        kept = table.filter(pc.invert(pc.is_in(table[ID_COLUMN], keys)))
        if kept.num_rows == table.num_rows:
            return
        if kept.num_rows == 0:
            self.filesystem.delete_file(file)
            return
        folder, name = file.rsplit("/", 2)[-2:]
        self.write_table(f"{folder}/{name}", kept)

    def _replacing(self, name: str) -> "_Replacing":
        return _Replacing(self.filesystem, f"{self.path}/{name}", on_s3=self.on_s3)

    def _is_file(self, path: str) -> bool:
        return bool(self.filesystem.get_file_info(path).type == pafs.FileType.File)


class _Replacing:
    """A file that appears under its name only when it is complete: a put on S3, else a rename."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, *, on_s3: bool) -> None:
        self._filesystem, self._path, self._on_s3 = filesystem, path, on_s3
        self._part = f"{path}.part"

    def __enter__(self) -> Any:
        if self._on_s3:
            self._stream: Any = io.BytesIO()
        else:
            self._filesystem.create_dir(self._path.rsplit("/", 1)[0], recursive=True)
            self._stream = self._filesystem.open_output_stream(self._part)
        return self._stream

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._on_s3:
            if kind is None:
                with self._filesystem.open_output_stream(self._path) as stream:
                    stream.write(self._stream.getvalue())
            return
        self._stream.close()
        if kind is None:
            self._filesystem.move(self._part, self._path)
        else:
            self._filesystem.delete_file(self._part)


def open_output(uri: str, storage: StorageConfig) -> Output:
    """The output folder at a path or an s3:// address; it need not exist yet."""
    filesystem, path = filesystem_for(uri, storage)
    return Output(as_arrow(filesystem), path.rstrip("/"), uri.rstrip("/"))


def stem(file: str) -> str:
    """The name of a Parquet file without its ending."""
    return file.rsplit("/", 1)[-1].removesuffix(".parquet")


def as_arrow(filesystem: Any) -> pafs.FileSystem:
    """An fsspec filesystem as pyarrow and Ray Data take it."""
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem))


def _parquet_files(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    selector = pafs.FileSelector(folder, allow_not_found=True)
    try:
        found = filesystem.get_file_info(selector)
    except NotADirectoryError:  # on S3 the first file may come between two looks of pyarrow's
        found = filesystem.get_file_info(selector)
    files = (each.path for each in found if each.type == pafs.FileType.File)
    return sorted(path for path in files if path.endswith(".parquet"))
