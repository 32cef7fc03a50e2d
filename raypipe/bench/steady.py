"""Time a job without its start-up.

In: a Job. Out: seconds from the first series read to the last row, all actors up beforehand.
Does not know: what is measured against what.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import ray

from raypipe.batch.job import Job

_START_LIMIT_S = 600


def run_steady(job: Job) -> float:
    """Run an indexed job; no series is read before every network and engine is loaded."""
    context = ray.data.DataContext.get_current()
    before, context.wait_for_min_actors_s = context.wait_for_min_actors_s, _START_LIMIT_S
    try:
        job.run(lambda progress: None)
    finally:
        context.wait_for_min_actors_s = before
    return seconds_of(job.output.iterate_rows(["timings"]))


def seconds_of(rows: Iterable[Mapping[str, Any]]) -> float:
    """Seconds from when the first of finished rows was begun to when the last was done."""
    timings = [row["timings"] for row in rows]
    started = min(t["started_at"] for t in timings)
    seconds: float = (max(t["finished_at"] for t in timings) - started).total_seconds()
    return seconds
