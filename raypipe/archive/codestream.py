"""What a compressed fragment says of itself, before a native decoder believes it.

In: the value of an encapsulated PixelData, a transfer syntax, what the header says of the frames.
Out: nothing, or SeriesError. Does not know: how anything is decoded.

A decoder allocates what the codestream asks for, so that a size that is not the header's is
refused here: a few bytes could ask for gigabytes.
"""

import struct
from dataclasses import dataclass

from pydicom.uid import UID

from raypipe.errors import Reason, SeriesError

_JPEG_BITS = 16
_JPEG_2000_BITS = 32


@dataclass(frozen=True)
class Codestream:
    """The beginning of a compressed frame.

    Args:
        family: of codecs.
        rows, columns: of the picture, 0 where the codestream does not say (RLE).
        samples: values a pixel.
        bits: of a value.
    """

    family: str
    rows: int = 0
    columns: int = 0
    samples: int = 1
    bits: int = 8


def check_codestreams(pixels: bytes, syntax: UID, shape_yx: tuple[int, int]) -> None:
    """Compare how frames begin with what the transfer syntax and the header promise.

    Args:
        pixels: the encapsulated value.
        syntax: the declared transfer syntax.
        shape_yx: rows and columns of the header.

    Raises:
        SeriesError: PIXELS_UNREADABLE or TRANSFER_SYNTAX_MISMATCH.
    """
    from pydicom.encaps import generate_fragments

    try:
        fragments = generate_fragments(pixels)
        next(fragments)  # the offset table
        first = _parsed(next(fragments))
        others = [_parsed(fragment) for fragment in fragments]
    except (ValueError, StopIteration, struct.error) as error:
        raise SeriesError(Reason.PIXELS_UNREADABLE, "damaged encapsulation") from error
    expected = _expected_family(syntax)
    if first is None or first.family != expected:
        found = first.family if first else "nothing known"
        raise SeriesError(
            Reason.TRANSFER_SYNTAX_MISMATCH, f"declared {syntax.name}, the codestream is {found}"
        )
    for stream in (first, *others):  # a fragment that continues a frame begins like none
        if stream is None or not stream.rows:
            continue
        if (stream.rows, stream.columns) != shape_yx or stream.samples != 1:
            raise SeriesError(
                Reason.PIXELS_UNREADABLE,
                f"the codestream holds {stream.rows} x {stream.columns} x {stream.samples}, the "
                f"header says {shape_yx[0]} x {shape_yx[1]} x 1",
            )
        most = _JPEG_2000_BITS if stream.family == "JPEG 2000" else _JPEG_BITS
        if not 2 <= stream.bits <= most:
            raise SeriesError(Reason.PIXELS_UNREADABLE, f"a codestream of {stream.bits} bits")


def _expected_family(syntax: UID) -> str:
    from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

    if syntax in JPEG2000TransferSyntaxes or ".4.20" in syntax:
        return "JPEG 2000"
    if syntax in JPEGLSTransferSyntaxes:
        return "JPEG-LS"
    if syntax == "1.2.840.10008.1.2.5":
        return "RLE"
    if syntax in ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"):
        return "JPEG lossless"
    return "JPEG"


def _parsed(fragment: bytes) -> Codestream | None:
    """What a fragment begins with, None where no codec is recognized."""
    if fragment.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")):
        return _jpeg_2000(fragment)
    if fragment.startswith(b"\xff\xd8"):
        return _jpeg(fragment)
    if len(fragment) >= 64:
        segments, first = struct.unpack("<II", fragment[:8])
        if 1 <= segments <= 15 and first == 64:
            return Codestream("RLE")
    return None


def _jpeg_2000(fragment: bytes) -> Codestream:
    """The SIZ marker: size of the reference grid, its offset, components."""
    at = fragment.find(b"\xff\x4f\xff\x51")
    if at < 0 or at + 43 > len(fragment):
        raise SeriesError(Reason.PIXELS_UNREADABLE, "a JPEG 2000 codestream without a size")
    x, y, x_offset, y_offset = struct.unpack_from(">4I", fragment, at + 8)
    samples, bits = struct.unpack_from(">HB", fragment, at + 40)
    shape = max(1, y - y_offset), max(1, x - x_offset)
    return Codestream("JPEG 2000", *shape, samples, (bits & 0x7F) + 1)


def _jpeg(fragment: bytes) -> Codestream | None:
    """The frame marker of a JPEG codestream: lossless, JPEG-LS or lossy, and its size."""
    at = 2
    while at + 4 <= len(fragment) and fragment[at] == 0xFF:
        marker = fragment[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        family = _family_of(marker)
        if family:
            if at + 10 > len(fragment):
                return None
            bits, rows, columns, samples = struct.unpack_from(">BHHB", fragment, at + 4)
            return Codestream(family, max(1, rows), max(1, columns), samples, bits)
        at += 2 + int.from_bytes(fragment[at + 2 : at + 4], "big")
    return None


def _family_of(marker: int) -> str:
    if marker == 0xF7:
        return "JPEG-LS"
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        return "JPEG lossless"
    if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
        return "JPEG"
    return ""
