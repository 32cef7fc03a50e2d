from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raypipe.archive.storage import StorageConfig
from raypipe.batch.committed import Committed
from raypipe.batch.output import Output, as_arrow, open_output
from raypipe.errors import Status


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Two result files and their checkpoints: b and d have failed."""
    rows = {
        "one": [("a", "ok", None), ("b", "failed", "engine_failed")],
        "two": [("c", "rejected", "not_ct")],
        "three": [("d", "failed", "source_missing")],
    }
    for folder in ("results", "checkpoint"):
        (tmp_path / folder).mkdir()
        for name, values in rows.items():
            columns = ["series_key", "status", "reason"]
            table = pa.table(dict(zip(columns, map(list, zip(*values, strict=True)), strict=True)))
            columns = columns[:1] if folder == "checkpoint" else columns
            pq.write_table(table.select(columns), tmp_path / folder / f"{name}.parquet")
    return open_output(str(tmp_path), StorageConfig())


def test_the_first_result_may_come_while_the_folder_is_looked_for() -> None:
    class Filling(MemoryFileSystem):  # type: ignore[misc]
        def isdir(self, path: str) -> bool:
            there = bool(super().isdir(path))
            self.pipe_file("/filling/results/one.parquet", b"")
            return there

    output = Output(as_arrow(Filling()), "/filling", "memory://filling")
    assert output.result_files() == ["/filling/results/one.parquet"]


def _keys(output: Output, folder: str) -> list[str]:
    table = pq.read_table(f"{output.path}/{folder}")
    return sorted(table["series_key"].to_pylist())


def test_committed_rows_are_counted_and_each_file_is_read_once(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = Committed(output, set("abcd"))
    assert [row["series_key"] for row in committed.poll()] == ["a", "b", "d", "c"]
    assert committed.statuses == {"ok": 1, "failed": 2, "rejected": 1}
    assert committed.failures == {"engine_failed": 1, "source_missing": 1}
    assert committed.reasons == {"engine_failed": 1, "source_missing": 1, "not_ct": 1}
    monkeypatch.setattr(Output, "read_rows", lambda *a, **k: pytest.fail("read again"))
    assert committed.poll() == []
    assert committed.done == 4
    (Path(output.results) / "two.parquet").unlink()
    assert committed.poll() == []
    assert (committed.done, committed.statuses) == (3, {"ok": 1, "failed": 2})


def test_take_back_removes_rows_and_their_checkpoints(output: Output) -> None:
    assert output.take_back(Status.FAILED) == ["b", "d"]
    assert _keys(output, "results") == ["a", "c"]
    assert _keys(output, "checkpoint") == ["a", "c"]
    assert output.read_text("retry.json") is None
    assert output.take_back(Status.FAILED) == []


def test_take_back_of_one_reason_leaves_the_others(output: Output) -> None:
    assert output.take_back(Status.FAILED, ["source_missing"]) == ["d"]
    assert _keys(output, "results") == _keys(output, "checkpoint") == ["a", "b", "c"]


def test_a_stop_while_taking_back_is_made_good(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_rows = Output.drop_rows
    calls = []

    def stop_at_third(self: Output, file: str, keys: Sequence[str]) -> None:
        calls.append(file)
        if len(calls) == 3:
            raise KeyboardInterrupt
        drop_rows(self, file, keys)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "drop_rows", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            output.take_back(Status.FAILED)
    assert _keys(output, "results") != _keys(output, "checkpoint")
    output.finish_taking_back()
    assert _keys(output, "results") == _keys(output, "checkpoint") == ["a", "c"]


def test_a_file_appears_whole_or_not_at_all(output: Output) -> None:
    output.write_text("run.json", "old")
    with pytest.raises(RuntimeError), output._replacing("run.json") as stream:
        stream.write(b"ne")
        raise RuntimeError
    assert output.read_text("run.json") == "old"
    assert not list(Path(output.path).glob("*.part"))


def test_a_file_that_is_not_whole_holds_nothing_yet(output: Output) -> None:
    """Ray Data writes result files in place: a kill leaves half of one behind."""
    whole = Path(output.path) / "results" / "one.parquet"
    (whole.parent / "cut.parquet").write_bytes(whole.read_bytes()[:40])
    committed = Committed(output, set("abcd"))
    committed.poll()
    assert committed.statuses == {"ok": 1, "failed": 2, "rejected": 1}
    assert sorted(row["series_key"] for row in output.iterate_rows()) == ["a", "b", "c", "d"]
    assert output.take_back(Status.FAILED) == ["b", "d"]
