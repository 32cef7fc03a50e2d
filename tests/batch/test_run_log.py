import json
from pathlib import Path

import pytest

from raypipe.archive.storage import StorageConfig, filesystem_for
from raypipe.batch import run_log
from raypipe.batch.output import Output, open_output
from raypipe.batch.run_log import RunLog


def _events(output: Output) -> list[tuple[str, str]]:
    text = output.read_text("log.jsonl")
    assert text is not None
    lines = [json.loads(line) for line in text.splitlines()]
    assert all(line["time"].endswith("+00:00") for line in lines)
    return [(line["run"], line["event"]) for line in lines]


def _two_runs(output: Output) -> None:
    heard: list[str] = []
    first = RunLog(output, "1", heard.append)
    first.event("run_started", total=3)
    first.event("run_ended", state="finished")
    first.close()
    assert [json.loads(line)["event"] for line in heard] == ["run_started", "run_ended"]
    second = RunLog(output, "2")
    second.event("run_started", total=3)
    second.close()
    assert _events(output) == [("1", "run_started"), ("1", "run_ended"), ("2", "run_started")]


def test_on_disk_every_event_is_there_at_once(tmp_path: Path) -> None:
    output = open_output(str(tmp_path / "out"), StorageConfig())
    RunLog(output, "0").event("begun")
    assert _events(output) == [("0", "begun")]
    (tmp_path / "out" / "log.jsonl").unlink()
    _two_runs(output)


def test_on_s3_the_log_is_written_now_and_then(
    s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = StorageConfig(s3_endpoint=s3_endpoint)
    filesystem_for("s3://logs", storage)[0].mkdir("logs")
    _two_runs(open_output("s3://logs/out", storage))
    output = open_output("s3://logs/other", storage)
    log = RunLog(output, "1")
    log.event("first")
    assert output.read_text("log.jsonl") is None
    monkeypatch.setattr(run_log, "FLUSH_S", 0.0)
    log.event("second")
    assert _events(output) == [("1", "first"), ("1", "second")]
