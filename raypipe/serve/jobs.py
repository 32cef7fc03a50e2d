"""The queue of jobs: accepts, works, remembers; what it accepted is never lost.

In: records to accept, and the work to do for one. Out: records as they change.
Does not know: Ray, HTTP, what the work is.

A record is on stable storage before its job counts as accepted. One queue owns the folder and one
event loop runs it, so nothing is locked. When it starts, it takes up what an earlier one left:
jobs that waited go on waiting, jobs that ran are run again.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from raypipe.errors import RaypipeError, Reason
from raypipe.serve.config import JobsConfig
from raypipe.serve.store import ENDED, JobRecord, JobStore, State, now

_LOG = logging.getLogger("ray.serve")
_STRAY_S = 3600.0
_CANCEL_S = 10.0
"""How long a caller waits for the end of a job that is being cancelled."""
_WRITE_AGAIN_S, _LONGEST_WAIT_S = 0.5, 60.0

OnChange = Callable[[JobRecord], None]
"""Called by the work with a record whose progress or series changed."""

Work = Callable[[JobRecord, OnChange], Awaitable[JobRecord]]
"""Does a job, writes its rows, returns its record as it ended."""


@dataclass(frozen=True)
class Refused:
    """Why a job was not accepted ("queue_full", "too_many_jobs"), and when there may be room."""

    slug: str
    retry_after_s: float


@dataclass(frozen=True)
class Counts:
    """How many jobs there are, by state; `resumed` were taken up when the queue started."""

    states: dict[str, int]
    waiting: int
    running: int
    resumed: int


class JobQueue:
    """Runs jobs in the order in which they came.

    Args:
        store: where they are kept.
        config: how many, how long.
        work: does one job.
        on_end: called with every job that ended, and the seconds that it ran.
    """

    def __init__(
        self,
        store: JobStore,
        config: JobsConfig,
        work: Work,
        on_end: Callable[[JobRecord, float], None] = lambda record, seconds: None,
    ) -> None:
        self._store, self._config, self._work, self._on_end = store, config, work, on_end
        self._records: dict[str, JobRecord] = {}
        self._waiting: deque[str] = deque()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._ending: set[str] = set()  # their last record is being written
        self._reserved = 0  # accepted soon: their records are being written
        self._mean_s = 10.0
        self._resumed = 0
        self._wake = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="job-records")
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    async def start(self) -> None:
        """Take up what is in the store, and begin to work."""
        for record in await asyncio.to_thread(self._store.load):
            self._records[record.id] = record
            if not record.ended:
                self._waiting.append(record.id)
        self._resumed = len(self._waiting)
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._dispatch()), loop.create_task(self._sweep())]

    async def stop(self) -> None:
        """Stop working; jobs that run are put back, and the next start takes them up."""
        self._stopping = True
        running = list(self._running.values())
        for task in (*self._tasks, *running):
            task.cancel()
        await asyncio.gather(*self._tasks, *running, return_exceptions=True)

    def room(self, owner: str) -> Refused | None:
        """Why a job of this owner would not be accepted now; None where it would."""
        config = self._config
        if len(self._waiting) + self._reserved >= config.max_queued:
            ahead = len(self._waiting) / config.max_running
            return Refused("queue_full", min(300.0, max(1.0, self._mean_s * ahead / 2)))
        mine = sum(r.owner == owner and not r.ended for r in self._records.values())
        if mine >= config.max_open_per_caller:
            return Refused("too_many_jobs", min(300.0, max(1.0, self._mean_s)))
        return None

    async def submit(self, record: JobRecord) -> Refused | None:
        """Accept a job; once this returns None it is on stable storage and will be done."""
        if record.id in self._records:
            return None  # sent again because the answer was lost
        refused = self.room(record.owner)
        if refused is not None:
            return refused
        self._reserved += 1
        await asyncio.shield(asyncio.create_task(self._accept(record)))  # wholly, or not at all
        return None

    async def _accept(self, record: JobRecord) -> None:
        try:
            await self._write(record)
        finally:
            self._reserved -= 1
        self._records[record.id] = record
        self._waiting.append(record.id)
        self._wake.set()

    def get(self, job_id: str) -> JobRecord | None:
        """A job as it is now."""
        return self._records.get(job_id)

    def of(self, owner: str | None) -> list[JobRecord]:
        """Every job of an owner, of all owners if None."""
        return [r for r in self._records.values() if owner in (None, r.owner)]

    async def wait(self, job_id: str, timeout_s: float, *, ended: bool) -> JobRecord | None:
        """A job once it changes (or ends), or as it is when the time is over."""
        deadline = time.monotonic() + timeout_s
        while True:
            record = self._records.get(job_id)
            left = deadline - time.monotonic()
            if record is None or record.ended or left <= 0:
                return record
            event = self._changed.setdefault(job_id, asyncio.Event())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), left)
            if not ended:
                return self._records.get(job_id)

    async def cancel(self, job_id: str) -> JobRecord | None:
        """Stop a job that waits or runs; one that has ended, or is just ending, stays as it is."""
        record = self._records.get(job_id)
        if record is None or record.ended:
            return record
        if job_id in self._ending:
            return await self.wait(job_id, _CANCEL_S, ended=True)
        task = self._running.get(job_id)
        with contextlib.suppress(ValueError):
            self._waiting.remove(job_id)
        ending = asyncio.create_task(self._end(record, State.CANCELLED))
        if task is not None:
            ending.add_done_callback(lambda _: task.cancel())
        return await self.wait(job_id, _CANCEL_S, ended=True)

    async def erase(self, job_id: str) -> None:
        """Forget an ended job and everything of it."""
        record = self._records.get(job_id)
        if record is not None and record.ended:
            del self._records[job_id]
            try:
                await asyncio.to_thread(self._store.erase, job_id)
            except BaseException:
                self._records[job_id] = record  # for another attempt
                raise

    async def amend(self, job_id: str, studies: Iterable[str]) -> None:
        """Write down in which studies the exports of a job are."""
        record = self._records.get(job_id)
        if record is not None:
            known = dict.fromkeys((*record.studies, *studies))
            await self._keep(record.changed(studies=tuple(known)))

    def counts(self) -> Counts:
        """How many jobs there are."""
        states = dict.fromkeys((state.value for state in State), 0)
        for record in self._records.values():
            states[record.state.value] += 1
        return Counts(states, len(self._waiting), len(self._running), self._resumed)

    async def _dispatch(self) -> None:
        """Start waiting jobs while there is room to run them."""
        while True:
            self._wake.clear()
            while self._waiting and len(self._running) < self._config.max_running:
                job_id = self._waiting.popleft()
                task = asyncio.create_task(self._run(job_id))
                self._running[job_id] = task
                task.add_done_callback(partial(self._left, job_id))
            await self._wake.wait()

    def _left(self, job_id: str, _: asyncio.Task[None]) -> None:
        self._running.pop(job_id, None)
        self._wake.set()

    async def _run(self, job_id: str) -> None:
        record, started = self._records[job_id], time.monotonic()
        if record.attempts >= self._config.max_attempts:
            message = f"given up after {record.attempts} attempts that ended with the service"
            await self._end(record, State.FAILED, Reason.INTERNAL_ERROR, message)
            return
        record = record.changed(state=State.RUNNING, attempts=record.attempts + 1)
        try:
            await self._keep(record)  # before the work: an attempt that kills us is counted
            async with asyncio.timeout(self._config.time_limit_s):
                done = await self._work(record, self._progress)
            ended = await self._end(done, State.DONE)
        except asyncio.CancelledError:
            if self._stopping and job_id not in self._ending and not self._records[job_id].ended:
                back = record.changed(state=State.QUEUED, attempts=record.attempts - 1)
                await asyncio.shield(self._keep(back))
            raise
        except TimeoutError:
            message = f"jobs.time_limit_s {self._config.time_limit_s:g} is over"
            ended = await self._end(record, State.FAILED, "time_limit", message)
        except RaypipeError as error:  # its text is ours and names no patient
            ended = await self._end(record, State.FAILED, "not_readable", str(error))
        except Exception as error:  # noqa: BLE001 - one job must never cost another
            name = type(error).__name__
            _LOG.error("job %s ended with %s", job_id, name)
            ended = await self._end(record, State.FAILED, Reason.INTERNAL_ERROR, name)
        seconds = time.monotonic() - started
        self._mean_s += 0.2 * (seconds - self._mean_s)
        self._on_end(ended, seconds)

    def _progress(self, record: JobRecord) -> None:
        known = self._records.get(record.id)
        if known is not None and not known.ended:
            self._records[record.id] = record
            self._notify(record.id)

    async def _end(
        self, record: JobRecord, state: State, reason: str | None = None, message: str | None = None
    ) -> JobRecord:
        known = self._records.get(record.id)
        if known is None or known.ended or record.id in self._ending:  # cancelled meanwhile
            return known or record
        latest = record if state is State.DONE else known
        ended = latest.changed(
            state=state,
            finished_at=now(),
            fraction=1.0 if state is State.DONE else latest.fraction,
            reason=None if reason is None else str(reason),
            message=message,
        )
        self._ending.add(record.id)
        try:
            await self._write_at_last(ended)  # nobody sees an end that is not kept
        finally:
            self._ending.discard(record.id)
        self._records[record.id] = ended
        self._notify(record.id)
        return ended

    async def _keep(self, record: JobRecord) -> None:
        self._records[record.id] = record
        await self._write(record)
        self._notify(record.id)

    async def _write(self, record: JobRecord) -> None:
        """Write a record down; one thread, so that what is written last is what is meant last."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._writer, self._store.write, record)

    async def _write_at_last(self, record: JobRecord) -> None:
        """Write a record down, again and again while the store cannot be reached."""
        wait_s = _WRITE_AGAIN_S
        while True:
            try:
                return await self._write(record)
            except Exception as error:  # noqa: BLE001 - S3 fails in many ways
                _LOG.error("the end of job %s is not kept: %s", record.id, type(error).__name__)
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    def _notify(self, job_id: str) -> None:
        event = self._changed.pop(job_id, None)
        if event is not None:
            event.set()

    async def _sweep(self) -> None:
        """Delete uploads and jobs whose time is over."""
        while True:
            await asyncio.sleep(self._config.sweep_every_s)
            for record in list(self._records.values()):
                await self._tried(self._swept(record))
            await self._tried(asyncio.to_thread(self._store.strays, set(self._records), _STRAY_S))

    async def _tried(self, work: Awaitable[object]) -> None:
        """Await what the next turn tries again where it fails."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - what is due must be deleted in the end
            _LOG.error("what was due is not deleted: %s", type(error).__name__)

    async def _swept(self, record: JobRecord) -> None:
        if record.state not in ENDED or record.finished_at is None:
            return
        age_s = (now() - record.finished_at).total_seconds()
        if age_s > self._config.result_retention_s:
            await self.erase(record.id)
        elif record.has_upload and age_s > self._config.upload_retention_s:
            await asyncio.to_thread(self._store.erase, record.id, "upload")
            await self._keep(record.changed(upload_deleted=True))
