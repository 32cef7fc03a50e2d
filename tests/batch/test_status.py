"""`raypipe status` tells how a folder stands from its files alone."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from raypipe.archive.storage import StorageConfig
from raypipe.batch.attempts import Attempts
from raypipe.batch.output import Output
from raypipe.batch.progress import PROGRESS_FILE, ProgressRecord
from raypipe.batch.status import RunStatus, run_status
from raypipe.cli import app
from tests.batch.result_folder import result_folder, write_rows

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    output = result_folder(tmp_path, {"x_0": "ab"})
    write_rows(output, "x_1", "c", status="failed", reason="quarantined", attempts=3)
    write_rows(output, "x_2", "d", status="rejected", reason="not_ct")
    return output


def _told(output: Output, state: str, minutes: float, **values: object) -> None:
    record = ProgressRecord(
        run="r",
        state=state,
        started_at=START,
        updated_at=START + timedelta(minutes=minutes),
        total=8,
        done_before=1,
        done=4,
        **values,  # type: ignore[arg-type]
    )
    output.write_text(PROGRESS_FILE, record.model_dump_json())


def _status(output: Output, minutes: float) -> RunStatus:
    return run_status(output, StorageConfig(), START + timedelta(minutes=minutes))


def test_counts_come_from_the_rows(output: Output) -> None:
    status = run_status(output, StorageConfig())
    assert (status.state, status.total, status.done, status.left) == ("unknown", 8, 4, 4)
    assert status.status_counts == {"ok": 2, "failed": 1, "rejected": 1}
    assert status.failed_by_reason == {"quarantined": 1}
    assert status.rejected_by_reason == {"not_ct": 1}
    assert (status.attempts, status.in_flight, status.eta_s) == (6, 0, None)


def test_series_that_left_the_archive_do_not_count(output: Output) -> None:
    write_rows(output, "x_3", "z")
    status = run_status(output, StorageConfig())
    assert (status.total, status.done, status.left) == (8, 4, 4)


def test_a_run_at_work_has_a_speed_and_an_end(output: Output) -> None:
    _told(output, "running", 5.9)
    attempts = Attempts(output.uri, StorageConfig())
    attempts.make_folder()
    attempts.begin("load", {"e": 1})
    status = _status(output, 6.0)
    assert (status.state, status.in_flight) == ("running", 1)
    assert status.series_per_hour == pytest.approx(30.0)  # three new ones in six minutes
    assert status.eta_s == pytest.approx(480.0)


def test_a_run_that_says_nothing_is_silent(output: Output) -> None:
    _told(output, "running", 1.0)
    status = _status(output, 10.0)
    assert (status.state, status.eta_s) == ("silent", None)
    assert status.last_activity == START + timedelta(minutes=1)


def test_a_run_that_ended_says_how(output: Output) -> None:
    _told(output, "stopped", 3.0, message="too much failed")
    status = _status(output, 60.0)
    assert (status.state, status.message, status.eta_s) == ("stopped", "too much failed", None)
    assert status.series_per_hour == pytest.approx(60.0)


def test_the_command_prints_a_table_and_json(output: Output) -> None:
    _told(output, "paused", 1.0, paused_until=START + timedelta(hours=10))
    runner = CliRunner()
    table = runner.invoke(app, ["status", output.uri])
    assert table.exit_code == 0
    assert "4 of 8 done, 4 left" in table.stdout and "1 quarantined" in table.stdout
    printed = runner.invoke(app, ["status", output.uri, "--json"])
    assert RunStatus.model_validate_json(printed.stdout).failed_by_reason == {"quarantined": 1}
    nothing = runner.invoke(app, ["status", output.uri + "/manifest"])
    assert nothing.exit_code != 0
