"""The archive job against a plain single-process loop over the same stages.

In: a number of phantom series. Out: seconds of both, and the job's time over the ideal, which is
the loop's time divided by the cores. Start-up of Ray, networks and engines is left out of both.
Does not know: what a stage does.
"""

import statistics
import time
from pathlib import Path

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.batch.job import Job
from raypipe.batch.summary import STAGES
from raypipe.bench.machine import cores, machine
from raypipe.bench.steady import run_steady
from raypipe.config import RaypipeConfig
from raypipe.errors import Status
from raypipe.phantom import write_bulk_archive
from raypipe.settings import Settings
from raypipe.stages import Describe, Detect, Load, Prepare, Row


class PipelineResult(Settings):
    """Medians over the repetitions, and every repetition."""

    series: int
    cores: int
    loop_s: float
    loop_stage_s: dict[str, float]
    ideal_s: float
    job_s: float
    ratio_to_ideal: float
    loop_runs_s: list[float]
    job_runs_s: list[float]
    machine: dict[str, str | int]


def bench_pipeline(
    folder: Path, config: RaypipeConfig, *, series: int, shape_zyx: tuple[int, int, int], runs: int
) -> PipelineResult:
    """Run loop and job in turn on the same phantom series.

    Args:
        folder: where archive, manifest and results go; must be empty.
        config: of the job. The loop's networks and engine get one thread, so that it fills one core
            and its time over the number of cores is the ideal.
        series: how many.
        shape_zyx: voxels of a series.
        runs: repetitions of each.
    """
    archive = folder / "archive"
    write_bulk_archive(archive, n_series=series, seed=0, shape_zyx=shape_zyx)
    source = str(folder / "manifest")
    build_index(str(archive), source, config.index, lambda done, total, size: None)
    alone = _one_thread(config)
    loops = [_time_loop(source, alone) for _ in range(runs)]
    jobs = [run_steady(Job(source, str(folder / f"job-{i}"), config)) for i in range(runs)]
    loop_s, job_s = statistics.median(t for t, _ in loops), statistics.median(jobs)
    return PipelineResult(
        series=series,
        cores=cores(),
        loop_s=loop_s,
        loop_stage_s={s: statistics.median(stages[s] for _, stages in loops) for s in STAGES},
        ideal_s=loop_s / cores(),
        job_s=job_s,
        ratio_to_ideal=job_s / (loop_s / cores()),
        loop_runs_s=[t for t, _ in loops],
        job_runs_s=jobs,
        machine=machine(),
    )


def _one_thread(config: RaypipeConfig) -> RaypipeConfig:
    detector = config.detector.model_copy(update={"threads": 1})
    vllm = config.report.vllm.model_copy(update={"threads": 1})
    report = config.report.model_copy(update={"vllm": vllm})
    return config.model_copy(update={"detector": detector, "report": report})


def _time_loop(manifest: str, config: RaypipeConfig) -> tuple[float, dict[str, float]]:
    """Seconds of a plain loop, whole and by stage, after everything is loaded."""
    load, prepare, detect = Load(config), Prepare(config), Detect(config)
    describe = Describe(config)
    rows = read_manifest(manifest, config.archive.storage).to_pylist()
    batch = config.run.describe.batch_series
    done: list[Row] = []
    try:
        describe([detect(prepare(load(rows[0])))])  # warm
        started = time.perf_counter()
        for i in range(0, len(rows), batch):
            detected = [detect(prepare(load(row))) for row in rows[i : i + batch]]
            done += describe(detected)
        seconds = time.perf_counter() - started
    finally:
        describe.close()
    assert all(row["status"] == Status.OK for row in done), "a phantom series was not ok"
    return seconds, {s: sum(row["timings"][s] for row in done) for s in STAGES}
