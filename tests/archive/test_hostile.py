"""Archives that were made to break a reader: each file ends in a row, and a limit names itself."""

import gzip
import io
import os
import resource
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from raypipe.archive.index import IndexConfig, IndexSummary, build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig, decode_series
from raypipe.archive.storage import StorageConfig
from raypipe.errors import ConfigError, Reason, SeriesError
from tests.archive.ct_files import ct_dataset, tissue, write_ct
from tests.archive.fuzz_run import Guard

Rows = list[dict[str, Any]]
MAX_PEAK_MIB = 500


def ct_bytes(z_mm: float = 0.0, **elements: Any) -> bytes:
    ds = ct_dataset(tissue(), z_mm, **elements)
    ds["PixelData"].VR = "OW"
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def scan_into(source: Path, out: Path, **storage: Any) -> tuple[Rows, IndexSummary]:
    config = StorageConfig(**storage)
    summary = build_index(str(source), str(out), IndexConfig(), storage=config)
    return read_manifest(str(out), config).to_pylist(), summary


def load(row: dict[str, Any], **config: Any) -> str:
    """How a row ends when it is loaded."""
    if row["status"] != "ok":
        return str(row["reason"])
    try:
        decode_series(series_ref(row), ArchiveConfig(**config))
    except SeriesError as error:
        return error.reason.value
    return "ok"


def endings(source: Path, out: Path) -> dict[str, str]:
    """Name of every file or member -> how it ended; nothing is named twice."""
    found: dict[str, str] = {}
    for row in scan_into(source, out)[0]:
        for instance in row["instances"] + row["repeated"]:
            name = instance["uri"].removeprefix(f"{source}/")
            assert name not in found, f"{name} is in two rows"
            found[name] = load(row)
    return found


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """A process that works on a folder under a limit of memory."""
    folder = tmp_path_factory.mktemp("guard")
    guard = Guard(folder, folder / "work")
    yield guard
    guard.stop()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def bomb(mib: int, name: str = "zeros", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open(name, "w") as member:
        for _ in range(mib):
            member.write(bytes(1 << 20))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


class TestBombs:
    def test_zip_in_zip_in_zip_is_never_opened(self, source: Path, tmp_path: Path) -> None:
        inner = bomb(64)
        for level in ("a.zip", "b.zip", "c.zip"):
            inner = zipped({level: inner, f"{level}.dcm": ct_bytes()})
        (source / "nested.zip").write_bytes(inner)
        assert endings(source, tmp_path / "m") == {
            "nested.zip!/c.zip": "archive_member_unreadable",
            "nested.zip!/c.zip.dcm": "ok",
        }

    def test_limits_name_themselves_and_what_to_do(self, source: Path, tmp_path: Path) -> None:
        (source / "bomb.zip").write_bytes(bomb(300))
        (row,), _ = scan_into(source, tmp_path / "m")
        assert row["reason"] == "archive_member_unreadable"
        assert "raise archive.storage.max_expansion_ratio, or unpack" in row["message"]

    def test_a_method_that_expands_without_end_is_not_tried(
        self, source: Path, tmp_path: Path
    ) -> None:
        content = bytearray(bomb(4, method=zipfile.ZIP_BZIP2))
        small = struct.pack("<I", 1000)  # the size that its directory tells is a lie
        at = content.rindex(b"PK\x01\x02")
        content[at + 24 : at + 28] = small
        (source / "lie.zip").write_bytes(bytes(content))
        (row,), _ = scan_into(source, tmp_path / "m")
        assert "compression method 12 is not read" in row["message"]

    def test_headers_of_a_tar_are_bounded(self, source: Path, guard: Guard) -> None:
        """A name of hundreds of megabytes, as an attribute that comes before its member."""
        header = tarfile.TarInfo("././@LongLink")
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 500 << 20
        with gzip.open(source / "long.tar.gz", "wb", compresslevel=1) as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(500):
                file.write(bytes(1 << 20))
        outcome = guard.run(0, source)
        assert (outcome.result, outcome.bug) == ("archive_member_unreadable", "")
        assert outcome.peak_mib < MAX_PEAK_MIB

    def test_deflated_dicom_is_expanded_no_farther_than_its_header_says(
        self, source: Path, guard: Guard
    ) -> None:
        ds = ct_dataset(tissue(), SOPInstanceUID="1.2.3.4.5")
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        ds.add_new(0x7FE10010, "OB", bytes(500 << 20))  # far more, behind the pixels
        ds["PixelData"].VR = "OW"
        ds.save_as(source / "bomb.dcm", enforce_file_format=True)
        assert (source / "bomb.dcm").stat().st_size < 2 << 20
        outcome = guard.run(0, source)
        assert (outcome.result, outcome.bug) == ("ok", "")
        assert outcome.peak_mib < MAX_PEAK_MIB

    def test_gzipped_nifti_that_says_it_is_huge(self, source: Path, guard: Guard) -> None:
        header = bytearray(352)
        header[0:4], header[344:348] = struct.pack("<i", 348), b"n+1\0"
        header[40:56] = struct.pack("<8h", 3, 32000, 32000, 32000, 1, 1, 1, 1)
        header[70:74] = struct.pack("<2h", 64, 64)
        header[108:112] = struct.pack("<f", 352)
        with gzip.open(source / "huge.nii.gz", "wb", compresslevel=1) as file:
            file.write(bytes(header))
            for _ in range(500):
                file.write(bytes(1 << 20))
        outcome = guard.run(0, source)
        assert (outcome.result, outcome.bug) == ("too_large", "")
        assert outcome.peak_mib < MAX_PEAK_MIB

    def test_a_codestream_larger_than_its_header_is_not_decoded(
        self, source: Path, tmp_path: Path
    ) -> None:
        ds = ct_dataset(tissue((64, 64)))
        ds["PixelData"].VR = "OW"
        ds.compress("1.2.840.10008.1.2.4.90")
        ds.save_as(source / "a.dcm", enforce_file_format=True)
        content = bytearray((source / "a.dcm").read_bytes())
        at = content.index(b"\xff\x4f\xff\x51")
        content[at + 8 : at + 16] = struct.pack(">2I", 60000, 60000)
        (source / "a.dcm").write_bytes(bytes(content))
        (row,), _ = scan_into(source, tmp_path / "m")
        with pytest.raises(SeriesError, match="the codestream holds 60000 x 60000"):
            decode_series(series_ref(row), ArchiveConfig())


NAMES = ("../../escaped.dcm", "/absolute.dcm", "a/../../b.dcm", "C:\\x.dcm", "x!/y.dcm", "./c.dcm")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_lead_elsewhere_lead_nowhere(source: Path, tmp_path: Path, kind: str) -> None:
    """Members are read by their place in the archive file: their names never meet a disk."""
    contents = {name: ct_bytes(SeriesInstanceUID=f"1.2.{i}") for i, name in enumerate(NAMES)}
    if kind == "zip":
        (source / "a.zip").write_bytes(zipped(contents))
    else:
        with tarfile.open(source / "a.tar", "w") as tar:
            for name, content in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    assert endings(source, tmp_path / "m") == {f"a.{kind}!/{name}": "ok" for name in NAMES}
    assert {f.name for f in tmp_path.iterdir()} == {"in", "m"}


class TestLinks:
    def test_loops_end_and_links_out_make_rows(self, source: Path, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        write_ct(outside / "a.dcm", tissue())
        (outside / "secret.txt").write_text("secret")
        (source / "loop").symlink_to(source)
        (source / "folder").symlink_to(outside)
        (source / "file").symlink_to(outside / "secret.txt")
        (source / "nowhere").symlink_to(tmp_path / "nowhere")
        assert endings(source, tmp_path / "m") == {
            "file": "not_an_image",
            "folder/a.dcm": "ok",
            "folder/secret.txt": "not_an_image",
            "nowhere": "source_missing",
        }

    def test_links_and_devices_inside_a_tar_are_told(self, source: Path, tmp_path: Path) -> None:
        content = ct_bytes()
        with tarfile.open(source / "a.tar", "w") as tar:
            info = tarfile.TarInfo("a.dcm")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            for name, kind in (
                ("soft", tarfile.SYMTYPE),
                ("hard", tarfile.LNKTYPE),
                ("pipe", tarfile.FIFOTYPE),
                ("device", tarfile.CHRTYPE),
            ):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = kind, "/etc/passwd"
                tar.addfile(link)
            tar.addfile(tarfile.TarInfo("folder/"))
        assert endings(source, tmp_path / "m") == {
            "a.tar!/a.dcm": "ok",
            "a.tar!/folder/": "not_an_image",
            **dict.fromkeys(
                (f"a.tar!/{name}" for name in ("soft", "hard", "pipe", "device")),
                "archive_member_unreadable",
            ),
        }

    def test_pipes_sockets_and_devices_are_never_opened(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.mkfifo(source / "pipe")
        monkeypatch.chdir(source)  # the path of a socket is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket")
        names = {"pipe", "socket"}
        if os.geteuid() == 0:
            try:
                os.mknod(source / "zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
                names.add("zero")
            except PermissionError:  # a container may not make devices
                pass
        assert endings(source, tmp_path / "m") == dict.fromkeys(names, "not_an_image")


class TestSizes:
    def test_a_sparse_file_of_4_gib(self, source: Path, tmp_path: Path) -> None:
        with (source / "zeros").open("wb") as file:
            file.truncate(4 << 30)
        with (source / "a.dcm").open("wb") as file:
            file.write(ct_bytes())
            file.truncate((4 << 30) + 1)
        rows, summary = scan_into(source, tmp_path / "m")
        assert summary.bytes_read < 1 << 20
        assert sorted(load(row) for row in rows) == ["not_an_image", "too_large"]

    def test_an_element_as_long_as_a_sparse_file(self, source: Path, guard: Guard) -> None:
        content = bytearray(ct_bytes(ImageComments="x"))
        at = content.index(b"\x18\x00\x50\x00DS")  # SliceThickness, which the index wants
        content[at + 4 : at + 12] = b"UT\0\0" + struct.pack("<I", (2 << 30) - 2)
        with (source / "a.dcm").open("wb") as file:
            file.write(bytes(content))
            file.truncate(4 << 30)
        outcome = guard.run(0, source)
        assert (outcome.result, outcome.bug) == ("header_unreadable", "")
        assert outcome.peak_mib < MAX_PEAK_MIB

    @pytest.mark.slow
    def test_a_hundred_thousand_empty_files(self, source: Path, tmp_path: Path) -> None:
        for i in range(100):
            (source / f"{i:03d}").mkdir()
            for k in range(1000):
                (source / f"{i:03d}" / f"{k:04d}").touch()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        summary = build_index(str(source), str(tmp_path / "m"), IndexConfig())
        grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        sys.stdout.write(f"\n100,000 files: {summary.seconds:.1f} s, {grown_mib:.0f} MiB\n")
        assert summary.series == 100_000 and summary.bytes_read == 0
        assert summary.reason_counts == {"not_an_image": 100_000}
        assert grown_mib < 1024


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
