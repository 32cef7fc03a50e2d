"""Text of elements that the confidentiality profile does not list, where it may leave an archive.

In: an element. Out: the same, another value, or None where nothing of it may leave.
Does not know: the profile, keys, whose object it is.

The profile keeps what it does not list, trusting that a type is a type and a device a device. Real
archives hold names in any field, so text stays only where it is a term of a closed list.
"""

import re
from collections.abc import Callable
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.multival import MultiValue

from raypipe.archive.anatomy import body_part
from raypipe.archive.elements import modality_of, photometric_of, vendor_of

_FREE = ("AE", "LO", "LT", "SH", "ST", "UC", "UR", "UT")
_REMOVED = "REMOVED"
_CODES = (
    *("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion"),
    *("CodeMeaning", "ContextIdentifier", "MappingResource"),
)
"""Of a code, which stands in a sequence and comes out of a vocabulary."""

_IMAGE_TERMS = (
    "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER VOLUME NONE MIXED RESAMPLED REFORMATTED"
    " PROJECTION IMAGE MPR MIP MAX_IP MIN_IP AVERAGE HELIX STD"
)
_IMAGE_TYPES = frozenset(_IMAGE_TERMS.split())
_POSITIONS = tuple(f"{a}{b}" for a in ("HF", "FF", "LF", "RF", "AF", "PF") for b in "SP") + tuple(
    f"{a}D{b}" for a in ("HF", "FF", "LF", "RF", "AF", "PF") for b in "RL"
)
_CHARACTER_SET = re.compile(r"(ISO[_ ]IR \d{1,3}|ISO 2022 IR \d{1,3}|GB18030|GBK)?")


def _one_of(*terms: str) -> Callable[[str], str]:
    return lambda text: text if text in terms else ""


def _character_set(text: str) -> str:
    return text if _CHARACTER_SET.fullmatch(text) else ""


_TERMS: dict[str, Callable[[str], str]] = {
    "Modality": modality_of,
    "PhotometricInterpretation": photometric_of,
    "ImageType": lambda text: text if text in _IMAGE_TYPES else "OTHER",
    "FrameType": lambda text: text if text in _IMAGE_TYPES else "OTHER",
    "SpecificCharacterSet": _character_set,
    "PatientPosition": _one_of(*_POSITIONS),
    "BodyPartExamined": lambda text: text if body_part(text) else "",
    "Laterality": _one_of("L", "R", "U", "B"),
    "ImageLaterality": _one_of("L", "R", "U", "B"),
    "FrameLaterality": _one_of("L", "R", "U", "B"),
    "RescaleType": _one_of("HU", "US", "OD"),
    "LossyImageCompression": _one_of("00", "01"),
    "BurnedInAnnotation": _one_of("YES", "NO"),
    "PixelPresentation": _one_of("MONOCHROME", "COLOR", "MIXED", "TRUE_COLOR"),
    "VolumetricProperties": _one_of("VOLUME", "SAMPLED", "DISTORTED", "MIXED"),
    "VolumeBasedCalculationTechnique": lambda text: text if text in _IMAGE_TYPES else "NONE",
    "Manufacturer": vendor_of,
    # of an enhanced object these have a value, whatever it says
    "ManufacturerModelName": lambda text: _REMOVED,
    "SoftwareVersions": lambda text: _REMOVED,
    "DeviceSerialNumber": lambda text: _REMOVED,
}


def harmless(element: DataElement) -> DataElement | None:
    """An unlisted element as it may leave; None where its text is not one of a closed list."""
    if element.VR not in (*_FREE, "CS") or element.keyword in _CODES or element.is_empty:
        return element
    known = _TERMS.get(element.keyword)
    if known is None:
        return None
    value: Any = element.value
    if isinstance(value, MultiValue):
        value = [known(str(text).strip()) for text in value]
    else:
        value = known(str(value).strip())
    return DataElement(element.tag, element.VR, value) if value else None
