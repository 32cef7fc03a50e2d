"""JPEG and PNG pictures of single slices, for datasets that have lost everything else.

In: the first bytes, or the whole content, of a picture. Out: a Header; a Volume of one slice.
Does not know: other pictures. Neighbouring pictures are not stacked: nothing says how far apart.

Grey becomes HU as if the picture showed the soft tissue window: the darkest value of the format is
its lower end, the brightest its upper end (8 bits: 0 -> -160 HU, 255 -> 240 HU). These numbers
only put the picture into the range that networks see; NO_HU says that they mean nothing. The grid
is 1 mm, first row in front, first column at the patient's right; NO_GEOMETRY says the same of it.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.headers import Header, HeadFile, other
from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Geometry
from raypipe.knowledge.windows import SOFT_TISSUE
from raypipe.types import Flag, Volume

_FORMATS = ("JPEG", "PNG")
_GREY_TOLERANCE = 8
"""How far the channels of a grey JPEG may drift apart by the loss of its colour planes."""


def image_header(file: HeadFile) -> Header:
    """The Header of a picture."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=_FORMATS) as picture:  # type: ignore[arg-type]
            width, height = picture.size
            kind, frames = str(picture.format).lower(), getattr(picture, "n_frames", 1)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError):
        return other(Reason.HEADER_UNREADABLE, "damaged header of a picture")
    if kind == "mpo":
        kind, frames = "jpeg", 1
    if frames > 1:
        return other(Reason.SHAPE_MISMATCH, f"one picture holds {frames} frames")
    return Header(kind="image", transfer_syntax=kind, shape_zyx=(1, height, width))


def read_image(content: bytes, *, max_voxels: int) -> Volume:
    """Decode a picture into one slice.

    Raises:
        SeriesError: TOO_LARGE, UNSUPPORTED_COLOR or PIXELS_UNREADABLE.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            if picture.width * picture.height > max_voxels:
                raise SeriesError(
                    Reason.TOO_LARGE, f"{picture.width * picture.height} pixels, limit {max_voxels}"
                )
            grey, brightest = _grey(picture)
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise SeriesError(Reason.PIXELS_UNREADABLE, "the picture is damaged") from error
    low, high = SOFT_TISSUE.low_hu, SOFT_TISSUE.high_hu
    hu = np.rint(low + grey.astype(np.float64) * ((high - low) / brightest)).astype(np.int16)
    geometry = Geometry(shape_zyx=(1, *hu.shape), affine_zyx_to_lps=_PICTURE_TO_LPS)
    flags = (Flag.NO_GEOMETRY, Flag.NO_HU, Flag.SINGLE_SLICE)
    return Volume(hu=hu[np.newaxis], geometry=geometry, flags=flags)


_PICTURE_TO_LPS = np.eye(4)[[2, 1, 0, 3]]


def _grey(picture: Any) -> tuple[NDArray[Any], int]:
    """Grey values (y, x) and the brightest value of the format."""
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L")), 255
    if picture.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        grey = np.asarray(picture)
        return grey, 65535 if picture.mode != "F" else 255
    if picture.mode == "LA":
        return np.asarray(picture)[..., 0], 255
    if picture.mode not in ("RGB", "RGBA", "P", "PA", "RGBX"):
        raise SeriesError(Reason.UNSUPPORTED_COLOR, f"colour space {picture.mode}")
    channels = np.asarray(picture.convert("RGB")).astype(np.int16)
    spread = channels.max(axis=2) - channels.min(axis=2)
    if np.percentile(spread, 99.5) > _GREY_TOLERANCE:
        raise SeriesError(Reason.UNSUPPORTED_COLOR, "the channels of the picture differ")
    return channels.mean(axis=2), 255
