from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from raypipe.batch.summary import summarize
from raypipe.config import DetectPool, RunConfig

START = datetime(2026, 1, 1, tzinfo=UTC)


def _row(key: str, finished_s: float, **values: Any) -> dict[str, Any]:
    timings = {"load": 1.0, "prepare": None, "detect": 2.0, "describe": 0.5}
    timings["finished_at"] = START + timedelta(seconds=finished_s)
    report = {"tokens": 50, "needs_review": True}
    row = {
        "series_key": key,
        "status": "ok",
        "reason": None,
        "flags": ["resampled"],
        "findings": [1, 2],
    }
    return row | {"report": report, "timings": timings} | values


def test_summary_tells_this_run_from_earlier_ones() -> None:
    rejected = _row(
        "d", 9, status="rejected", reason="localizer", flags=None, findings=None, report=None
    )
    rows = [_row("a", -5), _row("b", 5), _row("c", 8), rejected]
    run = RunConfig(price_per_hour=36.0, detect=DetectPool(min_size=1, max_size=2))
    summary = summarize(rows, started_at=START, wall_s=10.0, wanted=set("abcde"), run=run)
    assert (summary.series_done_before, summary.series_done, summary.series_left) == (1, 3, 1)
    assert summary.status_counts == {"ok": 3, "rejected": 1}
    assert summary.reason_counts == {"localizer": 1}
    assert (summary.findings, summary.needs_review, summary.tokens) == (6, 3, 100)
    assert summary.series_per_hour == pytest.approx(1080.0)
    assert summary.cost_per_series == pytest.approx(36.0 / 1080.0)
    assert summary.stages["detect"].busy_workers == pytest.approx(0.6)
    assert summary.stages["detect"].busy_share == pytest.approx(0.3)
    assert summary.stages["load"].busy_share is None
    assert summary.tokens_per_s == pytest.approx(100 / 1.5)


def test_rows_of_series_that_left_the_archive_hide_none_that_are_left() -> None:
    rows = [_row("gone", -5), _row("too", -5), _row("a", 5)]
    summary = summarize(rows, started_at=START, wall_s=1.0, wanted={"a", "b"}, run=RunConfig())
    assert (summary.series_in_manifest, summary.series_done, summary.series_left) == (2, 1, 1)


def test_no_price_no_cost_and_nothing_done_is_no_division_by_zero() -> None:
    summary = summarize([], started_at=START, wall_s=0.0, wanted=set(), run=RunConfig())
    assert summary.cost_per_series is None
    assert summary.series_per_hour == summary.tokens_per_s == 0.0
