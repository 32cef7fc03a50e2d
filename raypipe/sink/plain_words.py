"""Slugs in plain words, for pages that people read.

In: a flag, a reason, a key. Out: a short sentence or name.
Does not know: pages.
"""

from raypipe.errors import Reason
from raypipe.types import Flag

FLAG_WORDS: dict[str, str] = {
    Flag.GANTRY_TILT: "The gantry was tilted; the slices were resampled onto a straight grid.",
    Flag.UNEVEN_SPACING: "Distances between slices differ; the series was resampled evenly.",
    Flag.OVERLAPPING_SLICES: "Slices are thicker than their spacing, so they overlap.",
    Flag.SLICE_GAPS: "Slices are missing; what lies there was interpolated.",
    Flag.DUPLICATE_SLICES: "Several slices lie at one position; one of each was kept.",
    Flag.RESAMPLED: "The voxel grid is not the stored one: the series was resampled.",
    Flag.SPLIT_SERIES: "One series UID held several volumes; they were told apart.",
    Flag.SERIES_UID_MISSING: "The series UID is empty; its slices were grouped by other means.",
    Flag.SINGLE_SLICE: "There is a single slice only; sizes across it are not known.",
    Flag.NO_GEOMETRY: "A plain picture: size and position in the patient are not known.",
    Flag.NO_HU: "Grey values without a scale: densities are not meaningful.",
    Flag.HU_ALREADY_RESCALED: "The pixels held HU already; the stored intercept was left out.",
    Flag.PADDING: "Padding outside the field of view was replaced by air.",
    Flag.HU_CLIPPED: "Values outside the plausible range were clipped.",
    Flag.SFORM_QFORM_DIFFER: "The two orientations in the NIfTI header differ; one was chosen.",
}

REASON_WORDS: dict[str, str] = {
    Reason.DECODER_CRASHED: "Decoding crashed; running again may help.",
    Reason.DECODER_TIMEOUT: "Decoding took too long and was cut off.",
    Reason.DECODER_MEMORY: "Decoding took too much memory and was cut off.",
    Reason.SOURCE_CHANGED: "The source was changed after it was indexed; index it again.",
    Reason.QUARANTINED: "Its worker died again and again; it was set aside.",
    Reason.NOT_AN_IMAGE: "The object holds no image.",
    Reason.NOT_CT: "The series is not CT.",
    Reason.MODALITY_MISSING: "The header does not say which modality it is.",
    Reason.LOCALIZER: "This is a localizer (scout view), not a CT volume.",
    Reason.SECONDARY_CAPTURE: "This is a secondary capture, a picture of a screen.",
    Reason.NO_PIXEL_DATA: "The object has no pixel data.",
    Reason.UNSUPPORTED_COLOR: "The picture is in colour.",
    Reason.ARCHIVE_MEMBER_UNREADABLE: "A member of the packed archive could not be read.",
    Reason.HEADER_UNREADABLE: "The header could not be read.",
    Reason.GEOMETRY_MISSING: "Position or orientation of the slices is missing.",
    Reason.GEOMETRY_INVALID: "Position or orientation of the slices makes no sense.",
    Reason.SLICE_GAP: "Too many slices are missing.",
    Reason.DUPLICATE_SLICE: "Different slices claim the same position.",
    Reason.SHAPE_MISMATCH: "Slices of one series differ in size or orientation.",
    Reason.TOO_LARGE: "The series is larger than allowed.",
    Reason.TRANSFER_SYNTAX_MISMATCH: "The pixels are not encoded the way the header says.",
    Reason.TRANSFER_SYNTAX_UNSUPPORTED: "No decoder knows this transfer syntax.",
    Reason.PIXELS_UNREADABLE: "The pixels are damaged or cut off.",
    Reason.HU_IMPLAUSIBLE: "The values cannot be Hounsfield units of a patient.",
    Reason.LABEL_MAP: "This is a map of labels, not a CT.",
    Reason.SOURCE_MISSING: "The file is not where the index found it.",
    Reason.SOURCE_UNREADABLE: "The storage could not be read; running again may help.",
    Reason.ENGINE_FAILED: "The language model failed; running again may help.",
    Reason.INTERNAL_ERROR: "An unexpected error; running again may help.",
}


def flag_words(flag: str) -> str:
    """A flag as a sentence; the flag itself where it is unknown."""
    return FLAG_WORDS.get(flag, spaced(flag).capitalize() + ".")


def reason_words(reason: str | None) -> str:
    """A reason as a sentence; "" where there is none."""
    if not reason:
        return ""
    return REASON_WORDS.get(reason, spaced(reason).capitalize() + ".")


def spaced(slug: str) -> str:
    """A slug with blanks for underscores."""
    return slug.replace("_", " ")
