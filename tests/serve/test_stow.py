"""What STOW-RS makes of deflated objects, and how much memory that takes."""

import struct
import tracemalloc
import zlib
from pathlib import Path

import pytest

from raypipe.serve.dicomweb import _part
from raypipe.serve.multipart import Received as Body
from raypipe.sink.dicom_json import CANNOT_UNDERSTAND, Received

MIB = 1 << 20


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    value += bytes(len(value) % 2)
    size = struct.pack("<HI", 0, len(value)) if vr == b"OB" else struct.pack("<H", len(value))
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr + size + value


UIDS = (
    _element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.2")
    + _element(0x00080018, b"UI", b"1.2.3.4")
    + _element(0x0020000D, b"UI", b"1.2.3")
    + _element(0x0020000E, b"UI", b"1.2.3.1")
)
SYNTAX = _element(0x00020010, b"UI", b"1.2.840.10008.1.2.1.99")
NAMED = Received(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3.4",
    study_uid="1.2.3",
    series_uid="1.2.3.1",
)


def _deflated(file: Path, dataset: bytes, meta: bytes = SYNTAX) -> Body:
    packer = zlib.compressobj(9, wbits=-15)
    content = packer.compress(dataset) + packer.flush()
    file.write_bytes(bytes(128) + b"DICM" + meta + content)
    return Body(files=[file])


BOMB = UIDS + _element(0x7FE00010, b"OB", bytes(64 * MIB))


def test_a_deflated_object_is_stored(tmp_path: Path) -> None:
    stored: list[Received] = []
    _part(_deflated(tmp_path / "x", UIDS), "1.2.3", stored, [])
    assert stored == [NAMED]


def test_a_damaged_one_is_none(tmp_path: Path) -> None:
    failed: list[tuple[Received, int]] = []
    body = _deflated(tmp_path / "x", UIDS)
    body.files[0].write_bytes(body.files[0].read_bytes()[:170] + bytes(range(250, 256)))
    _part(body, None, [], failed)
    assert [reason for _, reason in failed] == [CANNOT_UNDERSTAND] and not body.files


@pytest.mark.parametrize(
    ("meta", "understood"),
    [
        (SYNTAX, True),
        (_element(0x00020001, b"OB", bytes(5000)) + SYNTAX, False),
        # a decoy where the syntax is looked for, and an implicit VR
        (_element(0x00020001, b"OB", SYNTAX) + SYNTAX, False),
        (struct.pack("<HHI", 2, 0x10, 22) + b"1.2.840.10008.1.2.1.99", False),
    ],
    ids=["plain", "late", "decoy", "implicit"],
)
def test_it_is_expanded_no_further_than_a_header(
    tmp_path: Path, meta: bytes, understood: bool
) -> None:
    body = _deflated(tmp_path / "x", BOMB, meta)
    stored: list[Received] = []
    failed: list[tuple[Received, int]] = []
    tracemalloc.start()
    _part(body, None, stored, failed)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * MIB
    assert stored == ([NAMED] if understood else [])
    assert [reason for _, reason in failed] == ([] if understood else [CANNOT_UNDERSTAND])
