"""Single elements of a DICOM header: how it is parsed, what its values are.

In: a file or a parsed header. Out: texts, codes, numbers, the transfer syntax.
Does not know: what the values mean for an archive.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian


def parse(file: Any, keywords: Sequence[str]) -> FileDataset:
    """Read a header up to the pixels; the file then stands at the pixel element.

    Element values that break their VR are kept as they are: real archives are full of them.
    """
    return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(keywords))


def declared_syntax(dataset: FileDataset) -> UID:
    """The transfer syntax of the file, guessed from the encoding where none is declared."""
    declared = getattr(dataset, "file_meta", Dataset()).get("TransferSyntaxUID")
    if declared:
        return UID(str(declared))
    implicit, little = found_encoding(dataset)
    if not little:
        return UID("1.2.840.10008.1.2.2")
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def found_encoding(dataset: FileDataset) -> tuple[bool, bool]:
    """Whether the first element is implicit and little endian, as found, not as declared."""
    for tag in list(dataset.keys()):
        element = dataset.get_item(tag)
        if isinstance(element, RawDataElement):
            return element.is_implicit_VR, element.is_little_endian
    implicit, little = dataset.original_encoding
    return bool(implicit), bool(little)


def text_of(dataset: Dataset, keyword: str) -> str:
    """The value of an element as text, "" where it is missing or empty."""
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def code_of(text: str, limit: int = 16) -> str:
    """A coded string as it may stand in a manifest: what is not a code is not repeated."""
    text = text.strip().upper()
    return text if re.fullmatch(rf"[A-Z0-9_ .\-]{{1,{limit}}}", text) else ""


def number_of(dataset: Dataset, keyword: str) -> float | None:
    """The first value of an element as a finite number, else None."""
    value = dataset.get(keyword)
    try:
        number = float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


_VENDORS = (
    ("SIEMENS", "SIEMENS"),
    ("GE ", "GE"),
    ("GENERAL ELECTRIC", "GE"),
    ("PHILIPS", "PHILIPS"),
    ("TOSHIBA", "TOSHIBA"),
    ("CANON", "CANON"),
    ("HITACHI", "HITACHI"),
    ("FUJIFILM", "FUJIFILM"),
    ("SHIMADZU", "SHIMADZU"),
    ("NEUSOFT", "NEUSOFT"),
    ("UIH", "UNITED IMAGING"),
    ("UNITED IMAGING", "UNITED IMAGING"),
    ("IMATRON", "IMATRON"),
    ("ELSCINT", "ELSCINT"),
    ("PICKER", "PICKER"),
    ("MARCONI", "MARCONI"),
    ("SAMSUNG", "SAMSUNG"),
    ("NEUROLOGICA", "NEUROLOGICA"),
    ("MINFOUND", "MINFOUND"),
    ("ANKE", "ANKE"),
    ("VARIAN", "VARIAN"),
    ("RAYPIPE", "RAYPIPE"),
)


def vendor_of(text: str) -> str:
    """The vendor, from a closed list: the field is free text, and some archives abuse it."""
    upper = text.upper() + " "
    for beginning, vendor in _VENDORS:
        if upper.startswith(beginning):
            return vendor
    return "OTHER" if text else ""
