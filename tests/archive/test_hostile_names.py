"""Names in any encoding, files that change under the reader, files that may not be read."""

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import series_ref
from raypipe.archive.read import ArchiveConfig, decode_series
from raypipe.archive.storage import StorageConfig
from raypipe.errors import ConfigError, Reason, SeriesError
from tests.archive.ct_files import ct_dataset, tissue, write_ct
from tests.archive.hostile_files import ct_bytes, endings, load, scan_into, zipped


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [
            "Müller.dcm".encode("latin-1"),
            "山田.dcm".encode("shift-jis"),
            "🫁.dcm".encode(),
            b"new\nline.dcm",
            b"x" * 251 + b".dcm",
            b" .dcm",
            b"bytes:%41.dcm",
        ],
        ids=["latin1", "shiftjis", "emoji", "newline", "long", "blank", "like ours"],
    )
    def test_on_disk(self, source: Path, tmp_path: Path, name: bytes) -> None:
        (source / os.fsdecode(name)).write_bytes(ct_bytes())
        (row,), _ = scan_into(source, tmp_path / "m")
        assert load(row) == "ok"
        again = build_index(str(source), str(tmp_path / "m"), IndexConfig())
        assert (again.files_read, again.series_changed) == (0, 0)

    def test_in_zip_and_tar(self, source: Path, tmp_path: Path) -> None:
        names = ["山田.dcm", "Müller.dcm", "🫁.dcm"]
        with tarfile.open(source / "a.tar", "w", encoding="latin-1", errors="replace") as tar:
            for i, name in enumerate(names[1:]):
                content = ct_bytes(SeriesInstanceUID=f"1.2.{i}")
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        raw = zipped({"XXXXX.dcm": ct_bytes(SeriesInstanceUID="1.3")})
        shift_jis = names[0].encode("shift-jis")  # eight bytes, as Windows in Japan writes them
        placeholder = b"X" * (len(shift_jis) - 4) + b".dcm"
        raw = zipped({placeholder.decode(): ct_bytes(SeriesInstanceUID="1.3")})
        (source / "b.zip").write_bytes(raw.replace(placeholder, shift_jis))
        assert sorted(endings(source, tmp_path / "m").values()) == ["ok"] * 3

    def test_a_folder_that_ends_with_the_mark_of_members(
        self, source: Path, tmp_path: Path
    ) -> None:
        write_ct(source / "wow!" / "a.dcm", tissue())
        write_ct(source / "plain" / "a.dcm", tissue(), SeriesInstanceUID="1.9")
        rows, _ = scan_into(source, tmp_path / "m")
        assert sorted(load(row) for row in rows) == ["ok", "source_unreadable"]
        assert any("rename it" in (row["message"] or "") for row in rows)
        with pytest.raises(ConfigError, match="rename a folder"):
            build_index(str(source / "wow!"), str(tmp_path / "n"), IndexConfig())

    def test_a_name_written_twice_makes_two_rows(self, source: Path, tmp_path: Path) -> None:
        with (
            pytest.warns(UserWarning, match="Duplicate name"),
            zipfile.ZipFile(source / "a.zip", "w") as archive,
        ):
            archive.writestr("a.dcm", "the first one is not read")
            archive.writestr("a.dcm", ct_bytes())
        with tarfile.open(source / "b.tar", "w") as tar:
            for content in (ct_bytes(SeriesInstanceUID="1.9"), b"the second one is not read"):
                info = tarfile.TarInfo("a.dcm")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        rows, _ = scan_into(source, tmp_path / "m")
        reasons = sorted(load(row) for row in rows)
        assert reasons == ["archive_member_unreadable"] * 2 + ["ok"] * 2


class TestChanges:
    """Between index and load."""

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            (lambda file: file.unlink(), Reason.SOURCE_MISSING),
            (lambda file: file.write_bytes(b""), Reason.SOURCE_CHANGED),
            (lambda file: os.truncate(file, 900), Reason.SOURCE_CHANGED),
            (lambda file: file.write_bytes(file.read_bytes() + b"\0\0"), Reason.SOURCE_CHANGED),
            (
                lambda file: file.write_bytes(ct_bytes(SOPInstanceUID="1.2.3.9")),
                Reason.SOURCE_CHANGED,
            ),
            (lambda file: (file.unlink(), file.mkdir()), Reason.SOURCE_UNREADABLE),
        ],
        ids=["removed", "emptied", "cut off", "grown", "another instance", "a folder now"],
    )
    def test_a_dicom_file(
        self, source: Path, tmp_path: Path, change: Callable[[Path], Any], reason: Reason
    ) -> None:
        (source / "a.dcm").write_bytes(ct_bytes(SOPInstanceUID="1.2.3.4"))
        (row,), _ = scan_into(source, tmp_path / "m")
        change(source / "a.dcm")
        with pytest.raises(SeriesError) as caught:
            decode_series(series_ref(row), ArchiveConfig())
        assert caught.value.reason is reason
        assert caught.value.status.value == "failed", "index again, and it may be read"

    def test_an_archive_file(self, source: Path, tmp_path: Path) -> None:
        (source / "a.zip").write_bytes(zipped({"a.dcm": ct_bytes()}))
        (row,), _ = scan_into(source, tmp_path / "m")
        for members, reason in (
            ({"b.dcm": ct_bytes()}, "source_missing"),
            ({"a.dcm": b"another"}, "source_changed"),
        ):
            (source / "a.zip").write_bytes(zipped(members))
            assert load(row) == reason
        (source / "a.zip").write_bytes(b"no zip any more")
        assert load(row) == "archive_member_unreadable"

    def test_during_the_scan_itself(self, source: Path, tmp_path: Path) -> None:
        from pydantic import SecretStr

        from raypipe.archive.scan import scan
        from raypipe.archive.storage import list_objects

        for name in ("a.dcm", "b.dcm"):
            (source / name).write_bytes(ct_bytes())
        listed = list_objects(str(source), StorageConfig())
        (source / "a.dcm").unlink()
        (source / "b.dcm").write_bytes(ct_bytes()[:300])
        scanned = list(scan(listed, StorageConfig(), SecretStr("")))
        assert [s.lasting for s in scanned] == [False, True]
        assert "source_missing" in scanned[0].records[0].header
        assert "reason" in scanned[1].records[0].header


def test_what_may_not_be_read_fails_and_is_tried_again() -> None:
    """As a user who may not: where the tests run as root, another one."""
    code = (
        "import os, sys; from raypipe.archive.index import IndexConfig, build_index;"
        "build_index(sys.argv[1], sys.argv[2] + '0', IndexConfig());"  # imports all that it needs
        "os.geteuid() or (os.setgid(65534), os.setuid(65534));"
        "s = build_index(sys.argv[1], sys.argv[2], IndexConfig());"
        "print(s.reason_counts, s.files_read)"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_ct(folder / "in" / "file.dcm", tissue())
        write_ct(folder / "in" / "folder" / "a.dcm", tissue())
        (folder / "out").mkdir()
        for path, mode in (("", 0o755), ("out", 0o777), ("in/file.dcm", 0), ("in/folder", 0)):
            (folder / path).chmod(mode)
        command = [sys.executable, "-c", code, str(folder / "in"), str(folder / "out" / "m")]
        for _ in range(2):
            printed = subprocess.run(command, capture_output=True, text=True, check=False)
            assert printed.stdout.strip() == "{'source_unreadable': 2} 2", printed.stderr
        (folder / "in" / "folder").chmod(0o755)


def test_a_dicomdir_is_counted_and_makes_no_row(source: Path, tmp_path: Path) -> None:
    from pydicom.fileset import FileSet

    filed = FileSet()
    ds = ct_dataset(tissue(), StudyDate="20000101", StudyTime="120000", StudyID="1")
    ds.AccessionNumber, ds.SeriesNumber, ds.InstanceNumber = "", 1, 1
    ds["PixelData"].VR = "OW"
    filed.add(ds)
    filed.write(source)
    rows, summary = scan_into(source, tmp_path / "m")
    assert (summary.dicomdir_ignored, len(rows), rows[0]["status"]) == (1, 1, "ok")
