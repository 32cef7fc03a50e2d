"""The deployments of the service: stages of the pipeline as replicas, and the queue before them.

    Ingress (HTTP) -> Queue (jobs) -> Loader -> Detector -> Reporter

In: rows from one another. Out: rows. Every decision lies in a stage; a replica holds it and calls
it in a thread, so that its event loop goes on answering.
Does not know: resources and replica counts (app.py), HTTP (api.py).
"""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from ray import serve
from ray.serve.handle import DeploymentHandle

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.archive.storage import list_objects
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError, SeriesError, Status
from raypipe.serve import artifacts
from raypipe.serve.config import ServeConfig
from raypipe.serve.jobs import JobQueue, Refused
from raypipe.serve.metrics import Metrics, Seen
from raypipe.serve.pipeline import Pipeline
from raypipe.serve.reporting import Describers
from raypipe.serve.store import JobRecord, JobStore, Row
from raypipe.stages import Detect, Load, Prepare

T = TypeVar("T")


class Loader:
    """Reads: index, pixels; writes what is made of a finished series."""

    def __init__(self, config: ServeConfig) -> None:
        self._limits, self._config = config.limits, config.limited
        self._store = JobStore(config.jobs.folder, self._config.archive.storage)
        self._load, self._prepare = Load(self._config), Prepare(self._config)

    async def index(self, job_id: str, source: str) -> list[Row]:
        """The rows of the manifest of a job."""
        return await asyncio.to_thread(self._index, job_id, source)

    def _index(self, job_id: str, source: str) -> list[Row]:
        storage, target = self._config.archive.storage, self._store.address(job_id, "manifest")
        try:
            number = len(list_objects(source, storage))
        except SeriesError as error:
            raise ConfigError(f"the source cannot be listed: {error.message}") from error
        if number > self._limits.max_files:
            raise ConfigError(f"{number} files, limits.max_files is {self._limits.max_files}")
        if not number:
            raise ConfigError("the source holds no files")
        build_index(source, target, self._config.index, storage=storage)
        rows: list[Row] = read_manifest(target, storage).to_pylist()
        return rows

    async def prepare(self, row: Row) -> Row:
        """Load and Prepare in one call, so that the full volume never leaves its process."""
        return await asyncio.to_thread(lambda: self._prepare(self._load(row)))

    async def prepare_again(self, job_id: str, key: str) -> Row:
        """A series of a finished job, prepared once more."""
        row = await asyncio.to_thread(
            artifacts.manifest_row, self._store, job_id, key, self._config
        )
        return await self.prepare(row)

    async def export(self, job_id: str, key: str) -> list[str]:
        """Write SR, SEG and FHIR; the StudyInstanceUIDs that they carry."""
        return await asyncio.to_thread(
            artifacts.make_exports, self._store, job_id, key, self._config
        )

    async def volume(self, job_id: str, key: str) -> None:
        """Write the volume."""
        await asyncio.to_thread(artifacts.make_volume, self._store, job_id, key, self._config)


class Detector:
    """Holds the network, in one thread: a second one that uses torch would slow its barriers."""

    def __init__(self, config: ServeConfig) -> None:
        limited, pool = config.limited, config.pools.detector
        self._store = JobStore(config.jobs.folder, limited.archive.storage)
        self._thread = ThreadPoolExecutor(1, "network")
        self._stage = self._thread.submit(Detect, limited).result()
        self._batch.set_max_batch_size(pool.max_batch)  # type: ignore[attr-defined]
        self._batch.set_batch_wait_timeout_s(pool.batch_wait_s)  # type: ignore[attr-defined]

    async def detect(self, row: Row) -> Row:
        """Detect for one row; rows that come together are worked on together."""
        done: Row = await self._batch(row)
        return done

    @serve.batch
    async def _batch(self, rows: list[Row]) -> list[Row]:
        return await self._in_thread(lambda: [self._stage(row) for row in rows])

    async def attention(self, job_id: str, key: str, prepared: Row) -> None:
        """Write where the network looked."""
        if prepared["status"] != Status.OK:
            raise ConfigError(f"the source cannot be read any more ({prepared['reason']})")
        await self._in_thread(lambda: self._attention(job_id, key, prepared))

    def _in_thread(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _attention(self, job_id: str, key: str, prepared: Row) -> None:
        from raypipe.model.attention import attention_map

        values, grid = attention_map(self._stage.detector, prepared["model_input"])
        artifacts.keep_attention(self._store, job_id, key, values, grid)


class Reporter:
    """Holds the engine of the language model; requests name the adapter that writes."""

    def __init__(self, config: ServeConfig) -> None:
        pool = config.pools.reporter
        self._turns = asyncio.Semaphore(pool.concurrent_batches)
        self._describers = Describers(config.limited)
        self._batch.set_max_batch_size(pool.max_batch)  # type: ignore[attr-defined]
        self._batch.set_batch_wait_timeout_s(pool.batch_wait_s)  # type: ignore[attr-defined]

    async def describe(self, row: Row) -> Row:
        """Describe one row; rows that come together are decoded together."""
        done: Row = await self._batch(row)
        return done

    @serve.batch(max_concurrent_batches=4)
    async def _batch(self, rows: list[Row]) -> list[Row]:
        adapter = serve.get_multiplexed_model_id()  # Serve parts batches by it
        describe = await self._writer(adapter) if adapter else self._describers.default
        async with self._turns:
            return await asyncio.to_thread(describe, rows)

    @serve.multiplexed(max_num_models_per_replica=64)  # type: ignore[untyped-decorator]
    async def _writer(self, adapter: str) -> Any:
        """Describe by an adapter; Serve sends its requests to replicas that have used it."""
        return await asyncio.to_thread(self._describers.of, adapter)

    def __del__(self) -> None:
        if hasattr(self, "_describers"):
            self._describers.close()


class Queue:
    """Owns the jobs: the one replica that decides what runs."""

    def __init__(
        self,
        config: ServeConfig,
        loader: DeploymentHandle[Any],
        detector: DeploymentHandle[Any],
        reporter: DeploymentHandle[Any],
    ) -> None:
        pipeline: RaypipeConfig = config.limited
        store = JobStore(config.jobs.folder, pipeline.archive.storage)
        self._name = config.name
        self._metrics = Metrics()
        self._pipeline = Pipeline(
            store, config.jobs, loader=loader, detector=detector, reporter=reporter
        )
        self._queue = JobQueue(store, config.jobs, self._pipeline.run, self._metrics.job)
        self._started: asyncio.Task[None] | None = None
        self._making: dict[tuple[str, str, str], asyncio.Task[None]] = {}

    async def _ready(self) -> JobQueue:
        """The queue, once it has taken up what an earlier one left."""
        if self._started is None:
            self._started = asyncio.create_task(self._queue.start())
        await asyncio.shield(self._started)
        return self._queue

    async def check_health(self) -> None:
        """Ask Serve's question, and begin to work without waiting for the first request."""
        await self._ready()

    async def room(self, owner: str) -> Refused | None:
        """Why a job would not be accepted now."""
        return (await self._ready()).room(owner)

    async def submit(self, record: JobRecord) -> Refused | None:
        """Accept a job."""
        return await (await self._ready()).submit(record)

    async def get(self, job_id: str) -> JobRecord | None:
        """A job."""
        return (await self._ready()).get(job_id)

    async def of(self, owner: str | None) -> list[JobRecord]:
        """Jobs of an owner, all if None."""
        return (await self._ready()).of(owner)

    async def wait(self, job_id: str, timeout_s: float, ended: bool) -> JobRecord | None:
        """A job once it changes or ends."""
        return await (await self._ready()).wait(job_id, timeout_s, ended=ended)

    async def cancel(self, job_id: str) -> JobRecord | None:
        """Stop a job."""
        return await (await self._ready()).cancel(job_id)

    async def erase(self, job_id: str) -> None:
        """Forget an ended job."""
        await (await self._ready()).erase(job_id)

    async def make(self, job_id: str, key: str, what: str) -> None:
        """Write something of a finished series into the store; asked for twice, made once."""
        name = (job_id, key, what)
        if name not in self._making:
            self._making[name] = asyncio.create_task(self._make(job_id, key, what))
            self._making[name].add_done_callback(lambda _: self._making.pop(name))
        await asyncio.shield(self._making[name])

    async def _make(self, job_id: str, key: str, what: str) -> None:
        if what == "exports":
            studies = await self._pipeline.export(job_id, key)
            await self._queue.amend(job_id, studies)
        elif what == "volume":
            await self._pipeline.volume(job_id, key)
        else:
            await self._pipeline.attention(job_id, key)

    async def count(self, seen: list[Seen]) -> None:
        """Count answered requests."""
        self._metrics.requests(seen)

    async def metrics(self) -> bytes:
        """The text of /metrics."""
        return self._metrics.text((await self._ready()).counts(), await self.replicas())

    async def replicas(self) -> dict[str, dict[str, int]]:
        """Deployment -> state -> replicas."""
        status = await asyncio.to_thread(serve.status)
        app = status.applications.get(self._name)
        deployments = app.deployments.items() if app is not None else ()
        return {name: {str(s): n for s, n in d.replica_states.items()} for name, d in deployments}

    async def __del__(self) -> None:
        if self._started is not None:
            await self._queue.stop()
