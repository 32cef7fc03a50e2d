"""A series that kills its worker again and again is set aside; its neighbours are not."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raypipe.archive.storage import StorageConfig, filesystem_for
from raypipe.batch.attempts import Attempts
from raypipe.batch.guard import Guard

Row = dict[str, Any]


class _Died(BaseException):
    """Stands for the death of the worker: nothing after it happens."""


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    found = Attempts(str(tmp_path), StorageConfig())
    found.make_folder()
    return found


def _row(key: str, status: str = "ok") -> Row:
    return {"series_key": key, "status": status, "reason": None, "timings": {}}


def _until_done(guard: Guard, keys: str, deadly: str, *, together: bool) -> tuple[list[Row], int]:
    """Rows in the end, and how many workers it took; Ray begins again with the same rows."""
    deaths = 0

    def one(row: Row) -> Row:
        if row["series_key"] in deadly and row["status"] == "ok":
            raise _Died
        return row

    while True:
        rows = [_row(key) for key in keys]
        try:
            if together:
                return guard.batch(rows, lambda batch: [one(row) for row in batch]), deaths
            return [guard.one(row, one) for row in rows], deaths
        except _Died:
            deaths += 1
            assert deaths < 50


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("deadly", ["a", "c", "e", "bd"])
def test_only_the_deadly_are_set_aside(attempts: Attempts, deadly: str, together: bool) -> None:
    guard = Guard(attempts, "detect", 3)
    rows, deaths = _until_done(guard, "abcde", deadly, together=together)
    assert deaths <= 3 * len(deadly) + 1
    for row in rows:
        if row["series_key"] in deadly:
            ended = (row["status"], row["reason"], row["stage"], row["attempts"])
            assert ended == ("failed", "quarantined", "detect", 3)
            assert row["message"] == "the worker died 3 times in the stage detect"
        else:
            assert row["status"] == "ok" and row.get("stage") is None
    left = attempts.in_flight()
    assert set(left) == set(deadly)
    attempts.forget(deadly)
    assert attempts.in_flight() == {}


@pytest.mark.parametrize("deadly", ["a", "b"])
def test_what_shares_a_worker_with_the_deadly_is_spared(attempts: Attempts, deadly: str) -> None:
    """Real processes that die: each death takes the work of all threads with it."""
    worker = Path(__file__).with_name("worker_of_threads.py")
    command = [sys.executable, str(worker), attempts.uri, "abc,def,ghi", deadly]
    deaths = 0
    while True:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if ended.returncode == 0:
            break
        assert ended.returncode == 9 and deaths < 6, ended.stderr
        deaths += 1
    assert deaths == 3
    rows = {key: rest for key, *rest in map(str.split, ended.stdout.splitlines())}
    assert rows.pop(deadly) == ["failed", "quarantined"]
    assert len(rows) == 8 and set(map(tuple, rows.values())) == {("ok", "None")}


def test_a_series_that_is_survived_at_last_tells_its_attempts(attempts: Attempts) -> None:
    guard = Guard(attempts, "load", 3)
    deaths = iter([True, True, False])

    def work(row: Row) -> Row:
        if next(deaths):
            raise _Died
        return row

    for _ in range(2):
        with pytest.raises(_Died):
            guard.one(_row("a"), work)
    first = guard.one(_row("a"), work)
    assert (first["status"], first["attempts"]) == ("ok", 3)
    assert attempts.in_flight() == {}
    again = guard.one(first, lambda row: row)
    assert again["attempts"] == 3, "a later stage counts on"


def test_the_stage_of_an_end_is_told(attempts: Attempts) -> None:
    def reject(row: Row) -> Row:
        return row | {"status": "rejected", "reason": "slice_gap"}

    guard = Guard(attempts, "load", 3)
    assert guard.one(_row("a"), reject)["stage"] == "load"
    prepared = _row("a") | {"timings": {"load": 1.0, "prepare": 0.1}}
    assert guard.one(prepared, reject)["stage"] == "prepare"
    listed = guard.one(_row("a", "rejected"), lambda row: row)
    assert listed["stage"] == "index"
    later = Guard(attempts, "describe", 3)
    assert later.batch([listed], lambda rows: rows)[0]["stage"] == "index"
    assert attempts.in_flight() == {}, "what is not worked on is not begun"


def test_an_attempt_cut_off_while_it_was_written_counts(attempts: Attempts, tmp_path: Path) -> None:
    (tmp_path / "attempts" / "a.load").write_bytes(b"")
    assert attempts.begun("load", ["a", "b"]) == {"a": 1, "b": 0}


def test_what_ended_in_order_is_forgiven_but_not_the_deadly(attempts: Attempts) -> None:
    attempts.begin("load", {"a": 1})
    attempts.begin("detect", {"b": 2})
    attempts.forgive()
    assert attempts.in_flight() == {"b": ["detect"]}


def test_attempts_on_s3_are_those_of_the_disk(s3_endpoint: str) -> None:
    storage = StorageConfig(s3_endpoint=s3_endpoint)
    filesystem_for("s3://attempts", storage)[0].mkdir("attempts")
    attempts = Attempts("s3://attempts/out", storage)
    attempts.make_folder()
    assert attempts.in_flight() == {} and attempts.begun("load", ["a"]) == {"a": 0}
    rows, _ = _until_done(Guard(attempts, "load", 2), "abc", "b", together=True)
    assert [row["reason"] for row in rows] == [None, "quarantined", None]
    assert attempts.in_flight() == {"b": ["load"]}
    assert attempts.begun("load", ["a", "b"]) == {"a": 0, "b": 2}
    attempts.survived("load", ["a"])  # not there: no fault
    attempts.forget(["b"])
    assert attempts.in_flight() == {}
