"""What an archive will take, forecast from a short calibration run.

In: a manifest and a config. Out: hours, device-hours, cost, and pool sizes that keep the
accelerators busy. Does not know: how it is shown.

The calibration is the real job on a sample of the archive, small and large series alike. A line
through its timings says how the work of a series grows with its voxels; a second one, through the
finish times, how fast the cluster gets through that work while the job flows. Start-up, ramp and
tail are counted once, however long the archive.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from pydantic import Field

from raypipe.archive.manifest import read_manifest
from raypipe.batch.job import Job, Progress
from raypipe.batch.summary import STAGES
from raypipe.config import RaypipeConfig, RunConfig
from raypipe.errors import ConfigError, Status
from raypipe.settings import Settings

RAMP = 0.2
"""Share of the calibration's series left out at either end where its speed is measured."""
LEAST_SERIES = 8
LEAST_MOMENTS = 3
"""Finish times that a line needs."""
_SHUFFLE_SEED = 0
_MEGAVOXEL = 1e6


class StageForecast(Settings):
    """One stage over the whole archive."""

    seconds_per_series: float = Field(description="Mean over the archive.")
    workers: float = Field(description="Workers that it keeps busy on average.")
    pool: int | None = Field(description="Actors that the config allows; null for CPU tasks.")


class Forecast(Settings):
    """What the archive will take."""

    series: int = Field(description="Series of the manifest that will be read.")
    rejected: int = Field(description="Series that the index rejected; they cost nothing.")
    calibrated_on: int = Field(description="Series of the calibration run.")
    hours: float
    hours_low: float = Field(description="Lower end of a 95 % interval from the sample's spread.")
    hours_high: float
    startup_s: float = Field(description="Start-up, ramp and tail, once a run.")
    series_per_hour: float
    gpu_hours: float = Field(description="GPUs that the actors reserve times hours.")
    cpu_hours: float = Field(description="Cores of the cluster times hours.")
    cost: float | None = Field(description="In `currency`; null where the config names no price.")
    currency: str
    stages: dict[str, StageForecast]
    advice: tuple[str, ...] = Field(description="What to change so that accelerators never wait.")


class Calibration(Settings):
    """What the calibration run measured.

    The work of a series is base_s + voxel_s * megavoxels, in seconds of all its stages together.
    """

    base_s: float
    voxel_s: float
    speed: float = Field(gt=0, description="Seconds of work done in a second while it flows.")
    startup_s: float
    relative_error: float = Field(description="Standard error of the mean work, relative.")
    stage_shares: dict[str, float] = Field(description="Share of each stage in the work.")

    def work_s(self, megavoxels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Work of series by their size."""
        return self.base_s + self.voxel_s * megavoxels


def forecast(
    manifest: str,
    folder: Path,
    config: RaypipeConfig,
    *,
    series: int,
    on_progress: Callable[[Progress], None],
) -> Forecast:
    """Run the job on a sample of a manifest and say what the whole will take.

    Args:
        manifest: folder or s3:// address of a manifest.
        folder: where the calibration's rows go; must be empty.
        config: of the job that is planned.
        series: of the sample.
        on_progress: as of Job.run.

    Raises:
        ConfigError: the manifest holds too few series, or too few of the sample could be read.
    """
    table = read_manifest(manifest, config.archive.storage)
    statuses = np.array(table["status"].to_pylist())
    sizes = _megavoxels(table)
    wanted = np.flatnonzero(statuses == Status.OK.value)
    if len(wanted) < LEAST_SERIES:
        raise ConfigError(
            f"plan: {manifest} holds {len(wanted)} series to read, and a forecast needs at least "
            f"{LEAST_SERIES}; run the archive as it is"
        )
    picked = wanted[sample_by_size(sizes[wanted], max(series, LEAST_SERIES))]
    job = Job(_write_sample(table.take(picked), folder), str(folder / "run"), config)
    summary = job.run(on_progress)
    rows = list(job.output.iterate_rows(["series_key", "status", "timings"]))
    size_of = dict(zip(table["series_key"].to_pylist(), sizes, strict=True))
    measured = calibrate(rows, size_of, summary.wall_s)
    cores = float(ray.cluster_resources().get("CPU", 1.0))
    return extrapolate(measured, sizes[wanted], len(statuses), len(picked), config.run, cores)


def sample_by_size(megavoxels: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Indices of a sample with small and large series in proportion: every n-th by size, mixed."""
    order = np.argsort(megavoxels, kind="stable")
    at = (np.arange(min(count, len(order))) + 0.5) * len(order) / min(count, len(order))
    picked = np.asarray(order[at.astype(int)], np.int64)
    # by size, the small series would all run while the job warms up and seem slow for it
    return np.random.default_rng(_SHUFFLE_SEED).permutation(picked)


def calibrate(
    rows: Sequence[Mapping[str, Any]], megavoxels: Mapping[str, float], wall_s: float
) -> Calibration:
    """Fit work and speed to the rows of a calibration run.

    Args:
        rows: series_key, status and timings of result rows.
        megavoxels: series_key -> size.
        wall_s: of the whole run, start-up included.

    Raises:
        ConfigError: too few series ended as ok.
    """
    done = sorted(
        (row for row in rows if row["status"] == Status.OK.value),
        key=lambda row: row["timings"]["finished_at"],
    )
    if len(done) < LEAST_SERIES:
        raise ConfigError(
            f"plan: only {len(done)} of {len(rows)} series of the sample could be read; "
            "`raypipe run --limit` on the manifest shows why"
        )
    stages = np.array([[row["timings"][s] or 0.0 for s in STAGES] for row in done])
    size = np.array([megavoxels[row["series_key"]] for row in done])
    work = stages.sum(axis=1)
    base_s, voxel_s = _line(size, work)
    fitted = base_s + voxel_s * size
    per_work = _seconds_per_work(done, fitted)
    residual = (work - fitted).std() / math.sqrt(len(done)) / work.mean()
    return Calibration(
        base_s=base_s,
        voxel_s=voxel_s,
        speed=1.0 / per_work,
        startup_s=max(0.0, wall_s - float(fitted.sum()) * per_work),
        relative_error=float(residual),
        stage_shares=dict(zip(STAGES, (stages.sum(axis=0) / work.sum()).tolist(), strict=True)),
    )


def _seconds_per_work(done: Sequence[Mapping[str, Any]], work: NDArray[np.float64]) -> float:
    """Seconds of the clock for a unit of work while a job flows, without its ramp and tail.

    Args:
        done: finished rows with timings, in the order in which they ended.
        work: of each row.
    """
    finished = np.array([row["timings"]["finished_at"].timestamp() for row in done])
    # series of one batch end together: what counts is the work done when the last of them ends
    ends = np.append(finished[1:] != finished[:-1], True)
    share = np.arange(1, len(done) + 1) / len(done)
    steady = ends & (share >= RAMP) & (share <= 1 - RAMP)
    if steady.sum() >= LEAST_MOMENTS:
        slope, _ = np.polyfit(np.cumsum(work)[steady], finished[steady] - finished[0], 1)
        return float(slope)
    # too few moments for a line, so the ramp counts as well
    started = min(row["timings"]["started_at"].timestamp() for row in done)
    return float((finished[-1] - started) / work.sum())


def _line(size: NDArray[np.float64], work: NDArray[np.float64]) -> tuple[float, float]:
    """base and slope of work over size, neither negative."""
    if np.ptp(size) < 1e-6 * size.mean():
        return float(work.mean()), 0.0
    slope, base = np.polyfit(size, work, 1)
    if slope < 0:
        return float(work.mean()), 0.0
    if base < 0:
        return 0.0, float((size * work).sum() / (size * size).sum())
    return float(base), float(slope)


def extrapolate(
    measured: Calibration,
    megavoxels: NDArray[np.float64],
    in_manifest: int,
    calibrated_on: int,
    run: RunConfig,
    cores: float,
) -> Forecast:
    """The forecast of series of these sizes."""
    work = measured.work_s(megavoxels)
    flowing_s = float(work.sum()) / measured.speed
    hours = (measured.startup_s + flowing_s) / 3600.0
    spread = 1.96 * measured.relative_error * flowing_s / 3600.0
    gpus = sum(pool.gpus * pool.max_size for pool in run.pools.values())
    each = {s: share * float(work.mean()) for s, share in measured.stage_shares.items()}
    return Forecast(
        series=len(megavoxels),
        rejected=in_manifest - len(megavoxels),
        calibrated_on=calibrated_on,
        hours=hours,
        hours_low=max(0.0, hours - spread),
        hours_high=hours + spread,
        startup_s=measured.startup_s,
        series_per_hour=len(megavoxels) / hours,
        gpu_hours=gpus * hours,
        cpu_hours=cores * hours,
        cost=run.price_per_hour * hours if run.price_per_hour else None,
        currency=run.currency,
        stages={
            stage: StageForecast(
                seconds_per_series=seconds,
                workers=measured.stage_shares[stage] * measured.speed,
                pool=run.pools[stage].max_size if stage in run.pools else None,
            )
            for stage, seconds in each.items()
        },
        advice=advise(each, run, cores),
    )


def advise(seconds: Mapping[str, float], run: RunConfig, cores: float) -> tuple[str, ...]:
    """Pool sizes that keep the dearest pool busy.

    Args:
        seconds: of each stage for a mean series.
        run: the pools as they are.
        cores: logical CPUs of the cluster.
    """
    pools = run.pools
    on_gpu = [name for name, pool in pools.items() if pool.gpus > 0] or list(pools)
    rates = {name: pools[name].max_size / max(seconds[name], 1e-9) for name in pools}
    dearest = max(on_gpu, key=lambda name: pools[name].gpus * pools[name].max_size)
    rate = rates[dearest]
    told = []
    for name, pool in pools.items():
        need = math.ceil(rate * seconds[name] - 1e-6)
        if name != dearest and need > pool.max_size:
            told.append(f"run.{name}.max_size: {need} instead of {pool.max_size}")
    loaders = math.ceil(rate * (seconds["load"] + seconds["prepare"]) * run.load.cpus)
    free = cores - sum(pool.cpus * pool.max_size for pool in pools.values())
    if loaders > free:
        told.append(
            f"{loaders - max(0, math.floor(free))} more CPUs for loading, or run.{dearest}."
            f"max_size: {max(1, math.floor(pools[dearest].max_size * max(free, 1) / loaders))}"
        )
    if told:
        return (f"so that {dearest} never waits:", *told)
    return (f"the pools are large enough: {dearest} sets the pace",)


def _megavoxels(table: pa.Table) -> NDArray[np.float64]:
    shapes = table["shape_zyx"].to_pylist()
    return np.array([math.prod(shape) / _MEGAVOXEL if shape else 0.0 for shape in shapes])


def _write_sample(rows: pa.Table, folder: Path) -> str:
    import pyarrow.parquet as pq

    target = folder / "sample"
    target.mkdir(parents=True)
    pq.write_table(rows, target / "part-00000.parquet")
    return str(target)
