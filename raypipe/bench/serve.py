"""The service under load, on loopback: what it adds to the stages, and what it does when full.

In: a ServeConfig and sizes. Out: seconds of direct calls of the stages and of requests for the same
series, taken in turns, latencies from 1 to many callers, what a burst above capacity gets, replicas
over time.
Does not know: how a request is answered.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.bench.empty import need_empty
from raypipe.bench.machine import machine
from raypipe.bench.serve_load import (
    BurstResult,
    LoadResult,
    ReplicaWatch,
    Upload,
    burst,
    load,
)
from raypipe.config import RaypipeConfig
from raypipe.cores import usable_cores
from raypipe.errors import Status
from raypipe.phantom import write_bulk_archive
from raypipe.serve.app import start, stop
from raypipe.serve.config import ServeConfig
from raypipe.settings import Settings
from raypipe.stages import Describe, Detect, Load, Prepare

_SHRINK_LIMIT_S = 120.0


class ServeBenchConfig(Settings):
    """How much is sent."""

    series: int = 6
    shape_zyx: tuple[int, int, int] = (16, 512, 512)
    runs: int = 8
    clients: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    requests: int = 24


class ServeBenchResult(Settings):
    """What was measured; seconds are medians for one whole series."""

    cores: int
    slices: int
    upload_mib: float
    direct_s: float
    request_s: float
    overhead: float
    direct_runs_s: list[float]
    request_runs_s: list[float]
    loads: list[LoadResult]
    burst: BurstResult
    replicas_least: dict[str, int]
    replicas_most: dict[str, int]
    replicas_after: dict[str, int]
    machine: dict[str, str | int]


def bench_serve(
    folder: Path,
    config: ServeConfig,
    sizes: ServeBenchConfig,
    on_step: Callable[[str], None] = lambda what: None,
) -> ServeBenchResult:
    """Measure the stages alone, start the service, measure it, stop it.

    Args:
        folder: empty; for the phantom archive and the jobs.
        config: of the service; its jobs go into the folder.
        sizes: how much is sent.
        on_step: told what is being done.

    Raises:
        ConfigError: the folder is not empty.
    """
    need_empty(folder)
    archive = folder / "archive"
    on_step("writing phantom series")
    write_bulk_archive(archive, n_series=sizes.series, seed=0, shape_zyx=sizes.shape_zyx)
    jobs = config.jobs.model_copy(update={"folder": str(folder / "jobs")})
    config = _same_threads(config.model_copy(update={"jobs": jobs}))
    uploads = _uploads(archive)
    on_step("starting the service")
    start(config)
    url = f"http://{config.http.host}:{config.http.port}"
    try:
        load(url, uploads, clients=1, requests=2)  # warm
        on_step("direct calls of the stages and one caller, in turns")
        stages = _DirectCall(archive, folder / "manifest", config.pipeline)
        direct, alone = _in_turns(stages, url, uploads, sizes)
        on_step(f"  medians {statistics.median(direct):.3f} s, {statistics.median(alone):.3f} s")
        loads: list[LoadResult] = []
        with ReplicaWatch(url) as watch:
            for clients in sizes.clients:
                on_step(f"{clients} callers")
                requests = max(sizes.requests, 2 * clients)
                loads.append(load(url, uploads, clients=clients, requests=requests))
                on_step(f"  median {loads[-1].median_s:.2f} s, 95 % {loads[-1].p95_s:.2f} s")
            on_step("more jobs than there is room for")
            full = burst(url, uploads, jobs=config.jobs.max_queued + config.jobs.max_running + 16)
            on_step(f"  {full.accepted} accepted, {full.refused} refused, {full.lost} lost")
            on_step("waiting for replicas to go")
            after = _after(watch, config)
    finally:
        stop(config)
    request_s, direct_s = statistics.median(alone), statistics.median(direct)
    return ServeBenchResult(
        cores=usable_cores(),
        slices=sizes.shape_zyx[0],
        upload_mib=sum(len(f) for f in uploads[0].files) / 2**20,
        direct_s=direct_s,
        request_s=request_s,
        overhead=request_s / direct_s - 1.0,
        direct_runs_s=direct,
        request_runs_s=alone,
        loads=loads,
        burst=full,
        replicas_least={name: min(seen) for name, seen in watch.seen.items()},
        replicas_most={name: max(seen) for name, seen in watch.seen.items()},
        replicas_after=after,
        machine=machine(),
    )


def _same_threads(config: ServeConfig) -> ServeConfig:
    """The network on as many threads in a replica, where Ray allows one, as in a direct call."""
    detector = config.pipeline.detector
    threads = detector.threads or usable_cores()
    changed = {"detector": detector.model_copy(update={"threads": threads})}
    return config.model_copy(update={"pipeline": config.pipeline.model_copy(update=changed)})


class _DirectCall:
    """The stages in this process; they stay loaded while the service is asked for the same."""

    def __init__(self, archive: Path, manifest: Path, config: RaypipeConfig) -> None:
        build_index(str(archive), str(manifest), config.index)
        rows = read_manifest(str(manifest), config.archive.storage).to_pylist()
        self._rows = sorted(rows, key=lambda row: str(row["instances"][0]["uri"]))
        self._load, self._prepare = Load(config), Prepare(config)
        self._detect, self._describe = Detect(config), Describe(config)

    def __call__(self, number: int) -> float:
        """Seconds for one series."""
        began = time.perf_counter()
        row = self._detect(self._prepare(self._load(self._rows[number])))
        (done,) = self._describe([row])
        seconds = time.perf_counter() - began
        assert done["status"] == Status.OK, "a phantom series was not ok"
        return seconds

    def close(self) -> None:
        """Stop the engine."""
        self._describe.close()


def _in_turns(
    stages: _DirectCall, url: str, uploads: Sequence[Upload], sizes: ServeBenchConfig
) -> tuple[list[float], list[float]]:
    """Seconds of direct calls and of requests for the same series, one after the other."""
    direct, alone = [], []
    with closing(stages):
        stages(0)  # warm
        for turn in range(sizes.runs):
            number = turn % sizes.series
            direct.append(stages(number))
            alone.append(load(url, uploads[number:], clients=1, requests=1).median_s)
    return direct, alone


def _uploads(archive: Path) -> list[Upload]:
    """One upload a series: the files of each folder that holds some."""
    folders: dict[Path, list[bytes]] = {}
    for file in sorted(p for p in archive.rglob("*") if p.is_file()):
        folders.setdefault(file.parent, []).append(file.read_bytes())
    return [Upload(files=tuple(contents)) for contents in folders.values()]


def _after(watch: ReplicaWatch, config: ServeConfig) -> dict[str, int]:
    """Replicas once nobody asks any more: when all pools are at their least, or time is over."""
    pools = config.pools
    least = {"Loader": pools.loader, "Detector": pools.detector, "Reporter": pools.reporter}
    until = time.monotonic() + _SHRINK_LIMIT_S
    while time.monotonic() < until:
        now = {name: seen[-1] for name, seen in watch.seen.items()}
        if all(now.get(name, 0) <= max(1, pool.min_replicas) for name, pool in least.items()):
            break
        time.sleep(1.0)
    return {name: seen[-1] for name, seen in watch.seen.items()}
