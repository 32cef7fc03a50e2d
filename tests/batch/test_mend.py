"""What a kill at a bad moment leaves is mended: no row lost, none twice."""

from pathlib import Path

import pytest

from raypipe.archive.storage import StorageConfig
from raypipe.batch.mend import mend
from raypipe.batch.output import Output
from raypipe.batch.verify import verify
from tests.batch.result_folder import KEYS, result_folder, write_ids, write_rows

FILES = {"x_0": KEYS[:3], "x_1": KEYS[3:]}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return result_folder(tmp_path, FILES)


def _names(output: Output, folder: str) -> list[str]:
    return sorted(p.name for p in (Path(output.path) / folder).glob("*.parquet"))


def _agreed(output: Output, missing: str = "") -> None:
    """Nothing is wrong but that some series are to be done again."""
    audit = verify(output, StorageConfig())
    assert audit.problems.keys() <= {"missing"}
    assert "".join(audit.missing) == missing


def test_a_folder_that_agrees_is_left_alone(output: Output) -> None:
    before = _names(output, "results"), _names(output, "checkpoint")
    assert mend(output) == {}
    assert (_names(output, "results"), _names(output, "checkpoint")) == before


def test_killed_between_the_copy_and_the_removal_of_a_rename(output: Output) -> None:
    write_ids(output, "x_1.pending", KEYS[3:])
    assert mend(output) == {"twins": 1}
    assert _names(output, "checkpoint") == ["x_0.parquet", "x_1.parquet"]
    _agreed(output)


def test_killed_while_a_committed_file_was_written_again(output: Output) -> None:
    write_ids(output, "x_1.pending", KEYS[3:])
    path = Path(output.results) / "x_1-0.parquet"
    path.write_bytes(path.read_bytes()[:50])
    assert mend(output) == {"twins": 1}
    # what is pending Ray Data removes itself, and does it again
    assert _names(output, "checkpoint") == ["x_0.parquet", "x_1.pending.parquet"]


def test_rows_that_went_are_done_again(output: Output) -> None:
    (Path(output.results) / "x_0-0.parquet").unlink()
    assert mend(output) == {"committed series without a row": 3}
    _agreed(output, "abc")


def test_a_damaged_file_is_done_again(output: Output) -> None:
    path = Path(output.results) / "x_0-0.parquet"
    path.write_bytes(path.read_bytes()[:50])
    assert mend(output) == {"damaged files": 1, "committed series without a row": 3}
    _agreed(output, "abc")


def test_rows_that_nothing_committed_go(output: Output) -> None:
    (Path(output.checkpoint) / "x_0.parquet").unlink()
    assert mend(output) == {"rows that were not committed or twice there": 3}
    _agreed(output, "abc")


def test_one_of_two_rows_stays(output: Output) -> None:
    write_rows(output, "x_2", "cz")
    write_ids(output, "x_2", "cz")
    assert mend(output) == {"rows that were not committed or twice there": 1}
    audit = verify(output, StorageConfig())
    assert audit.double == () and audit.orphan == ("z",)


def test_pending_files_are_left_to_ray(output: Output) -> None:
    write_ids(output, "y_0.pending", "q")
    write_rows(output, "y_0", "q")
    assert mend(output) == {}
    assert "y_0-0.parquet" in _names(output, "results")


def test_doing_it_twice_changes_nothing(output: Output) -> None:
    write_rows(output, "x_2", "ab")
    (Path(output.results) / "x_1-0.parquet").unlink()
    assert mend(output)
    assert mend(output) == {}
    _agreed(output, "defgh")
