"""Single elements of a DICOM header: how it is parsed, what its values are.

In: a file or a parsed header. Out: texts, codes, numbers, the transfer syntax.
Does not know: what the values mean for an archive.
"""

import math
from collections.abc import Sequence
from typing import Any

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from raypipe.in_parts import InParts


def parse(file: Any, keywords: Sequence[str]) -> FileDataset:
    """Read a header up to the pixels; the file then stands at the pixel element.

    Element values that break their VR are kept as they are: real archives are full of them.

    Raises:
        Exception: whatever pydicom raises on damaged bytes, and on a deflated dataset.
    """
    return pydicom.dcmread(
        InParts(file), stop_before_pixels=True, force=True, specific_tags=list(keywords)
    )


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


_MODALITY_TERMS = (
    "AR ASMT AU BDUS BI BMD CD CF CP CR CS CT CTPROTOCOL DD DF DG DMS DOC DX EC ECG EEG EMG EOG EPS"
    " ES FID FS GM HC HD IO IOL IVOCT IVUS KER KO LEN LP LS M3D MA MG MR MS NM OAM OCT OP OPM OPR"
    " OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG RTDOSE RTIMAGE RTINTENT"
    " RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SEG SM SMR SR SRF ST STAIN TEXTUREMAP TG US VA VF"
    " XA XAPROTOCOL XC"
)
_MODALITIES = frozenset(_MODALITY_TERMS.split())
_PHOTOMETRIC = (
    *("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB", "HSV", "ARGB", "CMYK", "XYB"),
    *("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT"),
)


def modality_of(text: str) -> str:
    """The modality where it is one of the standard's: anything else could be a person's name."""
    text = text.strip().upper()
    return text if text in _MODALITIES else ""


def photometric_of(text: str) -> str:
    """The photometric interpretation where it is one of the standard's."""
    text = text.strip().upper()
    return text if text in _PHOTOMETRIC else ""


def syntax_of(dataset: FileDataset) -> str:
    """The UID of the transfer syntax where it is one that is known, "unknown" otherwise."""
    syntax = declared_syntax(dataset)
    return str(syntax) if syntax.is_transfer_syntax else "unknown"


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
