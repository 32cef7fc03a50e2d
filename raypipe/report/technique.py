"""The technique paragraph, made from closed vocabularies and numbers alone.

In: a SeriesContext. Out: a paragraph. Does not know: findings, language models.
"""

from raypipe.types import Flag, SeriesContext

_PARTS = {
    "head": "head",
    "head_neck": "head and neck",
    "neck": "neck",
    "chest": "chest",
    "heart": "heart",
    "chest_abdomen": "chest and abdomen",
    "chest_abdomen_pelvis": "chest, abdomen and pelvis",
    "abdomen": "abdomen",
    "abdomen_pelvis": "abdomen and pelvis",
    "pelvis": "pelvis",
    "spine": "spine",
    "upper_extremity": "upper extremity",
    "lower_extremity": "lower extremity",
}
_REPAIRS = {
    Flag.GANTRY_TILT: "The tilt of the gantry was corrected by resampling.",
    Flag.UNEVEN_SPACING: "Slices at uneven distances were resampled to even ones.",
    Flag.SLICE_GAPS: "Missing slices were interpolated.",
    Flag.DUPLICATE_SLICES: "Slices at the same position were reduced to one.",
    Flag.NO_HU: "Grey values have no Hounsfield scale, so attenuation is not reported.",
}


def technique(context: SeriesContext) -> str:
    """How the series was acquired and what was repaired before it was read."""
    sentences = [_acquisition(context), _slices(context)]
    sentences += [text for flag, text in _REPAIRS.items() if flag in context.flags]
    sentences.append("Read by an automated model.")
    return " ".join(sentences)


def _acquisition(context: SeriesContext) -> str:
    modality = context.modality if context.modality == "CT" else "Tomography"
    if context.body_part == "whole_body":
        text = f"{modality} of the whole body"
    elif context.body_part in _PARTS:
        text = f"{modality} of the {_PARTS[context.body_part]}"
    else:
        text = f"{modality}, body part not recorded"
    if context.contrast is not None:
        text += " with contrast medium" if context.contrast else " without contrast medium"
    return f"{text} at {context.kvp:g} kVp." if context.kvp else f"{text}."


def _slices(context: SeriesContext) -> str:
    count = context.shape_zyx[0]
    if Flag.NO_GEOMETRY in context.flags:
        return f"{_slice_count(count)} without a recorded scale, so sizes are not reported."
    if Flag.SINGLE_SLICE in context.flags or count == 1:
        distances = ""
    else:
        distances = f" {context.spacing_zyx_mm[0]:.3g} mm apart"
    if context.thickness_mm:
        distances += f"{' and' if distances else ''} {context.thickness_mm:.3g} mm thick"
    pixel_y, pixel_x = context.spacing_zyx_mm[1:]
    pixel = f"{pixel_y:.2g}" if abs(pixel_y - pixel_x) < 0.005 else f"{pixel_y:.2g} x {pixel_x:.2g}"
    return f"{_slice_count(count)}{distances}, pixels of {pixel} mm."


def _slice_count(count: int) -> str:
    return "One slice" if count == 1 else f"{count} slices"
