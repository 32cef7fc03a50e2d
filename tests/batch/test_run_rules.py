"""What a run does by itself: waits for its hours, keeps to its share of the source, stops early."""

import json
import time
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import ray
from typer.testing import CliRunner

from raypipe.batch import metrics
from raypipe.batch.job import Job
from raypipe.batch.output import open_output
from raypipe.batch.progress import Progress
from raypipe.batch.status import run_status
from raypipe.cli import app
from raypipe.config import load_config
from raypipe.errors import RunStoppedError
from raypipe.phantom import write_bulk_archive
from tests.tiny_detector import fast_settings

NOON, NIGHT = (datetime(2026, 1, 15, hour, 0, tzinfo=UTC) for hour in (12, 23))

pytestmark = pytest.mark.usefixtures("ray_cluster")


@dataclass(frozen=True)
class _Clock:
    """Noon until a moment of the real time, then night."""

    night_begins: float

    def __call__(self) -> datetime:
        return NIGHT if time.time() >= self.night_begins else NOON


def _events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_outside_of_its_hours_a_run_waits_and_goes_on_by_itself(tmp_path: Path) -> None:
    write_bulk_archive(tmp_path / "a", n_series=4, seed=2, shape_zyx=(2, 48, 48))
    config = load_config(overrides=(*fast_settings(), 'run.schedule.hours=["22:00-06:00"]'))
    clock = _Clock(time.time() + 15.0)
    lines: list[str] = []
    job = Job(str(tmp_path / "a"), str(tmp_path / "out"), config, clock=clock, on_log=lines.append)
    job.index(lambda *_: None)
    seen: list[tuple[float, Progress]] = []
    job.run(lambda progress: seen.append((time.time(), progress)))
    paused = [progress for _, progress in seen if progress.paused_until is not None]
    assert len(paused) > 3 and all(p.done == 0 for p in paused)
    assert str(paused[0].paused_until) == "2026-01-15 22:00:00+00:00"
    assert seen[-1][1].done == 4
    rows = list(job.output.iterate_rows())
    assert min(r["timings"]["started_at"].timestamp() for r in rows) >= clock.night_begins - 0.01
    names = [event["event"] for event in _events(tmp_path / "out")]
    assert names == ["run_started", "paused", "resumed", "run_ended"]
    assert [json.loads(line)["event"] for line in lines] == names


def test_a_run_of_which_too_much_fails_stops_and_can_be_mended(tmp_path: Path) -> None:
    series = 40
    truths = write_bulk_archive(tmp_path / "a", n_series=series, seed=1, shape_zyx=(2, 48, 48))
    size = sum((tmp_path / "a" / path).stat().st_size for path in truths[0].paths)
    rules = ("run.failed_share_after=4", "run.max_failed_share=0.3", "run.describe.batch_series=1")
    slow = f"run.source_mb_per_s={size * 4 / 1e6}"  # four series in a second, whoever reads them
    config = load_config(overrides=(*fast_settings(), *rules, slow))
    job = Job(str(tmp_path / "a"), str(tmp_path / "out"), config)
    job.index(lambda *_: None)
    hidden = [tmp_path / "a" / truth.paths[0] for truth in truths]
    for path in hidden:
        path.rename(path.with_suffix(".gone"))
    with pytest.raises(RunStoppedError, match=r"of this run failed.*source_missing.*raypipe retry"):
        job.run(lambda progress: None)
    storage = config.archive.storage
    status = run_status(job.output, storage)
    assert status.state == "stopped" and "run.max_failed_share 0.3" in status.message
    assert 4 <= status.done < series, "it stopped before everything had failed"
    starts = sorted(r["timings"]["started_at"].timestamp() for r in job.output.iterate_rows())
    assert len(starts) / (starts[-1] - starts[0] + 0.25) < 5.0, "the pace was kept"
    ended = [event for event in _events(tmp_path / "out") if event["event"] == "series_ended"]
    assert {(event["reason"], event["stage"]) for event in ended} == {("source_missing", "load")}
    for path in hidden:
        path.with_suffix(".gone").rename(path)
    _retry(tmp_path / "out", series)


def _retry(out: Path, series: int) -> None:
    """By the command line; only the reason that is asked for, then all the rest."""
    runner = CliRunner()
    wrong = runner.invoke(app, ["retry", str(out), "--reason", "slice_gap"])
    assert "a series fails for one of" in str(wrong.exception)
    options = ["--set", "run.source_mb_per_s=null"]
    result = runner.invoke(app, ["retry", str(out), "--reason", "source_missing", *options])
    assert result.exit_code == 0, result.output
    assert "failed series will be done again" in result.output
    storage = load_config().archive.storage
    status = run_status(open_output(str(out), storage), storage)
    assert (status.state, status.status_counts) == ("finished", {"ok": series})
    assert runner.invoke(app, ["verify", str(out)]).exit_code == 0


def test_metrics_of_a_run_can_be_scraped(tmp_path: Path) -> None:
    write_bulk_archive(tmp_path / "a", n_series=2, seed=3, shape_zyx=(2, 48, 48))
    job = Job(str(tmp_path / "a"), str(tmp_path / "out"), load_config(overrides=fast_settings()))
    job.index(lambda *_: None)
    job.run(lambda progress: None)
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = (metrics.SERIES, metrics.LEFT, metrics.BUSY, metrics.QUEUE, metrics.PAUSED)
    names = {f"ray_{name}" for name in (*wanted, f"{metrics.STAGE_SECONDS}_bucket")}
    deadline = time.monotonic() + 40
    while True:
        text = urllib.request.urlopen(address, timeout=5).read().decode()
        found = {name for name in names if f"\n{name}{{" in text}
        if found == names or time.monotonic() > deadline:
            break
        time.sleep(1.0)
    assert found == names
