"""What is wrong with a volume: how its slices lie, and whether its values can be CT.

In: positions along the normal; HU. Out: measurements; SeriesError where a volume cannot be CT.
Does not know: how faults are repaired, file formats.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import Reason, SeriesError
from raypipe.types import HuArray

_RUN = 2
"""So many equal wide gaps in a row were planned; fewer are missing slices."""
_WIDE = 1.5
_COMMON_SHARE = 0.1
_SAMPLE_VOXELS = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Spacing:
    """How the slices of a stack follow each other.

    Args:
        base_mm: finest distance that at least a tenth of the neighbours have.
        even: whether all slices lie within the tolerance of a regular grid.
        missing: how many slices are missing in gaps that were not planned.
        widest_mm: the widest distance between neighbours.
    """

    base_mm: float
    even: bool
    missing: int
    widest_mm: float


def measure_spacing(along_mm: NDArray[np.float64], tolerance_mm: float) -> Spacing:
    """Measure positions (n,) along the normal, ascending, no two the same, at least two.

    Args:
        along_mm: in mm.
        tolerance_mm: how far a slice may lie from a regular grid.
    """
    gaps = np.diff(along_mm)
    regular = np.linspace(along_mm[0], along_mm[-1], len(along_mm))
    even = bool(np.abs(along_mm - regular).max() <= tolerance_mm)
    if even:
        base = float((along_mm[-1] - along_mm[0]) / (len(along_mm) - 1))
        return Spacing(base_mm=base, even=True, missing=0, widest_mm=float(gaps.max()))
    base = _base_mm(gaps, tolerance_mm)
    wide = gaps > _WIDE * base
    missing = 0
    for i in np.flatnonzero(wide):
        same = np.abs(gaps - gaps[i]) <= max(tolerance_mm, 0.05 * gaps[i])
        if _run_length(same, int(i)) < _RUN:
            missing += max(1, round(float(gaps[i]) / base) - 1)
    return Spacing(base_mm=base, even=False, missing=missing, widest_mm=float(gaps.max()))


def _base_mm(gaps: NDArray[np.float64], tolerance_mm: float) -> float:
    ordered = np.sort(gaps)
    for gap in ordered:
        near = ordered[np.abs(ordered - gap) <= max(tolerance_mm, 0.05 * gap)]
        if len(near) >= max(_COMMON_SHARE * len(gaps), 1) and (len(near) > 1 or len(gaps) < 4):
            return float(np.median(near))
    return float(np.median(gaps))


def _run_length(same: NDArray[np.bool_], i: int) -> int:
    low = high = i
    while low > 0 and same[low - 1]:
        low -= 1
    while high + 1 < len(same) and same[high + 1]:
        high += 1
    return high - low + 1


def check_ct_values(
    hu: HuArray, *, min_range_hu: float, min_soft_share: float, min_negative_share: float
) -> None:
    """Refuse what cannot be CT in HU. Heads, phantoms, small fields of view and metal pass.

    Args:
        hu: (z, y, x).
        min_range_hu: between the 0.1 and 99.9 percentile; air and tissue are hundreds apart.
        min_soft_share: share of voxels from -300 to 300 HU.
        min_negative_share: share of voxels below 0 HU; every CT holds air, fat or noise.

    Raises:
        SeriesError: LABEL_MAP or HU_IMPLAUSIBLE.
    """
    sample = _sample(hu)
    lowest, highest = int(sample.min()), int(sample.max())
    if lowest >= 0 and lowest != highest and _is_label_map(hu, sample):
        kinds = len(np.unique(sample))
        raise SeriesError(
            Reason.LABEL_MAP, f"{kinds} different values from {lowest} to {highest} in flat regions"
        )
    if highest - lowest < 10 * min_range_hu:  # beyond that even a flat picture has metal in it
        low, high = _percentiles(sample, lowest, (0.1, 99.9))
        if high - low < min_range_hu:
            raise SeriesError(
                Reason.HU_IMPLAUSIBLE,
                f"values span {high - low}, at least min_range_hu {min_range_hu:g} are expected",
            )
    negative = np.count_nonzero(sample < 0) / sample.size
    if negative < min_negative_share:
        raise SeriesError(
            Reason.HU_IMPLAUSIBLE,
            f"a share of {negative:.6f} lies below 0 HU, min_negative_share is "
            f"{min_negative_share:g}; the values have no HU scale",
        )
    soft = np.count_nonzero((sample > -300) & (sample < 300)) / sample.size
    if soft < min_soft_share:
        raise SeriesError(
            Reason.HU_IMPLAUSIBLE,
            f"a share of {soft:.6f} lies from -300 to 300 HU, min_soft_share is {min_soft_share:g}",
        )


def _sample(hu: HuArray) -> HuArray:
    """Whole slices spread over the volume, so that neighbours stay neighbours."""
    per_slice = hu.shape[1] * hu.shape[2]
    step = max(1, -(-hu.size // max(_SAMPLE_VOXELS, per_slice)))
    return hu[step // 2 :: step]


def _percentiles(sample: HuArray, lowest: int, percents: tuple[float, ...]) -> list[int]:
    """The values below which these shares lie; counting integers is far cheaper than sorting."""
    counted = sample.astype(np.int64).ravel()
    counted -= lowest
    up_to = np.cumsum(np.bincount(counted))
    places = [percent / 100.0 * sample.size for percent in percents]
    return [lowest + int(i) for i in np.searchsorted(up_to, places)]


def _is_label_map(hu: HuArray, sample: HuArray) -> bool:
    """Few values in flat regions: in CT, noise makes neighbours differ."""
    if len(np.unique(sample)) > 512:
        return False
    tissue = sample[:, :, 1:] != 0
    if not tissue.any():
        return True
    same = sample[:, :, 1:] == sample[:, :, :-1]
    # The background is flat in a masked picture as well, so only what is not background counts.
    return float(np.count_nonzero(same & tissue) / np.count_nonzero(tissue)) > 0.5
