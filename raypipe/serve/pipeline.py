"""One job across the deployments: index, then every series through the stages, then the rows.

In: the record of a job. Out: its rows in the store, and the record as it ended.
Does not know: the order of jobs, HTTP, what a stage decides.

    index -> [Load, Prepare] -> Detect -> Describe       a chain for each series

A replica that dies, or a deployment that is full, costs time: the chain of that series is run
again. A series that takes replicas down `max_attempts` times ends as failed, and costs itself
alone. What one stage hands to the next travels from replica to replica, not through here.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, TaskCancelledError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from raypipe.errors import EngineError, RaypipeError, Reason, Status
from raypipe.serve.config import JobsConfig
from raypipe.serve.jobs import OnChange
from raypipe.serve.store import JobRecord, JobStore, Row, SeriesState
from raypipe.sink.schema import RESULT_SCHEMA
from raypipe.stages import start_row

T = TypeVar("T")

_SHARES = {"load": 0.05, "detect": 0.45, "describe": 0.75}
"""How much of a series is done when a stage begins; for the eye alone."""

_ORDER = tuple(_SHARES)


class Pipeline:
    """The deployments that do the work.

    Args:
        store: where jobs lie.
        config: how many series at a time, how many attempts.
        loader: reads and exports.
        detector: finds.
        reporter: describes.
    """

    def __init__(
        self,
        store: JobStore,
        config: JobsConfig,
        *,
        loader: DeploymentHandle[Any],
        detector: DeploymentHandle[Any],
        reporter: DeploymentHandle[Any],
    ) -> None:
        self._store, self._config = store, config
        self._loader, self._detector, self._reporter = loader, detector, reporter
        # of their own: the event loop's are few, and those who ask for a job need them
        self._waits = ThreadPoolExecutor(
            config.max_running * config.series_at_a_time, thread_name_prefix="series"
        )
        self._suspects = asyncio.Lock()

    async def run(self, record: JobRecord, on_change: OnChange) -> JobRecord:
        """Do a job.

        Raises:
            RaypipeError: its source cannot be indexed.
        """
        listed: list[Row] = await self._patiently(
            lambda: self._loader.index.remote(record.id, record.source)
        )
        board = _Board(record, listed, on_change)
        turns = asyncio.Semaphore(self._config.series_at_a_time)

        async def one(row: Row) -> Row:
            async with turns:
                done = await self._series(row, record.adapter, board)
            board.end(done)
            return done

        rows = await asyncio.gather(*(one(row) for row in listed))
        await asyncio.to_thread(self._store.put_rows, record.id, rows)
        studies: list[str] = []
        if record.export_at_end:
            for row in rows:
                studies += await self.export(record.id, row["series_key"])
        return board.record.changed(studies=tuple(dict.fromkeys(studies)))

    async def export(self, job_id: str, series_key: str) -> list[str]:
        """Make SR, SEG and FHIR of a series; the StudyInstanceUIDs that they carry."""
        studies: list[str] = await self._patiently(
            lambda: self._loader.export.remote(job_id, series_key)
        )
        return studies

    async def volume(self, job_id: str, series_key: str) -> None:
        """Write the volume of a series into the store."""
        await self._patiently(lambda: self._loader.volume.remote(job_id, series_key))

    async def attention(self, job_id: str, series_key: str) -> None:
        """Write the attention map of a series into the store."""

        def chain() -> Awaitable[Any]:
            prepared = self._loader.prepare_again.remote(job_id, series_key)
            answer: Awaitable[Any] = self._detector.attention.remote(job_id, series_key, prepared)
            return answer

        await self._patiently(chain)

    async def _series(self, row: Row, adapter: str | None, board: "_Board") -> Row:
        """The result row of one series, whatever happens to it."""
        try:
            done: Row = await self._patiently(lambda: self._chain(row, adapter, board))
            return done
        except (RayError, RayServeException, RaypipeError) as error:
            name = type(getattr(error, "cause", None) or error).__name__
            message = f"{self._config.max_attempts} attempts ended with {name}"
            return _failed(row, message)

    async def _chain(self, row: Row, adapter: str | None, board: "_Board") -> Row:
        key = row["series_key"]
        reporter = self._reporter
        if adapter is not None:
            reporter = reporter.options(multiplexed_model_id=adapter)
        begun: list[Any] = []
        try:
            board.at(key, "load")
            begun.append(self._loader.prepare.remote(row))
            await self._finished(begun[0])
            board.at(key, "detect")
            begun.append(self._detector.detect.remote(begun[0]))
            await self._finished(begun[1])
            board.at(key, "describe")
            begun.append(reporter.describe.remote(begun[1]))
            done: Row = await begun[2]
        except asyncio.CancelledError:
            for response in begun:
                response.cancel()
            raise
        return done

    async def _finished(self, response: Any) -> None:
        """Wait until a call is over, without fetching what it returned."""
        reference = await response._to_object_ref()
        wait = partial(ray.wait, [reference], fetch_local=False)
        await asyncio.get_running_loop().run_in_executor(self._waits, wait)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Await a call, again where replicas are full or die under it.

        Of those under which a replica died one runs at a time: what kills replicas takes others
        with it once, and not again and again.
        """
        attempt, full = 0, 0
        while True:
            try:
                async with self._suspects if attempt else contextlib.nullcontext():
                    return await call()
            except TaskCancelledError:
                raise
            except (RayError, RayServeException, EngineError) as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, RaypipeError) and not isinstance(cause, EngineError):
                    raise cause from error
                if isinstance(error, BackPressureError) or isinstance(cause, BackPressureError):
                    full += 1
                else:
                    attempt += 1
                if attempt >= self._config.max_attempts:
                    raise
                # the more often, the longer; at random, so that many do not come back at once
                await asyncio.sleep(
                    random.uniform(0.5, 1.0) * min(5.0, 0.2 * 2 ** (attempt + full))
                )


def _failed(row: Row, message: str) -> Row:
    failed = start_row(row) | {
        "status": Status.FAILED.value,
        "reason": Reason.INTERNAL_ERROR.value,
        "message": message,
    }
    return {name: failed.get(name) for name in RESULT_SCHEMA.names}


class _Board:
    """How far each series of a job is; tells the queue when that changes."""

    def __init__(self, record: JobRecord, listed: list[Row], on_change: OnChange) -> None:
        self._on_change = on_change
        self._stages: dict[str, str] = {row["series_key"]: "load" for row in listed}
        series = tuple(_summary(row, pending=row["status"] == Status.OK) for row in listed)
        self.record = record.changed(series=series)
        self._tell()

    def at(self, key: str, stage: str) -> None:
        """A series begins a stage."""
        self._stages[key] = stage
        self._tell()

    def end(self, row: Row) -> None:
        """A series is done."""
        key = row["series_key"]
        self._stages.pop(key, None)
        series = tuple(
            _summary(row, pending=False) if s.series_key == key else s for s in self.record.series
        )
        self.record = self.record.changed(series=series)
        self._tell()

    def _tell(self) -> None:
        total = max(1, len(self.record.series))
        ended = total - len(self._stages)
        done = ended + sum(_SHARES[stage] for stage in self._stages.values())
        stage = min(self._stages.values(), key=_ORDER.index, default="describe")
        self.record = self.record.changed(stage=stage, fraction=round(done / total, 3))
        self._on_change(self.record)


def _summary(row: Row, *, pending: bool) -> SeriesState:
    """What the record of a job says of a series."""
    instances = row["instances"]
    findings, report = row.get("findings"), row.get("report")
    return SeriesState(
        series_key=row["series_key"],
        status="pending" if pending else row["status"],
        reason=row["reason"],
        message=row["message"],
        kind=row["kind"],
        modality=row["modality"],
        body_part=row["body_part"],
        instances=instances if isinstance(instances, int) else len(instances or ()),
        shape_zyx=row["shape_zyx"],
        spacing_zyx_mm=row["spacing_zyx_mm"],
        findings=None if findings is None else len(findings),
        needs_review=None if report is None else report["needs_review"],
    )
