"""How long a user waits for the first result.

In: a config. Out: seconds from the command to the first finished series: of a job whose process and
Ray start with it (cold), of the next job of the same process, which finds both there but loads
networks and engine again (warm), and of a plain loop in a process of its own.
Does not know: what a stage does.

What a child needs is imported where it is used: that belongs to the wait.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from raypipe.bench.machine import machine
from raypipe.bench.new_process import in_new_process
from raypipe.config import RaypipeConfig
from raypipe.settings import Settings

COLD, WARM, LOOP = "raypipe, cold", "raypipe, warm", "plain loop"


class StartTime(Settings):
    """One way to begin."""

    name: str
    first_s: float = Field(description="median seconds to the first finished series")
    runs_s: tuple[float, ...]


class StartResult(Settings):
    """Every way, in one run on one machine."""

    slices: int
    times: tuple[StartTime, ...]
    machine: dict[str, str | int]


class _First(NamedTuple):
    """Seconds to the first finished series."""

    cold: float
    warm: float


def bench_start(
    folder: Path,
    config: RaypipeConfig,
    *,
    shape_zyx: tuple[int, int, int],
    runs: int,
    on_step: Callable[[str], None],
) -> StartResult:
    """Start job and loop over a few phantom series again and again, in turns.

    Args:
        folder: where archive and results go; must be empty.
        config: of the job.
        shape_zyx: voxels of a series.
        runs: starts of each.
        on_step: called with what is timed next.

    Raises:
        ConfigError: the folder is not empty.
        RaypipeError: a series was not ok.
    """
    from raypipe.archive.index import build_index
    from raypipe.bench.empty import need_empty
    from raypipe.phantom import write_bulk_archive

    need_empty(folder)
    source = str(folder / "manifest")
    write_bulk_archive(folder / "archive", n_series=8, seed=0, shape_zyx=shape_zyx)
    build_index(str(folder / "archive"), source, config.index)
    jobs: list[_First] = []
    loops: list[float] = []
    for i in range(runs):
        on_step(f"loop {i + 1} of {runs}")
        loops.append(in_new_process(_loop, time.time(), source, config))
        on_step(f"jobs {i + 1} of {runs}")
        output = str(folder / f"results-{i}")
        jobs.append(in_new_process(_jobs, time.time(), source, output, config))
    times = {COLD: [j.cold for j in jobs], WARM: [j.warm for j in jobs], LOOP: loops}
    return StartResult(
        slices=shape_zyx[0],
        times=tuple(
            StartTime(name=name, first_s=statistics.median(seconds), runs_s=tuple(seconds))
            for name, seconds in times.items()
        ),
        machine=machine(),
    )


def _jobs(asked_at: float, source: str, output: str, config: RaypipeConfig) -> _First:
    """A job, and another one after it in the same process."""
    import ray

    try:
        cold = _first_of_job(asked_at, source, f"{output}-cold", config)
        return _First(cold, _first_of_job(time.time(), source, f"{output}-warm", config))
    finally:
        ray.shutdown()


def _first_of_job(asked_at: float, source: str, output: str, config: RaypipeConfig) -> float:
    from raypipe.batch.job import Job

    job = Job(source, output, config)
    job.run(lambda progress: None)
    from raypipe.bench.steady import all_ok  # after the wait, of which it is no part

    rows = all_ok(job.output.iterate_rows(["status", "reason", "timings"]))
    return float(min(row["timings"]["finished_at"].timestamp() for row in rows)) - asked_at


def _loop(asked_at: float, source: str, config: RaypipeConfig) -> float:
    """The first series of a plain loop, everything loaded for it."""
    from raypipe.archive.manifest import first_row
    from raypipe.stages import Describe, Detect, Load, Prepare

    load, prepare, detect = Load(config), Prepare(config), Detect(config)
    describe = Describe(config)
    try:
        describe([detect(prepare(load(first_row(source, config.archive.storage))))])
        return time.time() - asked_at
    finally:
        describe.close()
