"""Archives that were made to break a reader: each file ends in a row, and a limit names itself."""

import gzip
import io
import os
import socket
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import series_ref
from raypipe.archive.read import ArchiveConfig, decode_series
from raypipe.errors import SeriesError
from tests.archive.ct_files import ct_dataset, tissue, write_ct
from tests.archive.fuzz_run import Guard, peak_memory_mib
from tests.archive.hostile_files import bomb, ct_bytes, endings, load, scan_into, zipped

MAX_PEAK_MIB = 500


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
        header.type, header.size = tarfile.GNUTYPE_LONGNAME, 300 << 20
        with gzip.open(source / "long.tar.gz", "wb", compresslevel=1) as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            for _ in range(300):
                file.write(bytes(1 << 20))
        outcome = guard.run(0, source)
        assert (outcome.result, outcome.bug) == ("archive_member_unreadable", "")
        assert outcome.peak_mib < MAX_PEAK_MIB

    def test_deflated_dicom_is_expanded_no_farther_than_its_header_says(
        self, source: Path, guard: Guard
    ) -> None:
        ds = ct_dataset(tissue(), SOPInstanceUID="1.2.3.4.5")
        ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
        ds.add_new(0x7FE10010, "OB", bytes(300 << 20))  # far more, behind the pixels
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
            for _ in range(300):
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
        (source / "there").symlink_to(source / "back")
        (source / "back").symlink_to(source / "there")
        assert endings(source, tmp_path / "m") == {
            "file": "not_an_image",
            "folder/a.dcm": "ok",
            "folder/secret.txt": "not_an_image",
            "nowhere": "source_missing",
            "there": "source_missing",
            "back": "source_missing",
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
        before = peak_memory_mib()
        summary = build_index(str(source), str(tmp_path / "m"), IndexConfig())
        grown_mib = peak_memory_mib() - before
        sys.stdout.write(f"\n100,000 files: {summary.seconds:.1f} s, {grown_mib:.0f} MiB\n")
        assert summary.series == 100_000 and summary.bytes_read == 0
        assert summary.reason_counts == {"not_an_image": 100_000}
        assert grown_mib < 1024
