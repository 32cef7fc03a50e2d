"""The archive job against a plain single-process loop over the same stages, and other engines.

In: a number of phantom series. Out: seconds of all, and the job's time over the ideal, which is
the loop's time divided by the cores. Start-up of Ray, networks and engines is left out of all.
Does not know: what a stage does, how a peer is driven.
"""

import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pyarrow.parquet as pq
import ray
from pydantic import Field

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.batch.job import Job
from raypipe.batch.summary import STAGES
from raypipe.bench.empty import need_empty
from raypipe.bench.machine import machine
from raypipe.bench.pipeline_peers import Peer, Work, one_thread
from raypipe.bench.steady import run_steady, seconds_of, span
from raypipe.config import RaypipeConfig
from raypipe.cores import usable_cores
from raypipe.errors import ConfigError, RaypipeError, Status
from raypipe.phantom import write_bulk_archive
from raypipe.settings import Settings
from raypipe.stages import Describe, Detect, Load, Prepare, Row


class PeerTime(Settings):
    """The same stages under another engine."""

    name: str
    seconds: float
    runs_s: list[float]
    ratio: float = Field(description="over the seconds of raypipe's job; medians")
    same_rows: float = Field(description="share of rows with the job's findings and report")


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
    peers: list[PeerTime]
    machine: dict[str, str | int]


def bench_pipeline(
    folder: Path,
    config: RaypipeConfig,
    *,
    series: int,
    shape_zyx: tuple[int, int, int],
    runs: int,
    peers: Sequence[str] = (),
) -> PipelineResult:
    """Run loop, job and peers in turn on the same phantom series.

    Args:
        folder: where archive, manifest and results go; must be empty.
        config: of the job. The loop's networks and engine get one thread, so that it fills one core
            and its time over the number of cores is the ideal.
        series: how many.
        shape_zyx: voxels of a series.
        runs: repetitions of each.
        peers: other engines.

    Raises:
        ConfigError: an unknown peer, or the folder is not empty.
        RaypipeError: a series was not ok, or a peer's process failed; the message names its log.
    """
    known = get_args(Peer)
    if unknown := [name for name in peers if name not in known]:
        raise ConfigError(f"bench pipeline: no peer {unknown[0]!r}; there are {', '.join(known)}")
    need_empty(folder)
    archive = folder / "archive"
    write_bulk_archive(archive, n_series=series, seed=0, shape_zyx=shape_zyx)
    source = str(folder / "manifest")
    build_index(str(archive), source, config.index, lambda done, total, size: None)
    alone = one_thread(config)
    loops, jobs, jobs_s = [], [], []
    others: dict[str, list[_PeerRun]] = {name: [] for name in peers}
    for i in range(runs):  # in turns: a machine that slows down or speeds up meets both alike
        loops.append(_time_loop(source, alone))
        jobs.append(Job(source, str(folder / f"job-{i}"), config))
        jobs_s.append(seconds_of(run_steady(jobs[-1], source, config)))
        ray.shutdown()  # an idle Ray would slow what comes next
        for name, done in others.items():
            done.append(_run_peer(folder / f"{name}-{i}", name, source, config))
    loop_s, job_s = statistics.median(t for t, _ in loops), statistics.median(jobs_s)
    rows = {row["series_key"]: _lasting(row) for row in jobs[0].output.iterate_rows()}
    return PipelineResult(
        series=series,
        cores=usable_cores(),
        loop_s=loop_s,
        loop_stage_s={s: statistics.median(stages[s] for _, stages in loops) for s in STAGES},
        ideal_s=loop_s / usable_cores(),
        job_s=job_s,
        ratio_to_ideal=job_s / (loop_s / usable_cores()),
        loop_runs_s=[t for t, _ in loops],
        job_runs_s=jobs_s,
        peers=[_peer_time(name, done, job_s, rows) for name, done in others.items()],
        machine=machine(),
    )


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


class _PeerRun(NamedTuple):
    """Seconds of a peer, and what lasts of its rows by series."""

    seconds: float
    rows: dict[str, Row]


def _run_peer(stem: Path, name: str, source: str, config: RaypipeConfig) -> _PeerRun:
    told, done, log = (stem.with_suffix(s) for s in (".pickle", ".parquet", ".log"))
    told.write_bytes(
        pickle.dumps(Work.model_validate({"peer": name, "manifest": source, "config": config}))
    )
    command = [sys.executable, "-m", "raypipe.bench.pipeline_peers", str(told), str(done)]
    with log.open("w") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode
    if code:
        raise RaypipeError(f"bench pipeline: {name} ended with {code}; its log is {log}")
    rows = pq.read_table(done).to_pylist()
    return _PeerRun(seconds_of(span(rows)), {row["series_key"]: _lasting(row) for row in rows})


def _peer_time(name: str, done: Sequence[_PeerRun], job_s: float, rows: dict[str, Row]) -> PeerTime:
    times = [run.seconds for run in done]
    same = [run.rows.get(key) == row for run in done for key, row in rows.items()]
    seconds = statistics.median(times)
    return PeerTime(
        name=name,
        seconds=seconds,
        runs_s=times,
        ratio=seconds / job_s,
        same_rows=sum(same) / len(same),
    )


def _lasting(row: Row) -> dict[str, Any]:
    return {name: row[name] for name in ("status", "reason", "findings", "report")}
