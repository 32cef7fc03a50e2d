"""Ways to damage the bytes of a file, drawn from a numbered random generator.

In: a good file, a random generator, other good files to splice. Out: a damaged file, and how.
Does not know: who reads it.
"""

import gzip
import random
import struct
import zlib
from collections.abc import Callable

Mutation = Callable[[bytes, random.Random], bytes]

_NUMBERS = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF)
_LONG_NUMBERS = (*_NUMBERS, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_TEXTS = (
    *("", "0", "-1", "1", "nan", "inf", "-inf", "1e308", "-1e308", "1e-308", "1e999", "999999999"),
    *(
        "99999999999999999999",
        "0\\0",
        "nan\\nan",
        "1e308\\1e308",
        "-1\\1",
        "1",
        "\\\\\\\\",
        "1\\2\\3",
    ),
    *("0\\0\\0", "1e308\\1e308\\1e308", "nan\\0\\0", "1\\0\\0\\0\\1\\0", "0\\0\\0\\0\\0\\0"),
    *(
        "1\\1\\1\\1\\1\\1",
        "1\\0\\0\\1\\0\\0",
        "nan\\nan\\nan\\nan\\nan\\nan",
        "A" * 64,
        "\xff\xfe",
        "%n%s",
    ),
)
_SYNTAXES = (
    *("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"),
    *("1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"),
    *("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"),
    *("1.2.840.10008.1.2.4.81", "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"),
    *("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.94", "9.9", ""),
)
_NIFTI_1 = (("h", 40, 8), ("h", 70, 2), ("f", 76, 8), ("f", 108, 3), ("h", 252, 2), ("f", 256, 18))
_NIFTI_2 = (("q", 16, 8), ("h", 12, 2), ("d", 104, 8), ("q", 168, 1), ("d", 176, 2), ("d", 352, 18))
"""Code, place and number of fields: sizes, type, spacings, scale, matrices."""
_NUMBER_TAGS = (0x00280002, 0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
_TEXT_TAGS = (
    *(0x00080008, 0x00080016, 0x00080018, 0x00080060, 0x0020000D, 0x0020000E, 0x00200013),
    *(0x00200032, 0x00200037, 0x00280004, 0x00280008, 0x00280030, 0x00281052, 0x00281053),
    *(0x00180050, 0x00180060, 0x00080005, 0x00080032, 0x00200012, 0x00180015, 0x00281054),
)
_SEQUENCE_TAGS = (0x52009229, 0x52009230, 0x00283000, 0x00209113, 0x00289110, 0x00289145)


def damaged(
    content: bytes, kind: str, rng: random.Random, others: list[bytes]
) -> tuple[bytes, str]:
    """A file with one to three things wrong with it, and the names of what was done.

    Args:
        content: a good file.
        kind: beginning of its seed's name: dicom, enhanced, nifti, image or packed.
        rng: decides everything.
        others: good files of other seeds.
    """
    zipped = kind == "nifti" and content[:2] == b"\x1f\x8b" and rng.random() < 0.7
    if zipped:
        content = gzip.decompress(content)
    names = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.03:
            other = rng.choice(others)
            content = content[: _place(content, rng)] + other[_place(other, rng) :]
            names.append("splice")
            continue
        special = _SPECIAL.get(kind, ())
        pool = special if special and rng.random() < 0.6 else _GENERAL
        mutation = rng.choice(pool)
        content = mutation(content, rng)
        names.append(mutation.__name__)
    return (gzip.compress(content, 1, mtime=0) if zipped else content), "+".join(names)


def _place(content: bytes, rng: random.Random) -> int:
    """A place in a file; every other one lies in its first kilobyte, where headers are."""
    if not content:
        return 0
    return rng.randrange(min(len(content), 1024) if rng.random() < 0.5 else len(content))


def flip_bits(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if changed:
            changed[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def random_bytes(content: bytes, rng: random.Random) -> bytes:
    at, n = _place(content, rng), rng.choice((1, 2, 4, 16, 64))
    return content[:at] + rng.randbytes(n) + content[at + n :]


def number(content: bytes, rng: random.Random) -> bytes:
    """A number that is often an edge, over 2, 4 or 8 bytes."""
    code = rng.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
    value = rng.choice(_NUMBERS if code[1] == "H" else _LONG_NUMBERS)
    at = _place(content, rng)
    packed = struct.pack(code, value)
    return content[:at] + packed + content[at + len(packed) :]


def cut_off(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def take_out(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.choice((1, 2, 8, 100)) :]


def repeat(content: bytes, rng: random.Random) -> bytes:
    at, n = _place(content, rng), rng.choice((1, 8, 132, 1000))
    return content[: at + n] + content[at : at + n] * rng.choice((1, 1, 50)) + content[at + n :]


def fill(content: bytes, rng: random.Random) -> bytes:
    at, n = _place(content, rng), rng.choice((4, 64, 512))
    return content[:at] + rng.choice((b"\0", b"\xff")) * n + content[at + n :]


def _with_value(content: bytes, tag: int, value: bytes) -> bytes:
    """A DICOM file with another value of the first element of a tag, its length put right."""
    name = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    at = content.find(name, 132)
    if at < 0 or at + 8 > len(content):
        return content
    value += b" " * (len(value) % 2)
    if content[at + 4 : at + 6].isalpha():
        length = struct.unpack_from("<H", content, at + 6)[0]
        head = content[: at + 6] + struct.pack("<H", len(value))
    else:
        length = struct.unpack_from("<I", content, at + 4)[0]
        head = content[: at + 4] + struct.pack("<I", len(value))
    return head + value + content[at + 8 + length :]


def element_number(content: bytes, rng: random.Random) -> bytes:
    value = struct.pack("<H", rng.choice((*_NUMBERS, 12, 24, 32, 64, 512, 30000)))
    return _with_value(content, rng.choice(_NUMBER_TAGS), value)


def element_text(content: bytes, rng: random.Random) -> bytes:
    return _with_value(content, rng.choice(_TEXT_TAGS), rng.choice(_TEXTS).encode("latin-1"))


def element_length(content: bytes, rng: random.Random) -> bytes:
    """The length of one element, whatever it is, is wrong."""
    tags = (*_NUMBER_TAGS, *_TEXT_TAGS, *_SEQUENCE_TAGS, 0x7FE00010, 0x00020010, 0x00020000)
    tag = rng.choice(tags)
    at = content.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    if at < 0:
        return content
    at += rng.choice((4, 6, 8))
    packed = struct.pack("<I", rng.choice(_LONG_NUMBERS))[: rng.choice((2, 4))]
    return content[:at] + packed + content[at + len(packed) :]


def transfer_syntax(content: bytes, rng: random.Random) -> bytes:
    return _with_value(content, 0x00020010, rng.choice(_SYNTAXES).encode())


def deep_sequence(content: bytes, rng: random.Random) -> bytes:
    """Sequences inside sequences, deeper than any parser should follow."""
    tag = rng.choice(_SEQUENCE_TAGS)
    name = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    opening = name + b"SQ\0\0\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    at = content.find(b"\x28\x00\x02\x00", 132)
    return content[:at] + opening * rng.choice((3, 200, 5000)) + content[at:]


def codestream_size(content: bytes, rng: random.Random) -> bytes:
    """A compressed picture that says it is far larger, or another one, than its header."""
    at = content.find(b"\xff\x4f\xff\x51")
    if at >= 0:
        at += rng.choice((8, 12, 16, 20, 24, 28, 32, 36))
        return content[:at] + struct.pack(">I", rng.choice(_LONG_NUMBERS)) + content[at + 4 :]
    for marker in (b"\xff\xc0", b"\xff\xc3", b"\xff\xf7", b"\xff\xc2"):
        at = content.find(marker)
        if at >= 0:
            at += rng.choice((4, 5, 7, 9))
            return content[:at] + struct.pack(">H", rng.choice(_NUMBERS)) + content[at + 2 :]
    return number(content, rng)


def fragment_length(content: bytes, rng: random.Random) -> bytes:
    """The length of an item of encapsulated pixels is wrong, or the offset table is."""
    at = content.rfind(b"\xfe\xff\x00\xe0")
    if at < 0:
        return number(content, rng)
    at += rng.choice((4, 4, 8, -4))
    return content[:at] + struct.pack("<I", rng.choice(_LONG_NUMBERS)) + content[at + 4 :]


def nifti_field(content: bytes, rng: random.Random) -> bytes:
    big = content[:1] == b"\0"
    order = ">" if big else "<"
    code, first, count = rng.choice(
        (("h", 40, 8), ("h", 70, 2), ("f", 76, 8), ("f", 108, 3), ("h", 252, 2), ("f", 256, 18))
        if content[344:347] in (b"n+1", b"ni1")
        else (
            ("q", 16, 8),
            ("h", 12, 2),
            ("d", 104, 8),
            ("q", 168, 1),
            ("d", 176, 2),
            ("d", 352, 18),
        )
    )
    values: dict[str, tuple[float, ...]] = {
        "h": (0, 1, 2, 3, 7, 8, 16, 64, 128, 256, 768, 1536, 2304, -1, 32767, -32768),
        "q": (0, 1, 2, 7, 540, -1, 1 << 31, (1 << 63) - 1, -(1 << 63)),
        "f": (0.0, 1.0, -1.0, 1e30, -1e30, 1e-30, float("nan"), float("inf"), 352.0, -352.0),
        "d": (0.0, 1.0, -1.0, 1e300, 1e-300, float("nan"), float("inf")),
    }
    value = rng.choice(values[code])
    packed = struct.pack(order + code, int(value) if code in "hq" else value)
    at = first + rng.randrange(count) * len(packed)
    return content[:at] + packed + content[at + len(packed) :]


def picture_size(content: bytes, rng: random.Random) -> bytes:
    """Another size in the header of a PNG, its checksum put right, or of a JPEG."""
    if content[:4] != b"\x89PNG":
        return codestream_size(content, rng)
    header = bytearray(content[12:29])
    at = rng.choice((4, 8))
    header[at : at + 4] = struct.pack(">I", rng.choice(_LONG_NUMBERS))
    if rng.random() < 0.3:
        header[12:14] = bytes((rng.choice((1, 2, 4, 8, 16)), rng.choice((0, 2, 3, 4, 6))))
    checksum = struct.pack(">I", zlib.crc32(header))
    return content[:12] + bytes(header) + checksum + content[33:]


def packed_field(content: bytes, rng: random.Random) -> bytes:
    """A field of a zip's directory, or of a tar's header, is wrong."""
    at = content.find(rng.choice((b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06")))
    if at < 0:
        at = rng.randrange(max(1, len(content) // 512)) * 512 + rng.choice((100, 124, 148, 156))
        return (
            content[:at]
            + rng.choice((b"7777777", b"-1\0", b"\x80\xff\xff\xff"))
            + content[at + 7 :]
        )
    at += rng.randrange(4, 44)
    return content[:at] + struct.pack("<I", rng.choice(_LONG_NUMBERS)) + content[at + 4 :]


_GENERAL: tuple[Mutation, ...] = (
    *(flip_bits, random_bytes, number, cut_off, take_out, repeat, fill),
)
_DICOM: tuple[Mutation, ...] = (
    *(element_number, element_number, element_text, element_text, element_length),
    *(transfer_syntax, deep_sequence, codestream_size, fragment_length),
)
_SPECIAL: dict[str, tuple[Mutation, ...]] = {
    "dicom": _DICOM,
    "enhanced": _DICOM,
    "nifti": (nifti_field,),
    "image": (picture_size,),
    "packed": (packed_field,),
}
