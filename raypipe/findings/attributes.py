"""What is measured on a lesion: size, mean HU, side, level, and the vote on its attributes.

In: a box or its detections on the grid of a ModelInput, whose axes run z to the head, y to the
back, x to the patient's left. Out: numbers and words, None where the image does not tell.
Does not know: scores, thresholds, the grid of the Volume.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raypipe.geometry import Box
from raypipe.knowledge.graph import FindingNode
from raypipe.types import Detection, HuArray

BODY_HU = -400
LUNG_HU = (-980, -600)
MIDLINE_SHARE = 0.02
"""A centre within this share of the body's width of the midline counts as on it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Anatomy:
    """What one look at the whole series tells about where things lie.

    Args:
        midline_x: (z,) column of the body's midline a slice; NaN where there is no body.
        width_x: (z,) columns that the body spans.
        lung_z: first slice of lung and one past the last; None where the lungs are cut off.
    """

    midline_x: NDArray[np.float64] = field(repr=False)
    width_x: NDArray[np.float64] = field(repr=False)
    lung_z: tuple[int, int] | None


def measure_anatomy(hu: HuArray) -> Anatomy:
    """Midline and lungs of a series in HU, (z, y, x), z to the head, x to the left."""
    # every second row and column is plenty for a midline and costs a quarter
    body = hu[:, ::2, ::2] > BODY_HU
    columns = body.sum(axis=1)  # (z, x/2)
    # a column belongs to the body where it is thicker than a table top or a line
    thick = columns > max(4, 0.08 * body.shape[1])
    any_body = thick.any(axis=1)
    first = np.argmax(thick, axis=1)
    last = thick.shape[1] - 1 - np.argmax(thick[:, ::-1], axis=1)
    midline = np.where(any_body, (first + last + 1.0) - 0.5, np.nan)
    width = np.where(any_body, 2.0 * (last - first + 1), 0.0)
    return Anatomy(midline_x=midline, width_x=width, lung_z=_lung_extent(hu, body))


def _lung_extent(hu: HuArray, body: NDArray[np.bool_]) -> tuple[int, int] | None:
    """Slices with lung, if both the first and the last lie inside the volume."""
    sparse = hu[:, ::2, ::2]
    lung = (sparse > LUNG_HU[0]) & (sparse < LUNG_HU[1])
    # air is outside the body where a straight way leads from it to an edge of the slice
    clear = ~body
    outside = np.logical_and.accumulate(clear, axis=2)
    outside |= np.logical_and.accumulate(clear[:, :, ::-1], axis=2)[:, :, ::-1]
    outside |= np.logical_and.accumulate(clear, axis=1)
    outside |= np.logical_and.accumulate(clear[:, ::-1], axis=1)[:, ::-1]
    share = (lung & ~outside).sum(axis=(1, 2)) / np.maximum(body.sum(axis=(1, 2)), 1)
    slices = np.flatnonzero(share > 0.03)
    if len(slices) < 6 or slices[0] == 0 or slices[-1] == len(hu) - 1:
        return None
    return int(slices[0]), int(slices[-1]) + 1


def side_of(box_zyx: Box, anatomy: Anatomy) -> str | None:
    """ "left", "right" or "midline" of the patient; None where no body is seen."""
    z0, z1 = int(box_zyx.lower_zyx[0]), max(int(box_zyx.upper_zyx[0]), 1)
    midline = anatomy.midline_x[z0:z1]
    if not np.isfinite(midline).any():
        return None
    away = box_zyx.center_zyx[2] - float(np.nanmedian(midline))
    if abs(away) <= MIDLINE_SHARE * float(anatomy.width_x[z0:z1].max()):
        return "midline"
    return "left" if away > 0 else "right"


def lung_level(box_zyx: Box, anatomy: Anatomy, levels: Sequence[str]) -> str | None:
    """The named level, head first, of equal parts of the lungs; None where they are cut off."""
    if anatomy.lung_z is None or not levels:
        return None
    low, high = anatomy.lung_z
    from_top = (high - 0.5 - box_zyx.center_zyx[0]) / (high - low)
    return levels[int(np.clip(from_top * len(levels), 0, len(levels) - 1))]


def mean_hu(hu: HuArray, box_zyx: Box) -> float:
    """Mean over the box's inner half (each edge halved about the centre), at least one voxel."""
    center = box_zyx.center_zyx
    lower = [c + 0.5 - s / 4.0 for c, s in zip(center, box_zyx.size_zyx, strict=True)]
    upper = [c + 0.5 + s / 4.0 for c, s in zip(center, box_zyx.size_zyx, strict=True)]
    # whole voxels only: those whose centre lies in the inner half, else the nearest one
    slices = []
    for lo, up, n in zip(lower, upper, hu.shape, strict=True):
        first, last = math.ceil(lo - 0.5), math.ceil(up - 0.5)
        if last <= first:
            first = math.floor((lo + up) / 2.0)
            last = first + 1
        first = min(max(first, 0), n - 1)
        slices.append(slice(first, min(max(last, first + 1), n)))
    return float(hu[tuple(slices)].mean())


def vote(detections: Sequence[Detection], node: FindingNode) -> dict[str, str]:
    """Attribute -> the value with the highest sum of scores among those that the graph allows."""
    out: dict[str, str] = {}
    for name, allowed in node.attributes.items():
        sums: dict[str, float] = defaultdict(float)
        for detection in detections:
            value = detection.attributes.get(name)
            if value in allowed:
                sums[str(value)] += detection.score
        if sums:
            out[name] = max(sorted(sums), key=lambda value: sums[value])
    return out
