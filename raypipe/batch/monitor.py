"""Watch a run from its driver: count, tell, write down, and end it when too much fails.

In: committed rows, the state of the executor, a clock. Out: Progress for the display,
progress.json, log events, metrics; RunStoppedError inside the executor.
Does not know: the graph, the stages.

A thread of its own looks every POLL_S; the executor's thread calls `step`.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from raypipe.batch import metrics
from raypipe.batch.advice import pool_advice
from raypipe.batch.committed import Committed
from raypipe.batch.executor_watch import ExecutorWatch, PoolState, wait_for_writers
from raypipe.batch.gate import Clock, closed_until
from raypipe.batch.output import Output
from raypipe.batch.progress import PROGRESS_FILE, Progress, ProgressRecord
from raypipe.batch.run_log import RunLog
from raypipe.config import RunConfig
from raypipe.errors import RunStoppedError, Status

log = logging.getLogger(__name__)

POLL_S = 1.0
"""How often committed rows are counted for the progress display."""
_RECORD_S = 5.0
_SAMPLE_S = 0.5
_SAMPLES = 240
_SAMPLES_FOR_ADVICE = 60


@dataclass(frozen=True)
class Watched:
    """What a monitor is told of a run.

    Args:
        output: where its rows go.
        run_id: its name.
        wanted: keys of the series that it is to end with.
        run: limits, pools and hours.
        clock: tells the hour.
    """

    output: Output
    run_id: str
    wanted: Set[str]
    run: RunConfig
    clock: Clock


class Monitor:
    """Watches one run; a context manager around its execution.

    Args:
        watched: the run.
        log: gets events.
        on_progress: called every POLL_S, and at the end.
    """

    def __init__(
        self, watched: Watched, log: RunLog, on_progress: Callable[[Progress], None]
    ) -> None:
        self._of, self._log, self._on_progress = watched, log, on_progress
        self._committed = Committed(watched.output, watched.wanted)
        self._committed.poll()
        self._done_before = self._committed.done
        self._failed_before = self._committed.statuses[Status.FAILED]
        self._started_at, self._started = datetime.now(UTC), time.perf_counter()
        self._stop = threading.Event()
        self._stopped: RunStoppedError | None = None
        self._samples: deque[dict[str, PoolState]] = deque(maxlen=_SAMPLES)
        self._sampled_at = self._recorded_at = 0.0
        self._paused_until: datetime | None = None
        self._thread = threading.Thread(target=self._poll, name="raypipe-monitor", daemon=True)

    @property
    def stopped(self) -> RunStoppedError | None:
        """Why the run was ended early; None where it was not."""
        return self._stopped

    def __enter__(self) -> "Monitor":
        self._log.event("run_started", total=len(self._of.wanted), done_before=self._done_before)
        self._look()
        ExecutorWatch.on_step = self.step
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        ExecutorWatch.on_step = None
        if kind is not None:
            wait_for_writers()
        self._stop.set()
        self._thread.join()
        self._look()
        state, message = _ending(kind, self._stopped)
        self._record(state, message)
        self._log.event("run_ended", state=state, message=message, done=self._committed.done)
        self._log.close()

    def step(self, look: Callable[[], dict[str, PoolState]]) -> None:
        """Called at every step of the executor; raises where the run has to end."""
        if self._stopped is not None:
            raise self._stopped
        now = time.monotonic()
        if now - self._sampled_at < _SAMPLE_S:
            return
        self._sampled_at = now
        states = look()
        if states and self._paused_until is None:
            self._samples.append(states)

    def _poll(self) -> None:
        while not self._stop.wait(POLL_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - the next look may succeed; the run goes on
                log.warning("could not look at the run: %s", type(error).__name__)

    def _look(self) -> None:
        """Take in what is new, and tell it everywhere."""
        for row in self._committed.poll():
            metrics.count(metrics.SERIES, status=row["status"], reason=row["reason"] or "")
            if row["status"] != Status.OK or (row.get("attempts") or 1) > 1:
                self._log.event("series_ended", **row)
        self._tell_pause()
        self._stop_early()
        metrics.show(metrics.LEFT, len(self._of.wanted) - self._committed.done)
        for stage, state in self._latest().items():
            metrics.show(metrics.QUEUE, state.queue, stage=stage)
            if state.busy is not None:
                metrics.show(metrics.BUSY, state.busy, stage=stage)
        self._on_progress(self._progress())
        if time.monotonic() - self._recorded_at > _RECORD_S:
            self._record("running" if self._paused_until is None else "paused")

    def _tell_pause(self) -> None:
        until = closed_until(self._of.run.schedule, self._of.clock())
        if (until is None) != (self._paused_until is None):
            self._log.event("paused" if until else "resumed", until=until)
        self._paused_until = until
        metrics.show(metrics.PAUSED, float(until is not None))

    def _stop_early(self) -> None:
        """Decide to stop where more than the configured share of this run's series failed."""
        run = self._of.run
        done = self._committed.done - self._done_before
        failed = self._committed.statuses[Status.FAILED] - self._failed_before
        if self._stopped or done < run.failed_share_after or failed <= done * run.max_failed_share:
            return
        reasons = ", ".join(f"{n} {r}" for r, n in self._committed.failures.most_common(3))
        self._stopped = RunStoppedError(
            f"stopped early: {failed} of {done} series of this run failed, more than "
            f"run.max_failed_share {run.max_failed_share:g} allows ({reasons}). What is done is "
            f"kept; mend the cause, then the same command goes on, and `raypipe retry "
            f"{self._of.output.uri}` does the failed ones again"
        )

    def _latest(self) -> dict[str, PoolState]:
        return self._samples[-1] if self._samples else {}

    def busy(self) -> dict[str, float]:
        """Share of each pool that had work lately."""
        seen: dict[str, list[float]] = {}
        for sample in list(self._samples):
            for stage, state in sample.items():
                if state.busy is not None:
                    seen.setdefault(stage, []).append(state.busy)
        return {stage: sum(shares) / len(shares) for stage, shares in seen.items()}

    def _advice(self) -> str | None:
        if len(self._samples) < _SAMPLES_FOR_ADVICE:
            return None
        return pool_advice(self.busy(), self._of.run)

    def _progress(self) -> Progress:
        return Progress(
            done=self._committed.done,
            total=len(self._of.wanted),
            done_before=self._done_before,
            status_counts=dict(self._committed.statuses),
            elapsed_s=time.perf_counter() - self._started,
            paused_until=self._paused_until,
            advice=self._advice(),
        )

    def _record(self, state: str, message: str = "") -> None:
        self._recorded_at = time.monotonic()
        record = ProgressRecord(
            run=self._of.run_id,
            state=state,
            message=message,
            started_at=self._started_at,
            updated_at=datetime.now(UTC),
            total=len(self._of.wanted),
            done_before=self._done_before,
            done=self._committed.done,
            busy=self.busy(),
            queue={stage: s.queue for stage, s in self._latest().items()},
            paused_until=self._paused_until,
            advice=self._advice(),
        )
        self._of.output.write_text(PROGRESS_FILE, record.model_dump_json(indent=2) + "\n")


def _ending(kind: type[BaseException] | None, stopped: RunStoppedError | None) -> tuple[str, str]:
    if kind is None:
        return "finished", ""
    if stopped is not None:
        return "stopped", str(stopped)
    if issubclass(kind, KeyboardInterrupt):
        return "interrupted", ""
    return "failed", kind.__name__  # its text may name files
