"""The header of one DICOM object: the facts for grouping, or why it is not a CT image.

In: a file at its beginning. Out: a Header. Elements are skipped, not read, unless listed below.
Does not know: other objects of the series, pixels.
"""

import io
import struct
from functools import lru_cache

from pydantic import SecretStr
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID

from raypipe.archive.ct_checks import RejectionError
from raypipe.archive.deflated import DEFLATED, HEADER_BYTES, inflated, is_deflated
from raypipe.archive.dicom_facts import OWN_KEYWORDS, SHARED_KEYWORDS, SharedHeader
from raypipe.archive.elements import declared_syntax, found_encoding, parse
from raypipe.archive.headers import FIRST_BYTES, Header, HeadFile, other
from raypipe.archive.trim import trim
from raypipe.errors import Reason, SeriesError

_DICOMDIR = "1.2.840.10008.1.3.10"
_KEYWORDS = (*SHARED_KEYWORDS, *OWN_KEYWORDS)
_DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError, OverflowError),
    *(NotImplementedError, struct.error),
)
"""What pydicom raises where a value breaks its VR."""
_PIXELS = ((0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009))


def read_dicom_header(file: HeadFile, size: int, key: SecretStr) -> Header:
    """Facts of one DICOM object; whatever is wrong with it becomes a reason, never an error.

    Raises:
        SeriesError: the bytes could not be fetched.
    """
    try:
        shared, own = _parse(file, key)
    except SeriesError as error:
        if error.reason is Reason.HEADER_UNREADABLE:
            return other(error.reason, error.message)
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises anything on damaged bytes
        kind = type(error).__name__
        return other(Reason.HEADER_UNREADABLE, f"damaged DICOM header ({kind})")
    dataset = shared.dataset
    if not any(keyword in dataset for keyword in ("SOPClassUID", "Modality", "Rows")):
        if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
            return Header(kind="dicomdir")
        if "MediaStorageSOPClassUID" in dataset.file_meta:
            return other(Reason.HEADER_UNREADABLE, "a DICOM file without SOP class and image")
        return other(Reason.NOT_AN_IMAGE, "nothing that is known")
    try:
        classes = dataset.get("SOPClassUID"), dataset.file_meta.get("MediaStorageSOPClassUID")
        if _DICOMDIR in classes:
            return Header(kind="dicomdir")
        facts = shared.identity(own)
    except Exception as error:  # noqa: BLE001 - a value that breaks its VR
        kind = type(error).__name__
        return other(Reason.HEADER_UNREADABLE, f"a value of the header is damaged ({kind})")
    has_pixels, encapsulated = _pixel_element(file, size, dataset)
    try:
        shared.check_ct_image(has_pixels=has_pixels, encapsulated=encapsulated)
        facts.update(shared.geometry(own))
    except SeriesError as error:
        facts.update(reason=error.reason.value, message=error.message)
    except RejectionError as rejection:
        facts.update(
            reason=rejection.reason.value, message=rejection.message, alone=rejection.alone
        )
    except _DAMAGE as error:
        kind = type(error).__name__
        facts.update(
            reason=Reason.HEADER_UNREADABLE.value,
            message=f"a value of the header is damaged ({kind})",
            alone=True,
        )
    return Header(kind="dicom", **facts)


def _parse(file: HeadFile, key: SecretStr) -> tuple[SharedHeader, Dataset]:
    """The header, and of it what is the object's own; the file stands at the pixels, or at its end.

    The own elements are the whole header where they cannot be told apart.
    """
    for size in (FIRST_BYTES, 8 * FIRST_BYTES):
        first = file.read(size)
        file.seek(0)
        if is_deflated(first):
            dataset = parse(io.BytesIO(inflated(file.read(HEADER_BYTES), HEADER_BYTES)), _KEYWORDS)
            dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
            return SharedHeader(dataset, key), dataset
        trimmed = trim(first, SHARED_KEYWORDS, OWN_KEYWORDS)
        if trimmed is not None:
            shared = _shared(trimmed.header, key)
            file.seek(trimmed.pixels_at)
            return shared, read_dataset(io.BytesIO(trimmed.own), trimmed.implicit, True)
        if len(first) < size or first[128:132] != b"DICM":
            break  # a longer beginning would tell no more
    dataset = parse(file, _KEYWORDS)
    return SharedHeader(dataset, key), dataset


@lru_cache(maxsize=16)
def _shared(header: bytes, key: SecretStr) -> SharedHeader:
    """Most slices of a series have the same, and files come in the order of their folders."""
    return SharedHeader(parse(io.BytesIO(header), SHARED_KEYWORDS), key)


def _pixel_element(file: HeadFile, size: int, dataset: FileDataset) -> tuple[bool, bool | None]:
    """Whether there are pixels, and whether they are encapsulated (None where not known)."""
    syntax = declared_syntax(dataset)
    if syntax == DEFLATED:
        return "Rows" in dataset, False  # one deflated stream; looked at when it is read
    at = file.tell()
    start = file.read(12)
    if len(start) < 8:
        return False, None
    order = "<" if found_encoding(dataset)[1] else ">"
    if struct.unpack(f"{order}HH", start[:4]) not in _PIXELS:
        return False, None
    if start[4:6] in (b"OB", b"OW", b"UN", b"OF", b"OD") and len(start) == 12:
        length, begin = struct.unpack(f"{order}I", start[8:12])[0], at + 12
    else:
        length, begin = struct.unpack(f"{order}I", start[4:8])[0], at + 8
    return length > 0 and begin < size, length == 0xFFFFFFFF
