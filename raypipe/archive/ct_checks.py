"""Whether one DICOM object is a CT image that raypipe works on, judged by its header.

In: a parsed header. Out: nothing, or a RejectionError with the reason.
Does not know: other objects, pixels, whether the image is a good one.
"""

from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from raypipe.archive.elements import (
    declared_syntax,
    found_encoding,
    modality_of,
    photometric_of,
    text_of,
)
from raypipe.errors import Reason

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_CT_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.2.1",
    "1.2.840.10008.5.1.4.1.1.2.2",
)
_LOCALIZER = {"LOCALIZER", "SCOUT", "TOPOGRAM", "SURVIEW", "SCANOGRAM"}
_CAPTURE = {"SCREEN SAVE", "SCREENSAVE", "SCREEN CAPTURE", "SCREENSHOT", "PROTOCOL", "DOSE_INFO"}


class RejectionError(Exception):
    """Ends the reading of a header with a reason."""

    def __init__(self, reason: Reason, message: str, *, alone: bool = False) -> None:
        super().__init__(message)
        self.reason, self.message, self.alone = reason, message, alone


def check_ct_image(dataset: FileDataset, *, has_pixels: bool, encapsulated: bool | None) -> None:
    """Refuse everything but CT images, telling the first fault that explains most.

    Args:
        dataset: the header.
        has_pixels: whether the object has a pixel element with a value.
        encapsulated: whether the pixels are fragments, None where not known.

    Raises:
        RejectionError: TRANSFER_SYNTAX_MISMATCH, TRANSFER_SYNTAX_UNSUPPORTED, MODALITY_MISSING,
            NOT_CT, SECONDARY_CAPTURE, NO_PIXEL_DATA, LOCALIZER or UNSUPPORTED_COLOR.
    """
    code = modality_of(text_of(dataset, "Modality"))
    syntax = declared_syntax(dataset)
    modality = text_of(dataset, "Modality")
    native_little = syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
    misnamed = native_little and found_encoding(dataset)[0] != (syntax == ImplicitVRLittleEndian)
    # Implicit bytes named explicit (or the reverse) hold the same pixels, so a CT is read all the
    # same; of anything else the fault is told, because it says more than "not CT".
    if misnamed and modality != "CT":
        raise RejectionError(
            Reason.TRANSFER_SYNTAX_MISMATCH,
            f"declared {syntax.name}, encoded otherwise; modality {code or 'missing'}",
            alone=True,
        )
    if not modality:
        raise RejectionError(Reason.MODALITY_MISSING, "the header has no Modality")
    if modality.upper() != "CT":
        raise RejectionError(Reason.NOT_CT, f"modality {code or 'unknown'}")
    _check_class(dataset)
    if not has_pixels:
        raise RejectionError(Reason.NO_PIXEL_DATA, "the object has no PixelData")
    _check_image(dataset)
    if not syntax.is_transfer_syntax:
        raise RejectionError(Reason.TRANSFER_SYNTAX_UNSUPPORTED, "the transfer syntax is not known")
    if encapsulated is not None and encapsulated != syntax.is_encapsulated:
        stored = "encapsulated" if encapsulated else "native"
        raise RejectionError(
            Reason.TRANSFER_SYNTAX_MISMATCH,
            f"declared {syntax.name}, but the pixels are {stored}",
        )


def _image_types(dataset: Dataset) -> set[str]:
    value = dataset.get("ImageType") or ()
    types = [value] if isinstance(value, str) else list(value)
    return {str(t).strip().upper() for t in types}


def _check_class(dataset: Dataset) -> None:
    sop_class = text_of(dataset, "SOPClassUID")
    if sop_class.startswith(_SECONDARY_CAPTURE):
        raise RejectionError(Reason.SECONDARY_CAPTURE, "SOP class of secondary captures")
    if _image_types(dataset) & _CAPTURE:
        raise RejectionError(Reason.SECONDARY_CAPTURE, "ImageType of a screen capture")
    if sop_class and sop_class not in _CT_CLASSES:
        name = UID(sop_class).name if UID(sop_class).is_valid else "not valid"
        has_rows = "Rows" in dataset
        raise RejectionError(
            Reason.NOT_CT if has_rows else Reason.NO_PIXEL_DATA,
            f"SOP class {name if name != sop_class else 'unknown'} under modality CT",
        )


def _check_image(dataset: Dataset) -> None:
    types = _image_types(dataset)
    if any(t in _LOCALIZER for t in types):
        raise RejectionError(Reason.LOCALIZER, "ImageType names a localizer")
    samples, photometric = (
        dataset.get("SamplesPerPixel", 1),
        text_of(dataset, "PhotometricInterpretation"),
    )
    if samples != 1 or photometric not in ("MONOCHROME2", "MONOCHROME1", ""):
        raise RejectionError(
            Reason.UNSUPPORTED_COLOR,
            f"{samples} samples a pixel, {photometric_of(photometric) or 'unknown'}",
        )
