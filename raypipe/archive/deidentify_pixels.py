"""Whether the pixels of an object may show text, such as the name of a patient.

In: a DICOM header. Out: the reason for the suspicion, or None.
Does not know: the pixels themselves.
"""

from pydicom.dataset import Dataset

_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_TEXT_MODALITIES = frozenset({"US", "IVUS", "BDUS", "ES", "GM", "XC", "OT", "DOC", "SC"})
_TEXT_IMAGES = ("SCREEN SAVE", "DOSE", "REPORT")


def burned_in_risk(dataset: Dataset) -> str | None:
    """Why the pixels of an object may show text, None where nothing speaks for it."""
    declared = str(dataset.get("BurnedInAnnotation") or "").strip().upper()
    if declared == "YES":
        return "BurnedInAnnotation is YES"
    if declared == "NO":
        return None
    sop_class = str(dataset.get("SOPClassUID") or "")
    if sop_class == _SECONDARY_CAPTURE or sop_class.startswith(f"{_SECONDARY_CAPTURE}."):
        return "a secondary capture"
    modality = str(dataset.get("Modality") or "").strip().upper()
    if modality in _TEXT_MODALITIES:
        return f"modality {modality}"
    kinds = dataset.get("ImageType") or ()
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if any(word in str(kind).upper() for kind in kinds for word in _TEXT_IMAGES):
        return "ImageType names a screen or a report"
    return None
