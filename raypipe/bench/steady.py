"""Time a job without its start-up.

In: a Job. Out: seconds from the first series read to the last row, all actors up beforehand.
Does not know: what is measured against what.
"""

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
    timings = [row["timings"] for row in job.output.iterate_rows(["timings"])]
    started = min(t["started_at"] for t in timings)
    seconds: float = (max(t["finished_at"] for t in timings) - started).total_seconds()
    return seconds
