"""The gate that every series passes before it is read: the hours of a run, its share of the source.

In: a RunConfig, a clock. Out: an actor that lets tasks through one by one.
Does not know: what is read.

One actor for all workers, so that their sum keeps to the limit. It stands where the run was
started: when that machine goes, the run goes with it anyway.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raypipe.config import RunConfig, ScheduleConfig
from raypipe.hours import is_open, next_opening

Clock = Callable[[], datetime]
_LOOK_AGAIN_S = 1.0
_AT_A_TIME = 10_000


def utc_now() -> datetime:
    """The clock of a run that is not a test."""
    return datetime.now(UTC)


def closed_until(schedule: ScheduleConfig, now: datetime) -> datetime | None:
    """When the run may go on; None while it may work."""
    if is_open(schedule.spans, schedule.zone, now):
        return None
    return next_opening(schedule.spans, schedule.zone, now).astimezone(schedule.zone)


class Pace:
    """Spreads reads so that they keep to so many bytes in a second on average.

    Args:
        bytes_per_s: the limit.
    """

    def __init__(self, bytes_per_s: float) -> None:
        self._bytes_per_s = bytes_per_s
        self._free_at = 0.0

    def wait_s(self, now_s: float, byte_size: int) -> float:
        """How long a read that is asked for now has to wait; the next one waits for it as well."""
        start = max(now_s, self._free_at)
        self._free_at = start + byte_size / self._bytes_per_s
        return start - now_s


class _Gate:
    """Holds every caller until it may read."""

    def __init__(self, run: RunConfig, clock: Clock) -> None:
        self._schedule, self._clock = run.schedule, clock
        self._pace = Pace(run.source_mb_per_s * 1e6) if run.source_mb_per_s else None

    async def enter(self, byte_size: int) -> None:
        """Come back when a series of so many bytes may be read."""
        while True:
            await self._opened()
            if self._pace is None:
                return
            await asyncio.sleep(self._pace.wait_s(time.monotonic(), byte_size))
            if closed_until(self._schedule, self._clock()) is None:
                return  # else the hours ended meanwhile: it waits, and pays again

    async def _opened(self) -> None:
        while closed_until(self._schedule, self._clock()) is not None:
            await asyncio.sleep(_LOOK_AGAIN_S)


def open_gate(run: RunConfig, clock: Clock) -> Any | None:
    """A gate as the config asks for; None where every series may be read at once."""
    if not run.schedule.hours and run.source_mb_per_s is None:
        return None
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor: Any = ray.remote(_Gate)
    options = {"num_cpus": 0, "max_concurrency": _AT_A_TIME, "scheduling_strategy": here}
    return actor.options(**options).remote(run, clock)
