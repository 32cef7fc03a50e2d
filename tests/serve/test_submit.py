"""Zips are looked at before they are opened; a refusal names what to change."""

import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from raypipe.serve.config import ServeConfig
from raypipe.serve.problems import Problem
from raypipe.serve.submit import _check_archives

CONFIG = ServeConfig.model_validate({"limits": {"max_members": 50}})


def _zip(file: Path, members: int) -> Path:
    with zipfile.ZipFile(file, "w") as packed:
        for number in range(members):
            packed.writestr(f"{number:06}", b"")
    return file


def test_a_zip_within_the_limits_is_taken(tmp_path: Path) -> None:
    _check_archives([_zip(tmp_path / "a.zip", 50), tmp_path / "not-there"], CONFIG)


def test_the_limit_of_the_service_is_named(tmp_path: Path) -> None:
    with pytest.raises(Problem, match=r"limits\.max_members"):
        _check_archives([_zip(tmp_path / "a.zip", 51)], CONFIG)


@pytest.mark.parametrize("wide", [False, True], ids=["zip", "zip64"])
def test_a_long_directory_is_refused_before_its_entries_are_made(
    tmp_path: Path, wide: bool
) -> None:
    """It says that it has one entry; zipfile goes by its size."""
    info = zipfile.ZipInfo("x")
    info.CRC = info.compress_size = info.file_size = 0
    entry = info.FileHeader()
    central = b"PK\1\2" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"x"
    directory = central * 40_000
    size, at = len(directory), len(entry)
    end = b""
    if wide:
        end += b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, size, at)
        end += b"PK\6\7" + struct.pack("<IQI", 0, at + size, 1)
        size = at = 0xFFFFFFFF
    end += b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, size, at, 0)
    file = tmp_path / "many.zip"
    file.write_bytes(entry + directory + end)
    tracemalloc.start()
    with pytest.raises(Problem, match=r"limits\.max_members 50"):
        _check_archives([file], CONFIG)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    with zipfile.ZipFile(file) as opened:
        assert len(opened.infolist()) == 40_000, "the file is one that zipfile takes"
