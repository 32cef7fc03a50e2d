"""Time a job without its start-up.

In: a Job. Out: seconds from the first series read to the last row; actors are up and loaders have
read a series beforehand, as the loop that a job is measured against has.
Does not know: what is measured against what.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import ray

from raypipe.archive.manifest import first_row
from raypipe.batch.cluster import actor_cpus, start_ray
from raypipe.batch.job import Job
from raypipe.config import RaypipeConfig
from raypipe.errors import RaypipeError, Status
from raypipe.stages import Load, Prepare, Row

_START_LIMIT_S = 600


def run_steady(job: Job, manifest: str, config: RaypipeConfig) -> tuple[datetime, datetime]:
    """Run an indexed job; no series is read before every network, engine and loader is there.

    Returns:
        when the first series was begun and when the last was done.
    """
    start_ray(config.run)
    _warm_loaders(manifest, config)
    context = ray.data.DataContext.get_current()
    before, context.wait_for_min_actors_s = context.wait_for_min_actors_s, _START_LIMIT_S
    try:
        job.run(lambda progress: None)
    finally:
        context.wait_for_min_actors_s = before
    return span(job.output.iterate_rows(["status", "reason", "timings"]))


def _warm_loaders(manifest: str, config: RaypipeConfig) -> None:
    """Let as many processes as there will be loaders read the first series."""
    row = first_row(manifest, config.archive.storage)
    free = ray.cluster_resources()["CPU"] - actor_cpus(config.run)
    loaders = int(free // config.run.load.cpus)
    warm: Any = ray.remote(num_cpus=config.run.load.cpus)(_read)
    ray.get([warm.remote(row, config) for _ in range(loaders)])


def _read(row: Row, config: RaypipeConfig) -> None:
    Prepare(config)(Load(config)(row))


def span(rows: Iterable[Mapping[str, Any]]) -> tuple[datetime, datetime]:
    """When the first of finished rows was begun, and when the last was done.

    Raises:
        RaypipeError: a series was not ok: who skips work is not fast.
    """
    timings = [row["timings"] for row in all_ok(rows)]
    return min(t["started_at"] for t in timings), max(t["finished_at"] for t in timings)


def all_ok(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows; RaypipeError where a series was not ok."""
    told = list(rows)
    bad = Counter(str(row["reason"]) for row in told if row["status"] != Status.OK)
    if bad:
        counts = ", ".join(f"{count} {reason}" for reason, count in bad.most_common())
        raise RaypipeError(
            f"bench: {bad.total()} of {len(told)} series were not ok ({counts}), so their time "
            "tells nothing; look into the results of a run with the same config"
        )
    return told


def seconds_of(begun_and_done: tuple[datetime, datetime]) -> float:
    """From a beginning to an end."""
    begun, done = begun_and_done
    return (done - begun).total_seconds()
