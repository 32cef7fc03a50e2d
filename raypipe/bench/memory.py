"""Memory of a whole job over its length, and the cost of a series.

In: two archive sizes. Out: memory over time of both runs, and seconds per series of both.
Does not know: what a stage does.

Every job runs in a process of its own with a Ray of its own, so that none inherits memory of the
one before. A series costs the time of the job, from the moment when every pool is up, over the
number of its series. A short job's time varies by a few percent, so that it runs three times: the
median counts.
"""

import time
from collections.abc import Callable
from pathlib import Path

import psutil
import ray
from pydantic import Field

from raypipe.archive.index import build_index
from raypipe.batch.cluster import start_ray
from raypipe.batch.job import Job
from raypipe.bench.empty import need_empty
from raypipe.bench.machine import machine
from raypipe.bench.new_process import in_new_process
from raypipe.bench.sampling import sampled
from raypipe.bench.steady import run_steady, seconds_of
from raypipe.config import RaypipeConfig
from raypipe.errors import RaypipeError
from raypipe.phantom import write_bulk_archive
from raypipe.settings import Settings

_SAMPLE_S = 1.0
_SHORT_RUNS = 3
_MIB = 1024.0**2


class MemorySample(Settings):
    """Memory at one moment."""

    at_s: float = Field(description="since the first series was begun; negative: start-up")
    driver_mib: float
    object_store_mib: float
    all_mib: float = Field(
        description="object store in use, and what the driver and every process below it (workers, "
        "decoders, Ray's own) hold for themselves"
    )


class MemoryRun(Settings):
    """One job of so many series."""

    series: int
    seconds: float
    samples: list[MemorySample]

    @property
    def seconds_per_series(self) -> float:
        """The time of the job over the number of its series."""
        return self.seconds / self.series

    def peak(self, field: str, first: float, last: float) -> float:
        """The highest value of a field between two shares of the run, in MiB."""
        span = [
            getattr(s, field)
            for s in self.samples
            if first * self.seconds <= s.at_s <= last * self.seconds
        ]
        return max(span, default=0.0)


class MemoryResult(Settings):
    """A short and a long job on the same machine."""

    short: MemoryRun
    long: MemoryRun
    peak_ratio: float = Field(description="highest memory of all processes, long over short")
    cost_ratio: float
    machine: dict[str, str | int]


def bench_memory(
    folder: Path, config: RaypipeConfig, *, sizes: tuple[int, int], shape_zyx: tuple[int, int, int]
) -> MemoryResult:
    """Run the job over two archives of different length; start-up is left out.

    Raises:
        ConfigError: the folder is not empty.
        RaypipeError: a series was not ok, or the short job was over before its memory was read.
    """
    need_empty(folder)
    shorts = _runs(folder / "short", config, sizes[0], shape_zyx, _SHORT_RUNS)
    short = sorted(shorts, key=lambda run: run.seconds)[_SHORT_RUNS // 2]
    short_mib = highest_mib(short)
    (long,) = _runs(folder / "long", config, sizes[1], shape_zyx, 1)
    return MemoryResult(
        short=short,
        long=long,
        peak_ratio=highest_mib(long) / short_mib,
        cost_ratio=long.seconds_per_series / short.seconds_per_series,
        machine=machine(),
    )


def highest_mib(run: MemoryRun) -> float:
    """The most that all processes held during a run; RaypipeError where that was never read."""
    highest = run.peak("all_mib", 0.0, 1.0)
    if highest == 0.0:
        raise RaypipeError(
            f"bench memory: {run.series} series took {run.seconds:.1f} s, and memory is read every "
            f"{_SAMPLE_S:g} s: ask for more or longer series"
        )
    return highest


def _runs(
    folder: Path, config: RaypipeConfig, series: int, shape: tuple[int, int, int], times: int
) -> list[MemoryRun]:
    """So many jobs over one archive."""
    source = str(folder / "manifest")
    write_bulk_archive(folder / "archive", n_series=series, seed=1, shape_zyx=shape)
    build_index(str(folder / "archive"), source, config.index)
    runs = []
    for i in range(times):
        told = (source, str(folder / f"results-{i}"), config, series)
        runs.append(in_new_process(_run, *told))
    return runs


def _run(source: str, output: str, config: RaypipeConfig, series: int) -> MemoryRun:
    start_ray(config.run)
    job = Job(source, output, config)
    try:
        with sampled(_reader(), _SAMPLE_S) as samples:
            job_span = run_steady(job, source, config)
    finally:
        ray.shutdown()
    began_s = job_span[0].timestamp()
    since = [s.model_copy(update={"at_s": s.at_s - began_s}) for s in samples]
    return MemoryRun(series=series, seconds=seconds_of(job_span), samples=since)


def _reader() -> Callable[[], MemorySample]:
    """Reads the memory of a job in this process; its time is the clock's."""
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    driver = psutil.Process()

    def read() -> MemorySample:
        store = get_memory_info_reply(state).store_stats.object_store_bytes_used
        own = sum(_own_bytes(process) for process in (driver, *driver.children(recursive=True)))
        return MemorySample(
            at_s=time.time(),
            driver_mib=driver.memory_info().rss / _MIB,
            object_store_mib=store / _MIB,
            all_mib=(own + store) / _MIB,
        )

    return read


def _own_bytes(process: psutil.Process) -> int:
    """What no other process shares; 0 of one that is gone."""
    try:
        return int(process.memory_full_info().uss)
    except psutil.Error:
        return 0
