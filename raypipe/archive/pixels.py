"""Stored pixel values of one DICOM object, whatever its transfer syntax.

In: a parsed header and the bytes of the object. Out: frames of integers as they were stored.
Does not know: Hounsfield units, geometry, other objects.

Native pixels are views on the bytes. Compressed ones go to every decoder there is for their
transfer syntax, in turn, until one succeeds; a crash of a native decoder is not caught here, so
whoever hosts this code must survive it.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from raypipe.archive.codestream import check_codestreams
from raypipe.archive.deflated import HEADER_BYTES, inflated, is_deflated
from raypipe.archive.elements import declared_syntax, found_encoding, parse
from raypipe.archive.trim import trim
from raypipe.errors import Reason, SeriesError

PIXEL_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)
_SHARED_BYTES = 16 << 10
"""Longer headers are those of multi-frame objects, which share them with nobody."""
_LONG_VRS = (b"OB", b"OW", b"UN", b"OF", b"OD")
_PLUGINS = ("pylibjpeg", "gdcm", "pydicom", "pillow")
"""By trust and speed; Pillow last, because it knows 8 bits only.

GDCM is sooner done with a frame of JPEG 2000, but with a thread on every core and half as much
again of their time, which the other loaders need.
"""


@dataclass(frozen=True)
class DicomObject:
    """One parsed object.

    Args:
        header: without pixels. Slices with the same header may share it: nobody changes it.
        own: where the elements lie that are each slice's own; the header, if not apart.
        content: all bytes; the pixels are at [begin, begin + length).
        begin: where the value of PixelData begins.
        length: of the value; all that is left where its length is not defined.
        encapsulated: whether the value is a sequence of fragments.
        syntax: transfer syntax as declared, or as found where none is.
        little_endian: byte order of native pixels.
    """

    header: FileDataset
    own: Dataset
    content: bytes
    begin: int
    length: int
    encapsulated: bool
    syntax: UID
    little_endian: bool

    @property
    def frames(self) -> int:
        """Number of frames."""
        return max(1, int(self.header.get("NumberOfFrames") or 1))

    @property
    def pixel_bytes(self) -> int:
        """Bytes that the frames take up when they are not compressed."""
        rows, columns, allocated = (
            int(self.header.get(k) or 0) for k in ("Rows", "Columns", "BitsAllocated")
        )
        return self.frames * rows * columns * -(-allocated // 8)


def open_object(
    content: bytes, keywords: tuple[str, ...], own: tuple[str, ...], *, max_voxels: int
) -> DicomObject:
    """Parse an object up to its pixels.

    Args:
        content: all bytes.
        keywords: of the elements wanted.
        own: of those wanted beside them that are each slice's own.
        max_voxels: a deflated object is not expanded to more than these.

    Raises:
        SeriesError: HEADER_UNREADABLE, NO_PIXEL_DATA, TRANSFER_SYNTAX_MISMATCH,
            TRANSFER_SYNTAX_UNSUPPORTED or TOO_LARGE.
    """
    if not is_deflated(content):
        return _open_plain(content, keywords, own)
    item = _open_plain(inflated(content, HEADER_BYTES), keywords, own)
    if item.pixel_bytes > 4 * max_voxels:
        raise SeriesError(Reason.TOO_LARGE, f"{item.pixel_bytes} bytes, limit {max_voxels} voxels")
    if item.length < item.pixel_bytes:
        return _open_plain(inflated(content, HEADER_BYTES + item.pixel_bytes), keywords, own)
    return item


def _open_plain(content: bytes, keywords: tuple[str, ...], own: tuple[str, ...]) -> DicomObject:
    try:
        trimmed = trim(content, keywords, own)
        if trimmed is None:
            file = io.BytesIO(content)
            parsed = _parsed(file, (*keywords, *own))
            own_elements: Dataset = parsed.header
            at = file.tell()
        else:
            shared = len(trimmed.header) <= _SHARED_BYTES
            parsed = (_parsed_once if shared else _parsed_bytes)(trimmed.header, keywords)
            own_elements = read_dataset(io.BytesIO(trimmed.own), trimmed.implicit, True)
            at = trimmed.pixels_at
    except Exception as error:  # pydicom raises anything on damaged bytes
        kind = type(error).__name__
        raise SeriesError(Reason.HEADER_UNREADABLE, f"damaged DICOM header ({kind})") from error
    syntax, little = parsed.syntax, parsed.little_endian
    if not syntax.is_transfer_syntax:
        raise SeriesError(Reason.TRANSFER_SYNTAX_UNSUPPORTED, "the transfer syntax is not known")
    begin, length = _pixel_value(content, at, "<" if little else ">")
    encapsulated = length == 0xFFFFFFFF
    if encapsulated != syntax.is_encapsulated:
        stored = "encapsulated" if encapsulated else "native"
        raise SeriesError(
            Reason.TRANSFER_SYNTAX_MISMATCH, f"declared {syntax.name}, but the pixels are {stored}"
        )
    length = len(content) - begin if encapsulated else min(length, len(content) - begin)
    return DicomObject(
        parsed.header, own_elements, content, begin, length, encapsulated, syntax, little
    )


class _Parsed(NamedTuple):
    header: FileDataset
    syntax: UID
    little_endian: bool


def _parsed(file: io.BytesIO, keywords: tuple[str, ...]) -> _Parsed:
    header = parse(file, keywords)
    return _Parsed(header, declared_syntax(header), found_encoding(header)[1])


def _parsed_bytes(header: bytes, keywords: tuple[str, ...]) -> _Parsed:
    return _parsed(io.BytesIO(header), keywords)


_parsed_once = lru_cache(maxsize=8)(_parsed_bytes)
"""Most slices of a series have the same header but for their own elements."""


def _pixel_value(content: bytes, at: int, order: str) -> tuple[int, int]:
    """Where the value of the pixel element at `at` begins, and its stated length."""
    start = content[at : at + 12]
    if len(start) < 8 or struct.unpack(f"{order}HH", start[:4]) != (0x7FE0, 0x0010):
        raise SeriesError(Reason.NO_PIXEL_DATA, "the object has no integer PixelData")
    if start[4:6] in _LONG_VRS and len(start) == 12:
        return at + 12, struct.unpack(f"{order}I", start[8:12])[0]
    return at + 8, struct.unpack(f"{order}I", start[4:8])[0]


def check_length(item: DicomObject) -> None:
    """See that native pixels are all there, before anything is made for them.

    Raises:
        SeriesError: PIXELS_UNREADABLE.
    """
    if not item.encapsulated and item.length < item.pixel_bytes:
        raise SeriesError(
            Reason.PIXELS_UNREADABLE, f"{item.length} bytes, {item.pixel_bytes} needed"
        )


def stored_frames(item: DicomObject) -> Iterator[NDArray[Any]]:
    """Frames (y, x) of stored integers, one after another; bits beyond BitsStored may be dirty.

    Raises:
        SeriesError: UNSUPPORTED_COLOR, PIXELS_UNREADABLE, TRANSFER_SYNTAX_MISMATCH or
            TRANSFER_SYNTAX_UNSUPPORTED.
    """
    header = item.header
    try:
        rows, columns, allocated, signed = (
            int(header[k].value)
            for k in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SeriesError(
            Reason.HEADER_UNREADABLE, "Rows, Columns, BitsAllocated or PixelRepresentation"
        ) from error
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise SeriesError(Reason.UNSUPPORTED_COLOR, "several samples a pixel")
    if allocated not in (8, 16, 32) or rows < 1 or columns < 1:
        raise SeriesError(
            Reason.PIXELS_UNREADABLE, f"BitsAllocated {allocated}, {rows} x {columns}"
        )
    if item.encapsulated:
        yield from _decoded_frames(item, (rows, columns))
        return
    order = "<" if item.little_endian else ">"
    dtype = np.dtype(f"{order}{'i' if signed else 'u'}{allocated // 8}")
    check_length(item)
    count = item.frames * rows * columns
    flat = np.frombuffer(item.content, dtype=dtype, count=count, offset=item.begin)
    yield from flat.reshape(item.frames, rows, columns)


def _decoded_frames(item: DicomObject, shape: tuple[int, int]) -> Iterator[NDArray[Any]]:
    from pydicom.pixels.decoders.base import get_decoder

    try:
        decoder = get_decoder(item.syntax)
    except NotImplementedError as error:
        raise SeriesError(
            Reason.TRANSFER_SYNTAX_UNSUPPORTED, f"no decoder for {item.syntax.name}"
        ) from error
    plugins = [p for p in _PLUGINS if p in decoder.available_plugins]
    if not plugins:
        raise SeriesError(
            Reason.TRANSFER_SYNTAX_UNSUPPORTED, f"no decoder installed for {item.syntax.name}"
        )
    source = _decoder_source(item)
    check_codestreams(source.PixelData, item.syntax, shape)
    for index in range(item.frames):
        yield _decode_frame(decoder, source, index, plugins, shape)


def _decoder_source(item: DicomObject) -> Dataset:
    source = Dataset()
    for keyword in PIXEL_KEYWORDS:
        if keyword in item.header:
            source[keyword] = item.header[keyword]
    source.setdefault("SamplesPerPixel", 1)
    source.setdefault("PhotometricInterpretation", "MONOCHROME2")
    source.setdefault("BitsStored", source.BitsAllocated)
    source.PixelData = item.content[item.begin : item.begin + item.length]
    source["PixelData"].is_undefined_length = True
    source.file_meta = item.header.file_meta
    return source


def _decode_frame(
    decoder: Any, source: Dataset, index: int, plugins: list[str], shape: tuple[int, int]
) -> NDArray[Any]:
    kinds = []
    for plugin in plugins:
        try:
            frame, _ = decoder.as_array(source, index=index, raw=True, decoding_plugin=plugin)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of Rust's is no Exception
            kinds.append(f"{plugin} {type(error).__name__}")
            continue
        if frame.shape == shape:
            array: NDArray[Any] = frame
            return array
        kinds.append(f"{plugin} another shape")
    raise SeriesError(Reason.PIXELS_UNREADABLE, f"no decoder succeeded: {', '.join(kinds)}")
