"""Run the archive job: index if need be, stream, commit, resume, sum up.

In: a source or a manifest, an output folder, a config. Out: result rows, and a RunSummary.
Does not know: what a stage decides, how progress is shown.
"""

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import ray
from pyarrow import fs as pafs
from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data.checkpoint import CheckpointConfig

from raypipe.archive.index import IndexSummary, build_index, check_manifest_key
from raypipe.archive.manifest import part_files, read_manifest, series_keys
from raypipe.archive.storage import absolute, filesystem_for
from raypipe.batch.attempts import Attempts
from raypipe.batch.cluster import start_ray, told_by_worker
from raypipe.batch.committed import Committed
from raypipe.batch.executor_watch import ExecutorWatch
from raypipe.batch.gate import Clock, open_gate, utc_now
from raypipe.batch.graph import build_graph
from raypipe.batch.mend import mend
from raypipe.batch.monitor import Monitor, Watched
from raypipe.batch.output import ID_COLUMN, JOB_FILE, Output, as_arrow, open_output
from raypipe.batch.progress import Progress as Progress
from raypipe.batch.run_ahead import POLICIES
from raypipe.batch.run_log import RunLog
from raypipe.batch.summary import RunSummary, summarize
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError, Status

_SELECTION = "selection"


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
        clock: tells the hour that the schedule is compared with.
        on_log: gets every line of the log as well.

    Raises:
        ConfigError: the output holds rows of a config that gives other results, or the manifest
            was made with another key of hashes.
    """

    def __init__(
        self,
        source: str,
        output: str,
        config: RaypipeConfig,
        *,
        limit: int | None = None,
        clock: Clock = utc_now,
        on_log: Callable[[str], None] | None = None,
    ) -> None:
        self._source, self._config, self._limit = source, config, limit
        self._clock, self._on_log = clock, on_log
        self._source_is_manifest = bool(part_files(*filesystem_for(source, config.archive.storage)))
        self.output: Output = open_output(output, config.archive.storage)
        self._attempts = Attempts(self.output.uri, config.archive.storage)
        if self._source_is_manifest:
            check_manifest_key(source, config.index, config.archive.storage)
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
        committed = Committed(self.output, {row[ID_COLUMN] for row in rows})
        committed.poll()
        return Plan(
            manifest=self._manifest_uri(),
            output=self.output.path,
            total=len(rows),
            done=committed.done,
            status_counts={s: statuses.count(s) for s in sorted(set(statuses))},
            source_bytes=sum(i["byte_size"] for row in rows for i in row["instances"] or ()),
        )

    def count_failed(self) -> int:
        """How many rows `retry_failed` would take back; changes nothing."""
        return len(self.output.keys_of(Status.FAILED))

    def retry_failed(self, reasons: Collection[str] = ()) -> int:
        """Take back failed rows, of some reasons or all, so that `run` does them again.

        Returns:
            how many.
        """
        self.output.finish_taking_back()
        keys = self.output.take_back(Status.FAILED, reasons)
        self._attempts.forget(keys)
        return len(keys)

    def run(self, on_progress: Callable[[Progress], None]) -> RunSummary:
        """Do every series that has no row yet, and sum up.

        Raises:
            RunStoppedError: too large a share of the series failed.
        """
        self.output.finish_taking_back()
        run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        log = RunLog(self.output, run_id, self._on_log)
        mended = mend(self.output)
        if mended:
            log.event("mended", **mended)
        self._write_record()
        wanted = series_keys(self._manifest_uri(), self._config.archive.storage, self._limit)
        start_ray(self._config.run)
        started_at, started = datetime.now(UTC), time.perf_counter()
        watched = Watched(self.output, run_id, wanted, self._config.run, self._clock)
        self._execute(Monitor(watched, log, on_progress))
        columns = ["status", "reason", "attempts", "flags", "findings", "report", "timings"]
        summary = summarize(
            self.output.iterate_rows([ID_COLUMN, *columns]),
            started_at=started_at,
            wall_s=time.perf_counter() - started,
            wanted=wanted,
            run=self._config.run,
        )
        self.output.write_text("run.json", summary.model_dump_json(indent=2) + "\n")
        return summary

    def _execute(self, monitor: Monitor) -> None:
        """Run the graph; what it was working on when it ended in order counts as not begun."""
        filesystem, manifest = self._selected_manifest()
        self._attempts.make_folder()
        gate = open_gate(self._config.run, self._clock)
        try:
            with monitor, self._checkpointing():
                graph = build_graph(manifest, filesystem, self._config, self._attempts, gate)
                # every page gets a checksum, which `raypipe verify` compares
                graph.write_parquet(
                    self.output.results, filesystem=self.output.filesystem, write_page_checksum=True
                )
        except BaseException as error:
            self._attempts.forgive()
            if monitor.stopped is not None:
                raise monitor.stopped from None
            told = told_by_worker(error)
            if told is not None:
                raise told from None
            raise
        finally:
            if gate is not None:
                ray.kill(gate)
            if self._limit is not None:
                self.output.remove_folder(_SELECTION)

    def _write_record(self) -> None:
        self.output.write_text("config.yaml", self._config.to_yaml())
        record: dict[str, Any] = {"manifest": absolute(self._manifest_uri()), "limit": self._limit}
        record["result_hash"] = self._config.result_hash
        self.output.write_text(JOB_FILE, json.dumps(record) + "\n")

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
            name = f"{_SELECTION}/part-00000.parquet"
            self.output.write_table(name, self._manifest_rows())
            return self.output.filesystem, [f"{self.output.path}/{name}"]
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
        names = (
            *("checkpoint_config", "enable_progress_bars", "use_datasource_v2"),
            "custom_execution_callback_classes",
        )
        before = {name: getattr(context, name) for name in names}
        context.enable_progress_bars = False  # the caller shows committed rows instead
        # The newer Parquet reader starts 32 actors to read the footers of a manifest's few files.
        context.use_datasource_v2 = False
        context.custom_execution_callback_classes = [ExecutorWatch]
        policies = context.get_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY)
        context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, POLICIES)
        context.checkpoint_config = CheckpointConfig(
            ID_COLUMN,
            self.output.checkpoint,
            override_filesystem=self.output.filesystem,
            delete_checkpoint_on_success=False,
        )
        try:
            yield
        finally:
            context.remove_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY)
            if policies is not None:
                context.set_config(ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, policies)
            for name, value in before.items():
                setattr(context, name, value)
