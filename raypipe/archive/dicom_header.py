"""The header of one DICOM object: the facts for grouping, or why it is not a CT image.

In: a file at its beginning. Out: a Header. Elements are skipped, not read, unless listed below.
Does not know: other objects of the series, pixels.
"""

import math
import re
import struct
from collections.abc import Sequence
from typing import Any

import pydicom
from pydantic import SecretStr
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from raypipe.archive.anatomy import body_part
from raypipe.archive.headers import Header, HeadFile, other
from raypipe.archive.identity import keyed_hash
from raypipe.archive.planes import frame_distance_mm, frame_planes
from raypipe.errors import Reason, SeriesError

GEOMETRY_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
_KEYWORDS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ImageType",
    "Manufacturer",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ConcatenationUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "KVP",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ConvolutionKernel",
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "AcquisitionUID",
    "IrradiationEventUID",
    "EchoNumbers",
    "SeriesNumber",
    "ReconstructionDiameter",
    "FilterType",
    "XRayTubeCurrent",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    "AcquisitionTime",
    "ContentTime",
    "InstanceNumber",
    *GEOMETRY_KEYWORDS,
)

_DICOMDIR = "1.2.840.10008.1.3.10"
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
_LOCALIZER = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"}
_CAPTURE = {"SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SCREENSHOT", "PROTOCOL", "DOSE_INFO"}
_NO_AGENT = {"NONE", "NO", "N", "0", "NATIVE", "WITHOUT"}
_PIXELS = ((0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009))


class _RejectionError(Exception):
    """Ends the reading of a header with a reason."""

    def __init__(self, reason: Reason, message: str, *, alone: bool = False) -> None:
        super().__init__(message)
        self.reason, self.message, self.alone = reason, message, alone


def read_dicom_header(file: HeadFile, size: int, key: SecretStr) -> Header:
    """Facts of one DICOM object; whatever is wrong with it becomes a reason, never an error.

    Raises:
        SeriesError: the bytes could not be fetched.
    """
    try:
        dataset = parse(file, _KEYWORDS)
    except SeriesError:
        raise
    except Exception as error:  # noqa: BLE001 - pydicom raises anything on damaged bytes
        kind = type(error).__name__
        return other(Reason.HEADER_UNREADABLE, f"damaged DICOM header ({kind})")
    if not dataset or not ({"SOPClassUID", "Modality", "Rows"} & set(dataset.dir())):
        if dataset.file_meta.get("MediaStorageSOPClassUID") == _DICOMDIR:
            return Header(kind="dicomdir")
        if "MediaStorageSOPClassUID" in dataset.file_meta:
            return other(Reason.HEADER_UNREADABLE, "a DICOM file without SOP class and image")
        return other(Reason.NOT_AN_IMAGE, "nothing that is known")
    if _DICOMDIR in (dataset.get("SOPClassUID"), dataset.file_meta.get("MediaStorageSOPClassUID")):
        return Header(kind="dicomdir")
    try:
        facts = _identity(dataset, key)
    except Exception as error:  # noqa: BLE001 - a value that breaks its VR
        kind = type(error).__name__
        return other(Reason.HEADER_UNREADABLE, f"a value of the header is damaged ({kind})")
    pixels = _pixel_element(file, size, dataset)
    try:
        _check(dataset, pixels, facts)
        facts.update(_geometry(dataset))
    except SeriesError as error:
        facts.update(reason=error.reason.value, message=error.message)
    except _RejectionError as rejection:
        facts.update(
            reason=rejection.reason.value, message=rejection.message, alone=rejection.alone
        )
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError) as error:
        kind = type(error).__name__
        facts.update(
            reason=Reason.HEADER_UNREADABLE.value,
            message=f"a value of the header is damaged ({kind})",
            alone=True,
        )
    return Header(kind="dicom", **facts)


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


def _pixel_element(file: HeadFile, size: int, dataset: FileDataset) -> tuple[bool, bool | None]:
    """Whether there are pixels, and whether they are encapsulated (None where not known)."""
    syntax = declared_syntax(dataset)
    if syntax == "1.2.840.10008.1.2.1.99":
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


def _text(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).strip(" \0")


def _code(text: str, limit: int = 16) -> str:
    """A coded string as it may stand in a manifest: what is not a code is not repeated."""
    text = text.strip().upper()
    return text if re.fullmatch(rf"[A-Z0-9_ .\-]{{1,{limit}}}", text) else ""


def _number(dataset: Dataset, keyword: str) -> float | None:
    value = dataset.get(keyword)
    try:
        number = float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None


def _identity(dataset: FileDataset, key: SecretStr) -> dict[str, Any]:
    def hashed(keyword: str) -> str:
        text = _text(dataset, keyword)
        return keyed_hash(text, key) if text else ""

    codes = [str(item.get("CodeValue", "")) for item in dataset.get("AnatomicRegionSequence") or ()]
    return {
        "study": hashed("StudyInstanceUID"),
        "series": hashed("SeriesInstanceUID"),
        "frame_of_reference": hashed("FrameOfReferenceUID"),
        "concatenation": hashed("ConcatenationUID"),
        "instance_uid": _text(dataset, "SOPInstanceUID"),
        "modality": _code(_text(dataset, "Modality")),
        "manufacturer": _manufacturer(_text(dataset, "Manufacturer")),
        "transfer_syntax": str(declared_syntax(dataset)),
        "thickness_mm": _positive(_number(dataset, "SliceThickness")),
        "kvp": _positive(_number(dataset, "KVP")),
        "contrast": _contrast(dataset),
        "body_part": body_part(_text(dataset, "BodyPartExamined"), codes),
        "kernel": _text(dataset, "ConvolutionKernel")[:32],
        "discriminators": _discriminators(dataset, key),
        "instance_number": int(_number(dataset, "InstanceNumber") or 0),
    }


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


def _manufacturer(text: str) -> str:
    """The vendor, from a closed list: the field is free text, and some archives abuse it."""
    upper = text.upper() + " "
    for beginning, vendor in _VENDORS:
        if upper.startswith(beginning):
            return vendor
    return "OTHER" if text else ""


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _contrast(dataset: Dataset) -> bool | None:
    """Whether an agent is recorded; the text itself is free and never kept."""
    if dataset.get("ContrastBolusAgentSequence"):
        return True
    agent = _text(dataset, "ContrastBolusAgent").upper()
    if not agent:
        return None  # the element is often empty where contrast was given
    return agent not in _NO_AGENT


def _discriminators(dataset: Dataset, key: SecretStr) -> tuple[str, ...]:
    """Facts that differ between volumes under one UID, most telling first; see `split`."""
    temporal = f"{dataset.get('TemporalPositionIndex')} {dataset.get('TemporalPositionIdentifier')}"
    cardiac = f"{dataset.get('NominalPercentageOfCardiacPhase')} {dataset.get('TriggerTime')}"
    event = f"{_text(dataset, 'AcquisitionUID')} {_text(dataset, 'IrradiationEventUID')}"
    return (
        temporal,
        cardiac,
        _text(dataset, "AcquisitionNumber"),
        keyed_hash(event, key)[:8],
        _text(dataset, "EchoNumbers"),
        _text(dataset, "ConvolutionKernel") + _text(dataset, "FilterType"),
        _text(dataset, "ImageType"),
        _text(dataset, "KVP"),
        _text(dataset, "SeriesNumber"),
        _text(dataset, "ReconstructionDiameter"),
        _text(dataset, "SliceThickness"),
        keyed_hash(_text(dataset, "FrameOfReferenceUID"), key)[:8],
        _text(dataset, "AcquisitionTime"),
        _text(dataset, "ContentTime"),
    )


def _check(dataset: FileDataset, pixels: tuple[bool, bool | None], facts: dict[str, Any]) -> None:
    has_pixels, encapsulated = pixels
    syntax = declared_syntax(dataset)
    modality = _text(dataset, "Modality")
    native_little = syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    misnamed = native_little and found_encoding(dataset)[0] != (syntax == ImplicitVRLittleEndian)
    # Implicit bytes named explicit (or the reverse) hold the same pixels, so a CT is read all the
    # same; of anything else the fault is told, because it says more than "not CT".
    if misnamed and modality != "CT":
        raise _RejectionError(
            Reason.TRANSFER_SYNTAX_MISMATCH,
            f"declared {syntax.name}, encoded otherwise; modality {facts['modality'] or 'missing'}",
            alone=True,
        )
    if not modality:
        raise _RejectionError(Reason.MODALITY_MISSING, "the header has no Modality")
    if modality.upper() != "CT":
        raise _RejectionError(Reason.NOT_CT, f"modality {facts['modality'] or 'unknown'}")
    _check_class(dataset)
    if not has_pixels:
        raise _RejectionError(Reason.NO_PIXEL_DATA, "the object has no PixelData")
    _check_image(dataset)
    if not syntax.is_transfer_syntax:
        raise _RejectionError(
            Reason.TRANSFER_SYNTAX_UNSUPPORTED, "the transfer syntax is not known"
        )
    if encapsulated is not None and encapsulated != syntax.is_encapsulated:
        stored = "encapsulated" if encapsulated else "native"
        raise _RejectionError(
            Reason.TRANSFER_SYNTAX_MISMATCH,
            f"declared {syntax.name}, but the pixels are {stored}",
        )


def _image_types(dataset: Dataset) -> set[str]:
    value = dataset.get("ImageType") or ()
    types = [value] if isinstance(value, str) else list(value)
    return {str(t).strip().upper() for t in types}


def _check_class(dataset: Dataset) -> None:
    sop_class = _text(dataset, "SOPClassUID")
    if sop_class.startswith(_SECONDARY_CAPTURE):
        raise _RejectionError(Reason.SECONDARY_CAPTURE, "SOP class of secondary captures")
    if _image_types(dataset) & _CAPTURE:
        raise _RejectionError(Reason.SECONDARY_CAPTURE, "ImageType of a screen capture")
    if sop_class and sop_class not in _CT_CLASSES:
        name = UID(sop_class).name if UID(sop_class).is_valid else "not valid"
        has_rows = "Rows" in dataset
        raise _RejectionError(
            Reason.NOT_CT if has_rows else Reason.NO_PIXEL_DATA,
            f"SOP class {name if name != sop_class else 'unknown'} under modality CT",
        )


def _check_image(dataset: Dataset) -> None:
    types = _image_types(dataset)
    if any(t in _LOCALIZER for t in types):
        raise _RejectionError(Reason.LOCALIZER, "ImageType names a localizer")
    samples, photometric = (
        dataset.get("SamplesPerPixel", 1),
        _text(dataset, "PhotometricInterpretation"),
    )
    if samples != 1 or photometric not in ("MONOCHROME2", "MONOCHROME1", ""):
        raise _RejectionError(
            Reason.UNSUPPORTED_COLOR,
            f"{samples} samples a pixel, {_code(photometric) or 'unknown'}",
        )


def _geometry(dataset: Dataset) -> dict[str, Any]:
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise _RejectionError(
            Reason.HEADER_UNREADABLE, "Rows or Columns is missing or 0", alone=True
        )
    planes = frame_planes(dataset)
    first = planes[0]
    spacings = {p.spacing_yx_mm for p in planes}
    directions = {p.direction for p in planes}
    if len(spacings) > 1 or len(directions) > 1:
        raise _RejectionError(
            Reason.SHAPE_MISMATCH,
            f"one object holds frames of {len(directions)} orientations, {len(spacings)} spacings",
            alone=True,
        )
    phases = {p.temporal for p in planes}
    if len(phases) > 1 and len({p.position_lps_mm for p in planes}) < len(planes):
        raise _RejectionError(
            Reason.SHAPE_MISMATCH, f"one object holds {len(phases)} volumes", alone=True
        )
    facts: dict[str, Any] = {
        "shape_zyx": (len(planes), int(rows), int(columns)),
        "spacing_zyx_mm": (frame_distance_mm(planes), *first.spacing_yx_mm),
        "position_lps_mm": first.position_lps_mm,
        "direction": first.direction,
    }
    if first.thickness_mm is not None:
        facts["thickness_mm"] = first.thickness_mm
    return facts
