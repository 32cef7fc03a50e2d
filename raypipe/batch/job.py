"""Run the archive job: index if need be, stream, commit, resume, sum up.

In: a source or a manifest, an output folder, a config. Out: result rows, and a RunSummary.
Does not know: what a stage decides, how progress is shown.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import ray
from pyarrow import fs as pafs
from ray.data.checkpoint import CheckpointConfig

from raypipe.archive.index import IndexSummary, build_index
from raypipe.archive.manifest import part_files, read_manifest
from raypipe.archive.storage import filesystem_for
from raypipe.batch.cluster import start_ray
from raypipe.batch.graph import build_graph
from raypipe.batch.output import ID_COLUMN, JOB_FILE, Output, as_arrow, count_rows, open_output
from raypipe.batch.summary import RunSummary, summarize
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError, Status

POLL_S = 1.0
"""How often committed rows are counted for the progress display."""


@dataclass(frozen=True)
class Progress:
    """How far a run is; counts come from committed rows, not from work in flight."""

    done: int
    total: int
    done_before: int
    status_counts: dict[str, int]
    elapsed_s: float


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    manifest: str
    output: str
    total: int
    done: int
    status_counts: dict[str, int]
    source_bytes: int


class Job:
    """One manifest, one output folder, one config.

    Args:
        source: a folder or s3:// address of a manifest, or of an archive, which is then indexed
            into the output folder.
        output: folder or s3:// address of the results.
        config: the resolved config.
        limit: work only on the first so many series of the manifest, by series_key.

    Raises:
        ConfigError: the output holds rows of a config that gives other results.
    """

    def __init__(
        self, source: str, output: str, config: RaypipeConfig, *, limit: int | None = None
    ) -> None:
        self._source, self._config, self._limit = source, config, limit
        self._source_is_manifest = bool(part_files(*filesystem_for(source, config.archive.storage)))
        self.output: Output = open_output(output, config.archive.storage)
        self._refuse_other_config()

    def index(self, on_progress: Callable[[int, int, int], None]) -> IndexSummary | None:
        """Index the source into the output folder; None where the source is a manifest."""
        if self._source_is_manifest:
            return None
        return build_index(
            self._source,
            self._manifest_uri(),
            self._config.index,
            on_progress,
            storage=self._config.archive.storage,
        )

    def plan(self) -> Plan:
        """What `run` would do; needs an index, changes nothing."""
        rows = self._manifest_rows([ID_COLUMN, "status", "instances"]).to_pylist()
        statuses = [row["status"] for row in rows]
        return Plan(
            manifest=self._manifest_uri(),
            output=self.output.path,
            total=len(rows),
            done=sum(count_rows(self.output, {}).values()),
            status_counts={s: statuses.count(s) for s in sorted(set(statuses))},
            source_bytes=sum(i["byte_size"] for row in rows for i in row["instances"] or ()),
        )

    def retry_failed(self) -> int:
        """Take back every failed row, so that `run` does it again; returns how many."""
        self.output.finish_taking_back()
        return self.output.take_back(Status.FAILED)

    def run(self, on_progress: Callable[[Progress], None]) -> RunSummary:
        """Do every series that has no row yet, and sum up."""
        self.output.finish_taking_back()
        self.output.write_text("config.yaml", self._config.to_yaml())
        record = {"manifest": self._manifest_uri(), "result_hash": self._config.result_hash}
        self.output.write_text(JOB_FILE, json.dumps(record) + "\n")
        filesystem, manifest = self._selected_manifest()
        total = self._manifest_rows([ID_COLUMN]).num_rows
        start_ray(self._config.run)
        started_at, started = datetime.now(UTC), time.perf_counter()
        with self._reporting(total, on_progress), self._checkpointing():
            graph = build_graph(manifest, filesystem, self._config)
            graph.write_parquet(self.output.results, filesystem=self.output.filesystem)
        columns = ["status", "reason", "flags", "findings", "report", "timings"]
        summary = summarize(
            self.output.iterate_rows(columns),
            started_at=started_at,
            wall_s=time.perf_counter() - started,
            in_manifest=total,
            run=self._config.run,
        )
        self.output.write_text("run.json", summary.model_dump_json(indent=2) + "\n")
        return summary

    def _refuse_other_config(self) -> None:
        text = self.output.read_text(JOB_FILE)
        before = json.loads(text)["result_hash"] if text is not None else None
        if before not in (None, self._config.result_hash) and self.output.result_files():
            raise ConfigError(
                f"{self.output.path} holds results of another config (hash {before}, now "
                f"{self._config.result_hash}): give --output another folder, or run with the "
                f"config.yaml that lies in it"
            )

    def _manifest_uri(self) -> str:
        return self._source if self._source_is_manifest else self.output.manifest_uri

    def _selected_manifest(self) -> tuple[pafs.FileSystem, list[str]]:
        """Filesystem and files of the rows to work on; `limit` needs a manifest of its own."""
        if self._limit is not None:
            self.output.write_table("selection/part-00000.parquet", self._manifest_rows())
            return self.output.filesystem, [f"{self.output.path}/selection/part-00000.parquet"]
        filesystem, path = filesystem_for(self._manifest_uri(), self._config.archive.storage)
        return as_arrow(filesystem), part_files(filesystem, path)

    def _manifest_rows(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows to work on: the whole manifest, or its first `limit` rows by series_key."""
        rows = read_manifest(self._manifest_uri(), self._config.archive.storage, columns)
        return rows if self._limit is None else rows.sort_by(ID_COLUMN).slice(0, self._limit)

    @contextmanager
    def _checkpointing(self) -> Iterator[None]:
        """Let Ray Data commit rows in two phases and leave out committed ones on a resume."""
        context = ray.data.DataContext.get_current()
        names = ("checkpoint_config", "enable_progress_bars", "use_datasource_v2")
        before = {name: getattr(context, name) for name in names}
        context.enable_progress_bars = False  # the caller shows committed rows instead
        # The newer Parquet reader starts 32 actors to read the footers of a manifest's few files.
        context.use_datasource_v2 = False
        context.checkpoint_config = CheckpointConfig(
            ID_COLUMN,
            self.output.checkpoint,
            override_filesystem=self.output.filesystem,
            delete_checkpoint_on_success=False,
        )
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(context, name, value)

    @contextmanager
    def _reporting(self, total: int, on_progress: Callable[[Progress], None]) -> Iterator[None]:
        """Call on_progress with the committed rows every POLL_S, and once at the end."""
        counted: dict[str, dict[str, int]] = {}
        done_before = sum(count_rows(self.output, counted).values())
        started, stop = time.perf_counter(), threading.Event()

        def report() -> None:
            counts = count_rows(self.output, counted)
            elapsed_s = time.perf_counter() - started
            on_progress(Progress(sum(counts.values()), total, done_before, counts, elapsed_s))

        def poll() -> None:
            while not stop.wait(POLL_S):
                report()

        poller = threading.Thread(target=poll, name="raypipe-progress", daemon=True)
        poller.start()
        try:
            yield
        finally:
            stop.set()
            poller.join()
        report()
