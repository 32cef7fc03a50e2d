"""The header of one DICOM object: the facts for grouping, or why it is not a CT image.

In: a file at its beginning. Out: a Header. Elements are skipped, not read, unless listed below.
Does not know: other objects of the series, pixels.
"""

import io
import struct
from typing import Any

from pydantic import SecretStr
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID

from raypipe.archive.anatomy import body_part
from raypipe.archive.ct_checks import RejectionError, check_ct_image
from raypipe.archive.deflated import DEFLATED, HEADER_BYTES, inflated, is_deflated
from raypipe.archive.elements import (
    declared_syntax,
    found_encoding,
    modality_of,
    number_of,
    parse,
    syntax_of,
    text_of,
    vendor_of,
)
from raypipe.archive.headers import FIRST_BYTES, Header, HeadFile, other
from raypipe.archive.identity import keyed_hash
from raypipe.archive.planes import frame_distance_mm, frame_planes
from raypipe.archive.trim import trim
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
_NO_AGENT = {"NONE", "NO", "N", "0", "NATIVE", "WITHOUT"}
_PIXELS = ((0x7FE0, 0x0010), (0x7FE0, 0x0008), (0x7FE0, 0x0009))


def read_dicom_header(file: HeadFile, size: int, key: SecretStr) -> Header:
    """Facts of one DICOM object; whatever is wrong with it becomes a reason, never an error.

    Raises:
        SeriesError: the bytes could not be fetched.
    """
    try:
        dataset = _parse(file)
    except SeriesError as error:
        if error.reason is Reason.HEADER_UNREADABLE:
            return other(error.reason, error.message)
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
    has_pixels, encapsulated = _pixel_element(file, size, dataset)
    try:
        check_ct_image(dataset, has_pixels=has_pixels, encapsulated=encapsulated)
        facts.update(_geometry(dataset))
    except SeriesError as error:
        facts.update(reason=error.reason.value, message=error.message)
    except RejectionError as rejection:
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


def _parse(file: HeadFile) -> FileDataset:
    """The header; the file then stands at the pixel element, or at the end."""
    for size in (FIRST_BYTES, 8 * FIRST_BYTES):
        first = file.read(size)
        file.seek(0)
        if is_deflated(first):
            dataset = parse(io.BytesIO(inflated(file.read(HEADER_BYTES), HEADER_BYTES)), _KEYWORDS)
            dataset.file_meta.TransferSyntaxUID = UID(DEFLATED)
            return dataset
        trimmed = trim(first, _KEYWORDS)
        if trimmed is not None:
            dataset = parse(io.BytesIO(trimmed.header), _KEYWORDS)
            file.seek(trimmed.pixels_at)
            return dataset
        if len(first) < size or first[128:132] != b"DICM":
            break  # a longer beginning would tell no more
    return parse(file, _KEYWORDS)


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


def _identity(dataset: FileDataset, key: SecretStr) -> dict[str, Any]:
    def hashed(keyword: str) -> str:
        text = text_of(dataset, keyword)
        return keyed_hash(text, key) if text else ""

    codes = [str(item.get("CodeValue", "")) for item in dataset.get("AnatomicRegionSequence") or ()]
    return {
        "study": hashed("StudyInstanceUID"),
        "series": hashed("SeriesInstanceUID"),
        "frame_of_reference": hashed("FrameOfReferenceUID"),
        "concatenation": hashed("ConcatenationUID"),
        "instance_uid": text_of(dataset, "SOPInstanceUID"),
        "modality": modality_of(text_of(dataset, "Modality")),
        "manufacturer": vendor_of(text_of(dataset, "Manufacturer")),
        "transfer_syntax": syntax_of(dataset),
        "thickness_mm": _positive(number_of(dataset, "SliceThickness")),
        "kvp": _positive(number_of(dataset, "KVP")),
        "contrast": _contrast(dataset),
        "body_part": body_part(text_of(dataset, "BodyPartExamined"), codes),
        "kernel": _hidden(text_of(dataset, "ConvolutionKernel"), key),
        "discriminators": _discriminators(dataset, key),
        "instance_number": int(number_of(dataset, "InstanceNumber") or 0),
    }


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _contrast(dataset: Dataset) -> bool | None:
    """Whether an agent is recorded; the text itself is free and never kept."""
    if dataset.get("ContrastBolusAgentSequence"):
        return True
    agent = text_of(dataset, "ContrastBolusAgent").upper()
    if not agent:
        return None  # the element is often empty where contrast was given
    return agent not in _NO_AGENT


def _discriminators(dataset: Dataset, key: SecretStr) -> tuple[str, ...]:
    """Facts that differ between volumes under one UID, most telling first; see `split`."""
    temporal = f"{dataset.get('TemporalPositionIndex')} {dataset.get('TemporalPositionIdentifier')}"
    cardiac = f"{dataset.get('NominalPercentageOfCardiacPhase')} {dataset.get('TriggerTime')}"
    event = f"{text_of(dataset, 'AcquisitionUID')} {text_of(dataset, 'IrradiationEventUID')}"
    facts = (
        temporal,
        cardiac,
        text_of(dataset, "AcquisitionNumber"),
        event,
        text_of(dataset, "EchoNumbers"),
        text_of(dataset, "ConvolutionKernel") + text_of(dataset, "FilterType"),
        text_of(dataset, "ImageType"),
        text_of(dataset, "KVP"),
        text_of(dataset, "SeriesNumber"),
        text_of(dataset, "ReconstructionDiameter"),
        text_of(dataset, "SliceThickness"),
        text_of(dataset, "FrameOfReferenceUID"),
        text_of(dataset, "AcquisitionTime"),
        text_of(dataset, "ContentTime"),
    )
    return tuple(_hidden(fact, key) for fact in facts)


def _hidden(fact: str, key: SecretStr) -> str:
    """What is the same where a fact is the same, and tells nothing of it."""
    return keyed_hash(fact, key)[:8] if fact.strip() else ""


def _geometry(dataset: Dataset) -> dict[str, Any]:
    rows, columns = dataset.get("Rows"), dataset.get("Columns")
    if not rows or not columns:
        raise RejectionError(
            Reason.HEADER_UNREADABLE, "Rows or Columns is missing or 0", alone=True
        )
    planes = frame_planes(dataset)
    first = planes[0]
    spacings = {p.spacing_yx_mm for p in planes}
    directions = {p.direction for p in planes}
    if len(spacings) > 1 or len(directions) > 1:
        raise RejectionError(
            Reason.SHAPE_MISMATCH,
            f"one object holds frames of {len(directions)} orientations, {len(spacings)} spacings",
            alone=True,
        )
    phases = {p.temporal for p in planes}
    if len(phases) > 1 and len({p.position_lps_mm for p in planes}) < len(planes):
        raise RejectionError(
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
