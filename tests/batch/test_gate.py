"""The hours of a run, and its share of the source."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from raypipe.batch.advice import pool_advice
from raypipe.batch.gate import Pace, closed_until
from raypipe.config import DescribePool, DetectPool, RunConfig, ScheduleConfig


def test_reads_keep_to_the_average_whoever_asks() -> None:
    pace, now, starts, total = Pace(10e6), 0.0, [], 0
    for size in (5_000_000, 20_000_000, 1_000_000, 1_000_000):
        starts.append(now + pace.wait_s(now, size))
        total += size
    assert starts == pytest.approx([0.0, 0.5, 2.5, 2.6])
    # after a quiet time nothing is owed, and nothing was saved up
    assert pace.wait_s(100.0, 10_000_000) == 0.0
    assert pace.wait_s(100.0, 1) == pytest.approx(1.0)
    assert all(b > a for a, b in pairwise(starts))


def test_closed_until_tells_the_hour_of_the_zone() -> None:
    schedule = ScheduleConfig(hours=("22:00-06:00",), time_zone="Europe/Berlin")
    noon = datetime(2026, 1, 15, 11, 0, tzinfo=UTC)
    until = closed_until(schedule, noon)
    assert until is not None and until.isoformat() == "2026-01-15T22:00:00+01:00"
    assert closed_until(schedule, noon + timedelta(hours=11)) is None
    assert closed_until(ScheduleConfig(), noon) is None


def _run(detect_gpus: float = 1.0, describe_gpus: float = 1.0) -> RunConfig:
    return RunConfig(
        detect=DetectPool(gpus=detect_gpus, max_size=4), describe=DescribePool(gpus=describe_gpus)
    )


def test_idle_gpus_name_what_holds_them_up() -> None:
    loading = pool_advice({"detect": 0.1, "describe": 0.05}, _run())
    assert loading is not None and "loading is the bottleneck" in loading
    assert "run.load.cpus (now 1)" in loading and "detect 10% busy" in loading
    detecting = pool_advice({"detect": 0.95, "describe": 0.2}, _run())
    assert detecting is not None and "enlarge run.detect.max_size (now 4)" in detecting
    describing = pool_advice({"detect": 0.3, "describe": 1.0}, _run())
    assert describing is not None and "enlarge run.describe.max_size" in describing


def test_nothing_is_said_where_gpus_work_or_there_are_none() -> None:
    assert pool_advice({"detect": 0.9, "describe": 0.6}, _run()) is None
    assert pool_advice({"detect": 0.1, "describe": 0.1}, _run(0.0, 0.0)) is None
    assert pool_advice({}, _run()) is None
