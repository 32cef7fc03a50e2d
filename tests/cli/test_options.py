"""The folder that a command works in."""

import tempfile
from pathlib import Path

import pytest

from raypipe.cli.options import working_folder


def test_a_temporary_folder_goes_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with working_folder(None) as folder:
        (folder / "some").mkdir()
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())


def test_a_temporary_folder_stays_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ValueError, match="log"), working_folder(None) as folder:
        (folder / "log").touch()
        raise ValueError("see the log")
    assert (folder / "log").exists()


def test_a_given_folder_stays(tmp_path: Path) -> None:
    with working_folder(tmp_path) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()
