"""The forecast of `raypipe plan` against the real run of an archive ten times the calibration.

In: a number of series. Out: forecast and measured seconds.
Does not know: how a forecast is made.
"""

from pathlib import Path

import ray

from raypipe.archive.index import build_index
from raypipe.batch.forecast import Forecast, forecast
from raypipe.batch.job import Job
from raypipe.bench.empty import need_empty
from raypipe.bench.machine import machine
from raypipe.bench.steady import all_ok
from raypipe.config import RaypipeConfig
from raypipe.phantom import write_bulk_archive
from raypipe.settings import Settings

TIMES = 10
"""Size of the archive over that of the calibration."""


class PlanResult(Settings):
    """A forecast and what came of it."""

    forecast: Forecast
    measured_s: float
    ratio: float
    machine: dict[str, str | int]


def bench_plan(
    folder: Path, config: RaypipeConfig, *, calibration: int, shape_zyx: tuple[int, int, int]
) -> PlanResult:
    """Forecast an archive of small and large phantoms, then run it.

    Args:
        folder: where archives and results go; must be empty.
        config: of the job.
        calibration: series of the calibration run.
        shape_zyx: voxels of half of the series; the others have twice the slices.

    Raises:
        ConfigError: the folder is not empty.
        RaypipeError: a series of the real run was not ok.
    """
    need_empty(folder)
    z, y, x = shape_zyx
    half = calibration * TIMES // 2
    for seed, slices in ((1, z), (2, 2 * z)):
        write_bulk_archive(
            folder / "archive" / str(slices), n_series=half, seed=seed, shape_zyx=(slices, y, x)
        )
    manifest = str(folder / "manifest")
    build_index(str(folder / "archive"), manifest, config.index, lambda done, total, size: None)
    told = forecast(
        manifest, folder / "plan", config, series=calibration, on_progress=lambda progress: None
    )
    ray.shutdown()  # the real run starts as a user's does
    job = Job(manifest, str(folder / "results"), config)
    measured_s = job.run(lambda progress: None).wall_s
    all_ok(job.output.iterate_rows(["status", "reason"]))
    return PlanResult(
        forecast=told,
        measured_s=measured_s,
        ratio=told.hours * 3600.0 / measured_s,
        machine=machine(),
    )
