"""raypipe/archive/members.py: zip and tar files, and what they are not allowed to do."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.members import iterate_members
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.archive.storage import StorageConfig
from raypipe.errors import Reason, SeriesError
from raypipe.phantom import DicomOptions, Phantom, write_dicom
from raypipe.types import SliceStack

Index = Callable[[Path], Any]


def pack(folder: Path, target: Path) -> Path:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, str(file.relative_to(folder)))
        return target
    mode: Any = "w:gz" if target.name.endswith("gz") else "w"
    with tarfile.open(target, mode) as tar:
        for file in files:
            tar.add(file, str(file.relative_to(folder)))
    return target


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.TGZ"])
def test_members_read_like_files(tmp_path: Path, phantom: Phantom, index: Index, name: str) -> None:
    write_dicom(phantom, tmp_path / "plain" / "series", DicomOptions(reverse=True))
    (tmp_path / "in").mkdir()
    pack(tmp_path / "plain", tmp_path / "in" / name)
    (row,) = index(tmp_path / "in")
    assert row["status"] == "ok" and len(row["instances"]) == 12
    assert all("!/series/" in i["uri"] for i in row["instances"])
    stack = read_series(series_ref(row), ArchiveConfig())
    assert isinstance(stack, SliceStack)
    np.testing.assert_array_equal(stack.hu, phantom.volume.hu)


def test_second_run_does_not_open_the_archive_again(tmp_path: Path, phantom: Phantom) -> None:
    write_dicom(phantom, tmp_path / "plain", DicomOptions())
    (tmp_path / "in").mkdir()
    target = pack(tmp_path / "plain", tmp_path / "in" / "a.zip")
    out = str(tmp_path / "m")
    first = build_index(str(tmp_path / "in"), out, IndexConfig())
    again = build_index(str(tmp_path / "in"), out, IndexConfig())
    assert (first.files, again.files) == (12, 12)
    assert (again.files_read, again.series_changed) == (0, 0)
    (tmp_path / "plain" / "IM00001.dcm").unlink()
    pack(tmp_path / "plain", target)
    less = build_index(str(tmp_path / "in"), out, IndexConfig())
    assert (less.files, less.files_vanished, less.series_changed) == (11, 1, 1)
    (row,) = read_manifest(out, StorageConfig()).to_pylist()
    assert len(row["instances"]) == 11


def test_every_member_is_a_row_or_in_one(tmp_path: Path, index: Index) -> None:
    (tmp_path / "in").mkdir()
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("x", "y")
    with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())
        archive.writestr("readme", "hello")
        archive.writestr("empty", "")
    rows = {r["instances"][0]["uri"].split("!/")[1]: r["reason"] for r in index(tmp_path / "in")}
    assert rows == {
        "inner.zip": "archive_member_unreadable",
        "readme": "not_an_image",
        "empty": "not_an_image",
    }


def test_encrypted_and_damaged(tmp_path: Path, index: Index) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("secret", "x" * 100)
    locked = bytearray(plain.getvalue())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        locked[locked.index(signature) + offset] |= 1  # the flag of encryption
    (folder / "locked.zip").write_bytes(bytes(locked))
    (folder / "damaged.zip").write_bytes(plain.getvalue()[:60])
    (folder / "damaged.tar.gz").write_bytes(b"\x1f\x8b" + bytes(100))
    (folder / "hollow.tar").write_bytes(bytes(10240))
    rows = {Path(r["instances"][0]["uri"].split("!/")[0]).name: r for r in index(folder)}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "locked.zip": "archive_member_unreadable",
        "damaged.zip": "archive_member_unreadable",
        "damaged.tar.gz": "archive_member_unreadable",
        "hollow.tar": "not_an_image",
    }


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"max_members": 2}, "max_members"),
        ({"max_expanded_gib": 1e-6}, "max_expanded_gib"),
    ],
)
@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_limits(tmp_path: Path, limits: dict[str, Any], said: str, name: str) -> None:
    for i in range(3):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / str(i)).write_bytes(bytes(1000))
    target = pack(tmp_path / "in", tmp_path / name)
    with pytest.raises(SeriesError, match=said) as caught:
        list(iterate_members(str(target), target.stat().st_size, StorageConfig(**limits)))
    assert caught.value.reason is Reason.ARCHIVE_MEMBER_UNREADABLE


def test_a_bomb_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    target = tmp_path / "bomb.zip"
    with (
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("zeros", "w", force_zip64=True) as member,
    ):
        for _ in range(300):
            member.write(bytes(1 << 20))
    with pytest.raises(SeriesError, match="max_expansion_ratio"):
        next(iterate_members(str(target), target.stat().st_size, StorageConfig()))


def test_a_member_that_went_away(tmp_path: Path, phantom: Phantom, index: Index) -> None:
    for name in ("a.zip", "b.tar"):
        write_dicom(phantom, tmp_path / name / "plain", DicomOptions())
        (tmp_path / name / "in").mkdir()
        target = pack(tmp_path / name / "plain", tmp_path / name / "in" / name)
        out = str(tmp_path / name / "m")
        build_index(str(tmp_path / name / "in"), out, IndexConfig())
        (row,) = read_manifest(out, StorageConfig()).to_pylist()
        (tmp_path / name / "plain" / "IM00005.dcm").unlink()
        pack(tmp_path / name / "plain", target)
        with pytest.raises(SeriesError) as caught:
            read_series(series_ref(row), ArchiveConfig())
        assert caught.value.reason is Reason.SOURCE_MISSING
