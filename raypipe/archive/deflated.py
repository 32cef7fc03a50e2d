"""DICOM objects whose dataset is deflated, as if it were not, and never larger than asked for.

In: an object. Out: the same object under Explicit VR Little Endian, expanded up to a limit.
Does not know: elements, pixels.
"""

import io
import struct
import zlib
from typing import IO, Any

from raypipe.errors import Reason, SeriesError

DEFLATED = "1.2.840.10008.1.2.1.99"
HEADER_BYTES = 4 << 20
"""As much of an expanded object as its header may take up."""

_META_BYTES = 4096
"""The transfer syntax is looked for in so many."""
_PLAIN = b"1.2.840.10008.1.2.1\0"
_SYNTAX_TAG = b"\x02\x00\x10\x00UI"


def is_deflated(content: bytes) -> bool:
    """Whether the file meta of an object says so."""
    at = content.find(_SYNTAX_TAG, 132, _META_BYTES) if content[128:132] == b"DICM" else -1
    return at >= 0 and content.startswith(DEFLATED.encode(), at + 8)


def inflated(content: bytes, limit: int) -> bytes:
    """The object with its dataset expanded, at most `limit` bytes of it.

    Args:
        content: an object, or its beginning, for which `is_deflated` holds.
        limit: what is more is left away; a few bytes can stand for gigabytes.

    Raises:
        SeriesError: HEADER_UNREADABLE: the data is damaged.
    """
    at = content.index(_SYNTAX_TAG, 132)
    try:
        start = _meta_end(content)
        dataset = zlib.decompressobj(wbits=-15).decompress(content[start:], limit)
    except (zlib.error, struct.error) as error:
        raise SeriesError(Reason.HEADER_UNREADABLE, "the deflated dataset is damaged") from error
    syntax = _SYNTAX_TAG + struct.pack("<H", len(_PLAIN)) + _PLAIN
    after = at + 8 + struct.unpack_from("<H", content, at + 6)[0]
    meta = content[132:at] + syntax + content[after:start]
    if meta.startswith(b"\x02\x00\x00\x00UL\x04\x00"):  # the length of the meta group
        meta = meta[:8] + struct.pack("<I", len(meta) - 12) + meta[12:]
    return content[:132] + meta + dataset


def expanded(file: IO[bytes] | Any) -> IO[bytes] | Any:
    """The file at its beginning; a deflated object as if it were not, as far as a header goes.

    Raises:
        SeriesError: HEADER_UNREADABLE: the data is damaged.
    """
    first = file.read(_META_BYTES)
    if is_deflated(first):
        return io.BytesIO(inflated(first + file.read(HEADER_BYTES), HEADER_BYTES))
    file.seek(0)
    return file


def _meta_end(content: bytes) -> int:
    """Where the file meta ends, found element by element: its stated length may be wrong."""
    at = 132
    while content[at : at + 2] == b"\x02\x00":
        if content[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            at += 12 + struct.unpack_from("<I", content, at + 8)[0]
        else:
            at += 8 + struct.unpack_from("<H", content, at + 6)[0]
    return at
