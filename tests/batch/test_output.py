from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.archive.storage import StorageConfig
from raypipe.batch.output import Output, count_rows, open_output
from raypipe.errors import Status


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Two result files and their checkpoints: b and d have failed."""
    rows = {
        "one": [("a", "ok"), ("b", "failed")],
        "two": [("c", "rejected")],
        "three": [("d", "failed")],
    }
    for folder in ("results", "checkpoint"):
        (tmp_path / folder).mkdir()
        for name, pairs in rows.items():
            keys, statuses = zip(*pairs, strict=True)
            table = pa.table({"series_key": list(keys), "status": list(statuses)})
            columns = ["series_key"] if folder == "checkpoint" else ["series_key", "status"]
            pq.write_table(table.select(columns), tmp_path / folder / f"{name}.parquet")
    return open_output(str(tmp_path), StorageConfig())


def _keys(output: Output, folder: str) -> list[str]:
    table = pq.read_table(f"{output.path}/{folder}")
    return sorted(table["series_key"].to_pylist())


def test_count_rows_reads_each_file_once(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[str, dict[str, int]] = {}
    assert count_rows(output, known) == {"ok": 1, "failed": 2, "rejected": 1}
    monkeypatch.setattr(pq, "read_table", lambda *a, **k: pytest.fail("read again"))
    assert count_rows(output, known) == {"ok": 1, "failed": 2, "rejected": 1}


def test_take_back_removes_rows_and_their_checkpoints(output: Output) -> None:
    assert output.take_back(Status.FAILED) == 2
    assert _keys(output, "results") == ["a", "c"]
    assert _keys(output, "checkpoint") == ["a", "c"]
    assert output.read_text("retry.json") is None
    assert output.take_back(Status.FAILED) == 0


def test_a_stop_while_taking_back_is_made_good(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_rows = Output._drop_rows
    calls = []

    def stop_at_third(self: Output, folder: str, file: str, keys: pa.Array) -> None:
        calls.append(file)
        if len(calls) == 3:
            raise KeyboardInterrupt
        drop_rows(self, folder, file, keys)

    with monkeypatch.context() as patch:
        patch.setattr(Output, "_drop_rows", stop_at_third)
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
    assert count_rows(output, {}) == {"ok": 1, "failed": 2, "rejected": 1}
    assert sorted(row["series_key"] for row in output.iterate_rows()) == ["a", "b", "c", "d"]
    assert output.take_back(Status.FAILED) == 2
