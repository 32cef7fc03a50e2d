"""What one object of an archive is, told by its first bytes.

In: an object, or an open file over a member. Out: a Header: kind, the facts that grouping needs,
or the reason why the object is nothing that raypipe reads.
Does not know: other objects, pixels.

A Header holds hashes in place of study and series UIDs and no patient data; it is what the index
remembers of a file.
"""

import json
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

from pydantic import SecretStr

from raypipe.errors import Reason, SeriesError

FIRST_BYTES = 16 << 10
LONGEST_HEADER = 256 << 20
"""Bytes that one header may make fetch: multi-frame headers are long, damaged lengths longer."""
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_NIFTI_MAGIC = {348: (b"n+1\0", 344), 540: (b"n+2\0", 4)}


@dataclass(frozen=True, kw_only=True)
class Header:
    """The facts of one object. Everything but `kind` is empty where it does not apply.

    Texts of the header stand in it as keyed hashes, or not at all.

    Args:
        kind: "dicom", "nifti", "image", "other" (nothing known) or "dicomdir".
        reason: a slug of Reason where the object cannot be worked on by itself.
        message: why, without patient data.
        alone: the fault is this file's own, so that it is never grouped with others.
        study: keyed hash of StudyInstanceUID.
        series: keyed hash of SeriesInstanceUID, "" where there is none.
        frame_of_reference: keyed hash of FrameOfReferenceUID.
        concatenation: keyed hash of ConcatenationUID (parts of one multi-frame object).
        instance_uid: SOPInstanceUID.
        transfer_syntax: UID of the transfer syntax; file format for NIfTI and pictures.
        shape_zyx: frames, rows, columns; of a NIfTI file or a picture its own.
        spacing_zyx_mm: of a NIfTI file; of DICOM the first number is None.
        position_lps_mm: of the first frame.
        direction: six cosines, rows then columns, of the first frame.
        frames_ascend: whether a multi-frame object is one stack along its normal.
        discriminators: facts that may tell volumes under one UID apart, most telling first.
        instance_number: order of acquisition.
    """

    kind: str
    reason: str = ""
    message: str = ""
    alone: bool = False
    study: str = ""
    series: str = ""
    frame_of_reference: str = ""
    concatenation: str = ""
    instance_uid: str = ""
    modality: str = ""
    manufacturer: str = ""
    transfer_syntax: str = ""
    shape_zyx: tuple[int, int, int] | None = None
    spacing_zyx_mm: tuple[float | None, float, float] | None = None
    position_lps_mm: tuple[float, float, float] | None = None
    direction: tuple[float, float, float, float, float, float] | None = None
    thickness_mm: float | None = None
    kernel: str = ""
    kvp: float | None = None
    contrast: bool | None = None
    body_part: str | None = None
    discriminators: tuple[str, ...] = ()
    instance_number: int = 0

    def to_json(self) -> str:
        """Compact text; facts at their default are left out."""
        facts = {f.name: getattr(self, f.name) for f in fields(self)}
        changed = {f.name: facts[f.name] for f in fields(self) if facts[f.name] != f.default}
        return json.dumps(changed, separators=(",", ":"))


_TUPLES = ("shape_zyx", "spacing_zyx_mm", "position_lps_mm", "direction", "discriminators")
_NAMES = frozenset(f.name for f in fields(Header))


def header_from_json(text: str) -> Header:
    """The Header that `to_json` wrote."""
    facts: dict[str, Any] = json.loads(text)
    for name in _TUPLES:
        if name in facts:
            facts[name] = tuple(facts[name])
    assert facts.keys() <= _NAMES, "the state of another version; its version number differs"
    return Header(**facts)


def other(reason: Reason, message: str, **facts: Any) -> Header:
    """A Header of an object that stands alone with a fault."""
    return Header(kind="other", reason=reason.value, message=message, alone=True, **facts)


class HeadFile:
    """A file over ranges that are fetched when they are read, small at first, then growing.

    Args:
        fetch: gives the bytes [start, end); shorter at the end of the object.
        size: size of the object.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size = fetch, size
        self._start, self._chunk = 0, b""
        self._next = FIRST_BYTES
        self._at = 0
        self.fetched = 0

    def read(self, n: int = -1) -> bytes:
        """At most n bytes from here, all that is left if negative."""
        end = self._size if n < 0 else min(self._size, self._at + n)
        if self._at >= end:
            return b""
        if end - self._at > LONGEST_HEADER or self.fetched > LONGEST_HEADER:
            raise SeriesError(Reason.HEADER_UNREADABLE, f"longer than {LONGEST_HEADER} bytes")
        if not (self._start <= self._at and end <= self._start + len(self._chunk)):
            self._grow(end)
        content = self._chunk[self._at - self._start : end - self._start]
        self._at += len(content)
        return content

    def _grow(self, end: int) -> None:
        reach = self._start + len(self._chunk)
        if self._start <= self._at <= reach:
            stop = min(self._size, max(end, reach + self._next))
            more = self._fetch(reach, stop)
            self._chunk += more
        else:  # a long jump: what lies between is not read
            self._start = self._at
            stop = min(self._size, max(end, self._at + self._next))
            more = self._chunk = self._fetch(self._start, stop)
        self.fetched += len(more)
        self._next = min(self._next * 4, 4 << 20)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move; nothing is fetched."""
        self._at = max(0, (0, self._at, self._size)[whence] + offset)
        return self._at

    def tell(self) -> int:
        """The present position."""
        return self._at

    def close(self) -> None:
        """Nothing to close."""


def read_header(file: HeadFile, size: int, key: SecretStr) -> Header:
    """Classify an object by its content.

    Args:
        file: the object, at its beginning.
        size: its size in bytes.
        key: the archive's key for hashes.

    Raises:
        SeriesError: reading the object failed; what it holds never raises.
    """
    if not size:
        return other(Reason.NOT_AN_IMAGE, "the file is empty")
    first = file.read(min(FIRST_BYTES, size))
    file.seek(0)
    if first[128:132] == b"DICM" or _may_be_bare_dicom(first):
        from raypipe.archive.dicom_header import read_dicom_header

        return read_dicom_header(file, size, key)
    if first.startswith(_PNG) or first.startswith(_JPEG):
        from raypipe.archive.images import image_header

        return image_header(file)
    if first.startswith(b"\x1f\x8b"):
        try:
            inside = zlib.decompressobj(wbits=31).decompress(first, 1024)
        except zlib.error:
            return other(Reason.NOT_AN_IMAGE, "damaged gzip data")
        return _nifti(inside, compressed=True) or other(
            Reason.NOT_AN_IMAGE, "gzip data that is not NIfTI"
        )
    return _nifti(first, compressed=False) or other(Reason.NOT_AN_IMAGE, _name_format(first))


def _may_be_bare_dicom(first: bytes) -> bool:
    """Whether bytes without a preamble begin like a DICOM dataset or its meta group."""
    if len(first) < 16:
        return False
    little: tuple[int, int] = struct.unpack("<HH", first[:4])
    big: tuple[int, int] = struct.unpack(">HH", first[:4])
    if first[4:6].isalpha() and first[4:6].isupper():
        return (little[0] in (2, 8) and little[1] < 0x2000) or (big[0] == 8 and big[1] < 0x2000)
    length = int.from_bytes(first[4:8], "little")
    return little[0] in (2, 8) and little[1] < 0x2000 and length < 1024


def _nifti(first: bytes, *, compressed: bool) -> Header | None:
    if len(first) < 348:
        return None
    for order in "<>":
        size = struct.unpack(f"{order}i", first[:4])[0]
        magic, offset = _NIFTI_MAGIC.get(size, (b"", 0))
        if magic and first[offset : offset + 4] == magic:
            from raypipe.archive.nifti import nifti_header

            return nifti_header(first, order, size, compressed=compressed)
        if size == 348 and first[344:348] == b"ni1\0":
            return other(Reason.NOT_AN_IMAGE, "NIfTI header without its pixels (a .hdr/.img pair)")
    return None


_FORMATS = (
    (b"%PDF", "PDF"),
    (b"PK\x03\x04", "zip data under another name"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"\x89HDF", "HDF5"),
    (b"NRRD", "NRRD"),
    (b"{", "text (JSON)"),
    (b"<", "text (XML or HTML)"),
)


def _name_format(first: bytes) -> str:
    for magic, name in _FORMATS:
        if first.startswith(magic):
            return name
    sample = first[:512]
    printable = sum(b in b"\t\r\n" or 32 <= b < 127 or b >= 128 for b in sample)
    return "text" if printable == len(sample) else "nothing that is known"


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Silence pydicom's warnings and log: they name values of the header, maybe a patient's.

    For the outermost call of one thread: both are shared by all threads.
    """
    logger = logging.getLogger("pydicom")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pydicom\b")
        logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            logger.setLevel(level)
