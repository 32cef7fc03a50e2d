"""From stored pixel values to Hounsfield units.

In: frames of stored integers and the elements that say what they mean. Out: int16 HU.
Does not know: transfer syntaxes, geometry, other slices.

Pixel padding becomes AIR_HU. Where the padding value means air or less (nearly always) every such
pixel does; where it would mean tissue, only the region that touches the border does, because
headers with a wrong padding value are common and water inside a patient must stay water.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from raypipe.errors import Reason, SeriesError
from raypipe.types import Flag, HuArray

AIR_HU = -1024
"""What padding becomes: the lowest value of common 12-bit CT, at or below air."""

_NOT_HU = frozenset({"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"})
"""DICOM's terms of RescaleType for optical density, iodine maps, effective atomic number and the
like; "HU_MOD", "US" and words of a vendor's own may well be HU."""
_SURE_AIR_HU = -900.0
_OFFSET_FROM = -500.0
"""An intercept below this shifts air to 0, so that HU stored already show as far too low."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How stored values of one frame become HU.

    Args:
        slope: HU per stored value.
        intercept: HU of the stored value 0.
        signed: PixelRepresentation.
        allocated: bits of a stored pixel.
        stored: bits that count.
        high_bit: number of the highest bit that counts.
        padding: lowest and highest stored value that is padding, None without.
        lut: the header with a ModalityLUTSequence that takes the place of slope and intercept.
    """

    slope: float
    intercept: float
    signed: bool
    allocated: int
    stored: int
    high_bit: int
    padding: tuple[int, int] | None = None
    lut: Dataset | None = None

    @property
    def has_dirty_bits(self) -> bool:
        """Whether bits of a stored pixel do not count."""
        return self.stored < self.allocated


def scale_of(header: Dataset, transformation: Dataset | None = None) -> Scale:
    """The Scale of a header, or of one frame's own PixelValueTransformation.

    Raises:
        SeriesError: HEADER_UNREADABLE, HU_IMPLAUSIBLE.
    """
    source = transformation if transformation is not None else header
    try:
        allocated = int(header.BitsAllocated)
        stored = int(header.get("BitsStored") or allocated)
        high_bit = header.get("HighBit")
        high_bit = stored - 1 if high_bit is None else int(high_bit)
        signed = bool(int(header.PixelRepresentation))
        kind = str(source.get("RescaleType") or "").strip().upper()
        slope = _float(source.get("RescaleSlope"), 1.0)
        intercept = _float(source.get("RescaleIntercept"), 0.0)
    except (AttributeError, TypeError, ValueError) as error:
        raise SeriesError(Reason.HEADER_UNREADABLE, "bits or rescaling of the pixels") from error
    if not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise SeriesError(
            Reason.HEADER_UNREADABLE, f"{stored} bits below bit {high_bit} of {allocated}"
        )
    if kind in _NOT_HU:
        raise SeriesError(Reason.HU_IMPLAUSIBLE, f"RescaleType {kind}: no Hounsfield units")
    if slope == 0.0 or not np.isfinite((slope, intercept)).all():
        raise SeriesError(Reason.HEADER_UNREADABLE, f"RescaleSlope {slope}")
    return Scale(
        slope=slope,
        intercept=intercept,
        signed=signed,
        allocated=allocated,
        stored=stored,
        high_bit=high_bit,
        padding=_padding(header, signed, allocated),
        lut=header if header.get("ModalityLUTSequence") else None,
    )


def _float(value: Any, default: float) -> float:
    return default if value is None or value == "" else float(value)


def _padding(header: Dataset, signed: bool, allocated: int) -> tuple[int, int] | None:
    """Padding range in stored values: 63536 means -2000 where pixels are signed, as GE writes."""
    ends = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = header.get(keyword)
        if isinstance(value, bytes):  # read as UN
            value = int.from_bytes(value[:2], "little")
        if value is None or value == "":
            continue
        number = int(value) & ((1 << allocated) - 1)
        if signed and number >= 1 << (allocated - 1):
            number -= 1 << allocated
        ends.append(number)
    if not ends or header.get("PixelPaddingValue") in (None, ""):
        return None
    return min(ends), max(ends)


def clean_bits(raw: NDArray[Any], scale: Scale) -> NDArray[Any]:
    """Stored values without the bits that do not count, sign-extended where signed."""
    if not scale.has_dirty_bits:
        return raw
    mask = (1 << scale.stored) - 1
    shift = scale.high_bit + 1 - scale.stored
    low, high = (-(1 << (scale.stored - 1)), mask >> 1) if scale.signed else (0, mask)
    if shift == 0 and raw.min() >= low and raw.max() <= high:
        return raw  # clean already, which nearly all are
    bits = (raw.astype(np.int64) >> shift) & mask
    if scale.signed:
        sign = 1 << (scale.stored - 1)
        bits = (bits ^ sign) - sign
    return bits.astype(np.int32)


def to_hu(raw: NDArray[Any], scale: Scale, out: HuArray) -> set[Flag]:
    """Write HU of one frame (y, x) into `out`; returns what was noticed.

    Args:
        raw: stored values as they were decoded.
        scale: what they mean.
        out: int16 (y, x), written.
    """
    flags: set[Flag] = set()
    padded = _padded(raw, scale)
    values = clean_bits(raw, scale)
    if values is not raw and scale.padding is not None and padded is None:
        padded = _padded(values, scale)
    if _rescale(values, scale, out):
        flags.add(Flag.HU_CLIPPED)
    if padded is not None:
        if not _means_air(scale):
            padded = _at_border(padded)
        if padded.any():
            np.copyto(out, AIR_HU, where=padded)
            flags.add(Flag.PADDING)
    return flags


def _padded(raw: NDArray[Any], scale: Scale) -> NDArray[np.bool_] | None:
    """Which pixels are padding, None where none is."""
    if scale.padding is None:
        return None
    low, high = scale.padding
    padded: NDArray[np.bool_] = raw == low if low == high else (raw >= low) & (raw <= high)
    return padded if padded.any() else None


def _means_air(scale: Scale) -> bool:
    assert scale.padding is not None, "asked of a scale with padding"
    return scale.lut is None and (
        max(v * scale.slope + scale.intercept for v in scale.padding) <= _SURE_AIR_HU
    )


def _at_border(padded: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    regions, count = ndimage.label(padded)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    keep = np.zeros(count + 1, dtype=bool)
    keep[np.unique(edge)] = True
    keep[0] = False
    touching: NDArray[np.bool_] = keep[regions]
    return touching


def _rescale(values: NDArray[Any], scale: Scale, out: HuArray) -> bool:
    """Apply slope and intercept, or the lookup table; returns whether something was clipped."""
    if scale.lut is not None:
        return _write(_looked_up(values, scale.lut), out)
    slope, intercept = scale.slope, scale.intercept
    if slope == 1.0 and intercept.is_integer() and values.dtype.itemsize == 2:
        low, high = int(values.min()) + intercept, int(values.max()) + intercept
        if low >= -32768 and high <= 32767:
            native = values.astype(values.dtype.newbyteorder("="), copy=False)
            # The sum fits, so that two's complement gives it for unsigned values as well.
            np.add(native.view(np.int16), np.int64(intercept).astype(np.int16), out=out)
            return False
    hu = values.astype(np.float64)
    hu *= slope
    hu += intercept
    return _write(np.rint(hu, out=hu), out)


def _write(hu: NDArray[Any], out: HuArray) -> bool:
    clipped = bool(hu.min() < -32768 or hu.max() > 32767)
    out[...] = np.clip(hu, -32768, 32767) if clipped else hu
    return clipped


def _looked_up(values: NDArray[Any], header: Dataset) -> NDArray[Any]:
    from pydicom.pixels.processing import apply_modality_lut

    try:
        looked_up: NDArray[Any] = apply_modality_lut(values, header)
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise SeriesError(Reason.HEADER_UNREADABLE, "damaged ModalityLUTSequence") from error
    return looked_up


def is_already_hu(samples: Sequence[NDArray[Any]], scale: Scale) -> bool:
    """Whether stored values are HU before the intercept is applied, so that it must not be.

    The fault of converters that rescale pixels and leave RescaleIntercept in the header. Two signs
    together: tissue lies where HU of tissue are when the intercept is left out, and applying it
    gives many different values far below air, which no scanner does (padding is a single value).

    Args:
        samples: stored values of some slices, bits cleaned.
        scale: of these slices.
    """
    if not scale.signed or scale.lut is not None or scale.slope != 1.0:
        return False
    if scale.intercept > _OFFSET_FROM:
        return False
    stored = np.concatenate([s.ravel()[::7] for s in samples]).astype(np.int32)
    if scale.padding is not None:
        stored = stored[(stored < scale.padding[0]) | (stored > scale.padding[1])]
    if not stored.size:
        return False
    hu = stored + int(scale.intercept)
    below = hu[hu < -1200]
    if below.size < 0.0005 * stored.size:
        return False
    values, counts = np.unique(below, return_counts=True)
    varied = below.size - int(counts.max())
    tissue_without = np.count_nonzero(np.abs(stored) <= 200)
    tissue_with = np.count_nonzero(np.abs(hu) <= 200)
    return bool(
        values.size > 8 and varied >= 0.0005 * stored.size and tissue_without > 2 * tissue_with
    )
