"""The job on one, two and four nodes, and what a large archive on many GPUs would take.

In: numbers of nodes, an archive to imagine. Out: seconds of the same job on each number of nodes,
what the driver spends on a series, and a model fitted to both.
Does not know: what a stage does.

A node is a Ray node with an equal share of this machine's CPU (bench.shares), so that all of them
together have what the machine has; the driver and Ray's head run beside them without a limit, and
take their time from the nodes. The model takes the work of a series as measured, and asks what
ends first: the networks' work on GPUs, the loaders' on the CPUs beside them, or the driver's, which
is one process however many nodes there are.
"""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from pydantic import Field

from raypipe.archive.index import build_index
from raypipe.batch.cluster import prepare_ray
from raypipe.batch.job import Job
from raypipe.batch.summary import STAGES
from raypipe.bench.empty import need_empty
from raypipe.bench.machine import machine
from raypipe.bench.new_process import in_new_process
from raypipe.bench.pipeline_peers import one_thread
from raypipe.bench.sampling import sampled
from raypipe.bench.shares import cpu_share, started_in
from raypipe.bench.steady import run_steady, seconds_of
from raypipe.config import RaypipeConfig
from raypipe.cores import usable_cores
from raypipe.phantom import write_bulk_archive
from raypipe.settings import Settings

_SAMPLE_S = 0.25
_STORE_BYTES = 256 << 20
_GPU_STAGES = ("detect", "describe")


class ScaleRun(Settings):
    """One job on so many nodes."""

    nodes: int
    seconds: float
    head_cpu_s: float = Field(description="CPU time of the driver and of Ray's head meanwhile")
    stage_s: dict[str, float] = Field(description="of all series together, by the clock")


class NodeTimes(Settings):
    """All jobs on one number of nodes."""

    nodes: int
    seconds: float = Field(description="median")
    runs_s: tuple[float, ...]
    speedup: float = Field(description="over the least number of nodes")
    efficiency: float = Field(description="speedup over how many times as many nodes")
    head_busy: float = Field(description="driver and head, in cores; median")


class Imagined(Settings):
    """A cluster and an archive that nobody has here."""

    series: int = Field(default=1_000_000, gt=0)
    gpus: int = Field(default=64, gt=0)
    gpu_speedup: float = Field(
        default=30.0,
        gt=0,
        description="work of the networks that a GPU does in a second, over "
        "what a core of this machine does; assumed, not measured",
    )
    cores_per_gpu: float = Field(default=8.0, gt=0, description="for loading and preparing")


class ScaleModel(Settings):
    """What would end when, each alone; the last one sets the hours."""

    imagined: Imagined
    core_s_per_series: dict[str, float] = Field(description="stage -> core-seconds, measured")
    head_busy: float = Field(description="cores that driver and head take whatever is done")
    head_s_per_series: float = Field(description="CPU time that they take for a series")
    hours: dict[str, float] = Field(description="networks, loaders, driver -> hours alone")

    @property
    def limit(self) -> str:
        """What sets the pace."""
        return max(self.hours, key=lambda part: self.hours[part])


class ScaleResult(Settings):
    """Every number of nodes, and the model."""

    series: int
    cores_per_node: float
    times: tuple[NodeTimes, ...]
    model: ScaleModel
    machine: dict[str, str | int]


def bench_scale(
    folder: Path,
    config: RaypipeConfig,
    *,
    nodes: Sequence[int],
    series: int,
    shape_zyx: tuple[int, int, int],
    runs: int,
    imagined: Imagined,
    on_step: Callable[[str], None],
) -> ScaleResult:
    """Run the same job on each number of nodes, in turns, every one in a process of its own.

    Args:
        folder: where archive and results go; must be empty.
        config: of the job; every node gets one network and one engine of one thread.
        nodes: numbers of nodes, ascending; the last one's shares make up this machine.
        series: phantom series.
        shape_zyx: voxels of a series.
        runs: jobs on each number of nodes.
        imagined: archive and cluster of the model.
        on_step: called with what is timed next.

    Raises:
        ConfigError: this process may not limit CPU time, or the folder is not empty.
    """
    need_empty(folder)
    source = str(folder / "manifest")
    write_bulk_archive(folder / "archive", n_series=series, seed=0, shape_zyx=shape_zyx)
    build_index(str(folder / "archive"), source, config.index)
    cores = usable_cores() / max(nodes)
    done: list[ScaleRun] = []
    for i in range(runs):
        for count in nodes:
            on_step(f"{count} nodes, {i + 1} of {runs}")
            told = (source, str(folder / f"results-{count}-{i}"), config, count, cores)
            done.append(in_new_process(_run, *told))
    times = node_times(done)
    return ScaleResult(
        series=series,
        cores_per_node=cores,
        times=times,
        model=scale_model(done, series, cores, imagined),
        machine=machine(),
    )


def node_times(done: Sequence[ScaleRun]) -> tuple[NodeTimes, ...]:
    """Medians, speedup and efficiency for every number of nodes."""
    counts = sorted({run.nodes for run in done})
    of = {count: [run for run in done if run.nodes == count] for count in counts}
    median = {count: statistics.median(run.seconds for run in of[count]) for count in counts}
    least = counts[0]
    return tuple(
        NodeTimes(
            nodes=count,
            seconds=median[count],
            runs_s=tuple(run.seconds for run in of[count]),
            speedup=median[least] / median[count],
            efficiency=median[least] / median[count] * least / count,
            head_busy=statistics.median(run.head_cpu_s / run.seconds for run in of[count]),
        )
        for count in counts
    )


def scale_model(
    done: Sequence[ScaleRun], series: int, cores_per_node: float, imagined: Imagined
) -> ScaleModel:
    """Hours of an imagined archive on an imagined cluster.

    The work of a series is what the fewest nodes had in time of their cores, parted as its stages
    by the clock. Driver and head take time while they wait and time for a series, which runs of
    the same series and different length tell apart.
    """
    fewest = [run for run in done if run.nodes == min(r.nodes for r in done)]
    work_s = statistics.median(run.seconds * run.nodes * cores_per_node for run in fewest) / series
    clock = {stage: statistics.median(run.stage_s[stage] for run in fewest) for stage in STAGES}
    each = {stage: work_s * seconds / sum(clock.values()) for stage, seconds in clock.items()}
    busy, head_s = _head(done, series)
    on_gpus = sum(each[stage] for stage in _GPU_STAGES)
    on_cpus = sum(seconds for stage, seconds in each.items() if stage not in _GPU_STAGES)
    hours = imagined.series / 3600.0
    return ScaleModel(
        imagined=imagined,
        core_s_per_series=each,
        head_busy=busy,
        head_s_per_series=head_s,
        hours={
            "networks": hours * on_gpus / imagined.gpu_speedup / imagined.gpus,
            "loaders": hours * on_cpus / imagined.cores_per_gpu / imagined.gpus,
            "driver": hours * head_s / (1.0 - busy),
        },
    )


def _head(done: Sequence[ScaleRun], series: int) -> tuple[float, float]:
    """Cores that driver and head take by the clock, and their CPU time a series; neither < 0."""
    length, took = (
        np.array([getattr(run, name) for run in done]) for name in ("seconds", "head_cpu_s")
    )
    if np.ptp(length) < 0.05 * length.mean():
        return 0.0, float(took.mean()) / series
    busy, once = np.polyfit(length, took, 1)
    if once < 0.0:
        return float(took.sum() / length.sum()), 0.0
    return max(0.0, float(busy)), float(once if busy > 0.0 else took.mean()) / series


def _run(source: str, output: str, config: RaypipeConfig, nodes: int, cores: float) -> ScaleRun:
    with _cluster(config, nodes, cores) as (address, head):
        told = _for_nodes(config, nodes, address)
        job = Job(source, output, told)
        processes = (psutil.Process(), *head)
        try:
            with sampled(lambda: _cpu_time(processes), _SAMPLE_S) as samples:
                began, ended = run_steady(job, source, told)
        finally:
            ray.shutdown()
    timings = [row["timings"] for row in job.output.iterate_rows(["timings"])]
    return ScaleRun(
        nodes=nodes,
        seconds=seconds_of((began, ended)),
        head_cpu_s=_at(samples, ended.timestamp()) - _at(samples, began.timestamp()),
        stage_s={stage: sum(t[stage] or 0.0 for t in timings) for stage in STAGES},
    )


def _for_nodes(config: RaypipeConfig, nodes: int, address: str) -> RaypipeConfig:
    """One network and one engine of one thread a node."""
    size = {"min_size": nodes, "max_size": nodes}
    run = config.run.model_copy(
        update={
            "ray_address": address,
            "detect": config.run.detect.model_copy(update=size),
            "describe": config.run.describe.model_copy(update=size),
        }
    )
    return one_thread(config).model_copy(update={"run": run})


@contextmanager
def _cluster(
    config: RaypipeConfig, nodes: int, cores: float
) -> Iterator[tuple[str, tuple[psutil.Process, ...]]]:
    """Its address, and the processes of which there is one however many nodes there are."""
    from ray.cluster_utils import Cluster

    prepare_ray()  # as where a job starts it
    run = config.run
    # room for an actor of each pool and a loader, and for Ray Data's own actor on any node
    cpus = math.ceil(run.detect.cpus + run.describe.cpus + run.load.cpus + 1.0)
    cluster: Any = Cluster()
    with ExitStack() as stack:
        names = [f"raypipe-{os.getpid()}-{i}" for i in range(nodes)]
        groups = [stack.enter_context(cpu_share(name, cores)) for name in names]
        stack.callback(cluster.shutdown)
        head = cluster.add_node(
            num_cpus=0, include_dashboard=False, object_store_memory=_STORE_BYTES
        )
        for group in groups:
            with started_in(group):
                cluster.add_node(num_cpus=cpus, object_store_memory=_STORE_BYTES)
        alone = ("gcs_server", "raylet")
        pids = [p.process.pid for name in alone for p in head.all_processes[name]]
        yield cluster.address, tuple(psutil.Process(pid) for pid in pids)


def _cpu_time(processes: Sequence[psutil.Process]) -> tuple[float, float]:
    """This moment, and the CPU seconds of all processes until now."""
    times = [process.cpu_times() for process in processes]
    return time.time(), sum(t.user + t.system for t in times)


def _at(samples: Sequence[tuple[float, float]], moment: float) -> float:
    """CPU time at a moment, by a line between the samples around it."""
    for (before, low), (after, high) in pairwise(samples):
        if before <= moment <= after:
            return low + (high - low) * (moment - before) / (after - before)
    return samples[-1][1] if moment > samples[-1][0] else samples[0][1]
