"""A DICOM header without the elements that nobody asked for.

In: the first bytes of an object. Out: a far shorter header of the same encoding, and where the
pixels begin. Parsing the elements of a header costs more than reading the pixels of a slice, and
scanners write hundreds, so this saves most of the time of indexing and loading. Elements that are
each slice's own come apart: what is left is the same, byte by byte, in most slices of a series.
Does not know: values. Whatever is not plainly regular (no preamble, big endian, deflated, an
encoding other than the declared one, damage) gives None, and the whole header is parsed instead.
"""

import struct
from functools import lru_cache
from typing import NamedTuple

from pydicom.datadict import tag_for_keyword


def _vrs(codes: bytes) -> frozenset[bytes]:
    return frozenset(codes[i : i + 2] for i in range(0, len(codes), 2))


_LONG_VRS = _vrs(b"OBODOFOLOVOWSQSVUCUNURUTUV")
_SHORT_VRS = _vrs(b"AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = range(0x7FE00008, 0x7FE00011)
_TRANSFER_SYNTAX = 0x00020010
_OF_ONE_OBJECT = (0x00020000, 0x00020003)
"""Length of the meta group and MediaStorageSOPInstanceUID."""
_IMPLICIT = b"1.2.840.10008.1.2"
_NOT_EXPLICIT_LITTLE = (_IMPLICIT, b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
_TAG_LENGTH = struct.Struct("<HHI")
_TAG_VR_LENGTH = struct.Struct("<HH2sH")
_LONG_LENGTH = struct.Struct("<I")


class Trimmed(NamedTuple):
    """The parts of a header that were asked for.

    Args:
        header: preamble, meta group without the UID of the object, wanted elements.
        own: the elements that are each slice's own, encoded like the header.
        implicit: whether their VRs are implicit.
        pixels_at: offset of the pixel element.
    """

    header: bytes
    own: bytes
    implicit: bool
    pixels_at: int


class _IrregularError(Exception):
    """The header is not plainly regular."""


@lru_cache(maxsize=8)
def _tags_of(keywords: tuple[str, ...]) -> frozenset[int]:
    tags = (tag_for_keyword(k) for k in keywords)
    return frozenset(tag for tag in tags if tag is not None)


def trim(content: bytes, keywords: tuple[str, ...], own: tuple[str, ...] = ()) -> Trimmed | None:
    """Cut a header down.

    Args:
        content: an object, or its beginning up to the pixels at least.
        keywords: of the elements wanted.
        own: of those wanted beside them that are each slice's own.

    Returns:
        None where the header is not plainly regular, or does not end in `content`.
    """
    try:
        meta, syntax, at = _meta(content)
        implicit = syntax == _IMPLICIT
        if not syntax or (not implicit and syntax in _NOT_EXPLICIT_LITTLE):
            return None
        wanted, apart = _tags_of(keywords), _tags_of(own)
        parts = [meta]
        own_parts: list[bytes] = []
        while True:
            tag, _, end = _element(content, at, implicit=implicit)
            if tag in _PIXELS:
                return Trimmed(b"".join(parts), b"".join(own_parts), implicit, at)
            if tag in apart:
                own_parts.append(content[at:end])
            elif tag in wanted:
                parts.append(content[at:end])
            at = end
    except (_IrregularError, struct.error, RecursionError):
        return None


def _meta(content: bytes) -> tuple[bytes, bytes, int]:
    """Preamble and meta group, the transfer syntax, and where the dataset begins."""
    if content[128:132] != b"DICM":
        raise _IrregularError
    parts, at, syntax = [content[:132]], 132, b""
    while content[at : at + 2] == b"\x02\x00":
        tag, start, end = _element(content, at, implicit=False)
        if tag == _TRANSFER_SYNTAX:
            syntax = content[start:end].rstrip(b"\0 ")
        if tag not in _OF_ONE_OBJECT:
            parts.append(content[at:end])
        at = end
    return b"".join(parts), syntax, at


def _element(content: bytes, at: int, *, implicit: bool) -> tuple[int, int, int]:
    """Tag, and begin and end of the value, of the element at an offset."""
    start = at + 8
    if implicit:
        group, element, length = _TAG_LENGTH.unpack_from(content, at)
        vr = b""
    else:
        group, element, vr, length = _TAG_VR_LENGTH.unpack_from(content, at)
        if vr in _LONG_VRS:
            length, start = _LONG_LENGTH.unpack_from(content, start)[0], at + 12
        elif vr not in _SHORT_VRS:
            raise _IrregularError
    tag = group << 16 | element
    if tag in _PIXELS:
        return tag, start, start
    if length == _UNDEFINED:
        if vr not in (b"SQ", b"UN", b""):
            raise _IrregularError
        return tag, start, _sequence_end(content, start, implicit=implicit or vr == b"UN")
    if start + length > len(content):
        raise _IrregularError
    return tag, start, start + length


def _sequence_end(content: bytes, at: int, *, implicit: bool) -> int:
    """Where a sequence without a stated length ends."""
    while True:
        group, element, length = _TAG_LENGTH.unpack_from(content, at)
        tag, at = group << 16 | element, at + 8
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise _IrregularError
        at = _item_end(content, at, implicit=implicit) if length == _UNDEFINED else at + length
        if at > len(content):
            raise _IrregularError


def _item_end(content: bytes, at: int, *, implicit: bool) -> int:
    while True:
        group, element, _ = _TAG_LENGTH.unpack_from(content, at)
        if group << 16 | element == _ITEM_END:
            return at + 8
        _, _, at = _element(content, at, implicit=implicit)
