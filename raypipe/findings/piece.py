"""The thing that a track lies on: how far it fills its box, leaves it, and is drawn out.

In: a track, HU, how its best box differs from what surrounds it. Out: one row of numbers.
Does not know: scores, labels, which of the numbers matter.

A nodule is a piece that ends on all sides within little more than its box; a vessel, a rib or a
wall is a part of something that goes on. Seen on one slice both are a spot. So grey values past
half the contrast that hang together are followed through the slices, as far as half a width beyond
the box.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.findings.link import Track
from raypipe.types import HuArray

PIECE = ("filled", "beyond", "sides left", "first axes", "last axes")
"""The columns of `piece_of`: share of the box that the piece fills; share of the piece beyond the
box; share of the six sides of what is looked at that it touches; logarithms of how long its first
axis is for the second, and the second for the third."""

_MARGIN, _LEAST_MARGIN = 0.5, 2.0
"""Of the longer edge; pixels."""
_PIXELS = 24
"""Along the longer edge of what is looked at there are at least so many, and less than twice."""
_LEAST_VARIANCE = 1e-3
NOTHING = (0.0,) * len(PIECE)
"""Where nothing stands out."""


def piece_of(
    track: Track,
    hu_zhw: HuArray,
    level: float,
    contrast: float,
    spacing_zyx_mm: tuple[float, float, float],
) -> tuple[float, ...]:
    """PIECE of what a track lies on; NOTHING where it does not differ from what surrounds it.

    Args:
        track: on the grid of the HU.
        hu_zhw: (slices, rows, columns) HU.
        level, contrast: HU around the track's best box, and of the box above it; 0: not known.
        spacing_zyx_mm: of the grid.
    """
    if contrast == 0.0:
        return NOTHING
    z, y, x = _looked_at(track, hu_zhw.shape, spacing_zyx_mm)
    step = max(1, max(y.stop - y.start, x.stop - x.start) // _PIXELS)
    hu = hu_zhw[z, y.start : y.stop : step, x.start : x.stop : step].astype(np.float32)
    pieces, _ = ndimage.label(np.sign(contrast) * (hu - level) > abs(contrast) / 2.0)
    box = _box_in(track, (z.start, y.start, x.start), step)
    in_box = pieces[box]
    own = np.bincount(in_box.ravel(), minlength=1)
    own[0] = 0
    if not own.any():
        return NOTHING
    piece = pieces == own.argmax()
    held = int(own.max())
    first, second, third = _variances(piece, spacing_zyx_mm, step)
    return (
        held / in_box.size,
        1.0 - held / int(piece.sum()),
        sum(side.any() for side in _sides(piece)) / 6.0,
        math.log(first / second) / 2.0,
        math.log(second / third) / 2.0,
    )


def _looked_at(
    track: Track, shape_zhw: tuple[int, ...], spacing_zyx_mm: tuple[float, float, float]
) -> tuple[slice, slice, slice]:
    """The box and a margin, within the series."""
    (z0, y0, x0), (z1, y1, x1) = track.box_zyx.lower_zyx, track.box_zyx.upper_zyx
    margin = max(_LEAST_MARGIN, _MARGIN * max(y1 - y0, x1 - x0))
    slices = max(1, round(margin * spacing_zyx_mm[2] / spacing_zyx_mm[0]))
    depth, height, width = shape_zhw
    return (
        slice(max(0, int(z0) - slices), min(depth, int(z1) + slices)),
        slice(max(0, int(y0 - margin)), min(height, math.ceil(y1 + margin))),
        slice(max(0, int(x0 - margin)), min(width, math.ceil(x1 + margin))),
    )


def _box_in(track: Track, first_zyx: tuple[int, int, int], step: int) -> tuple[slice, ...]:
    """The track's box among the voxels looked at; at least one row and column of them."""
    z0, z1 = int(track.box_zyx.lower_zyx[0]), int(track.box_zyx.upper_zyx[0])
    out = [slice(z0 - first_zyx[0], z1 - first_zyx[0])]
    for axis in (1, 2):
        lower, upper = track.box_zyx.lower_zyx[axis], track.box_zyx.upper_zyx[axis]
        start = max(0, int((lower - first_zyx[axis]) // step))
        out.append(slice(start, max(start + 1, math.ceil((upper - first_zyx[axis]) / step))))
    return tuple(out)


def _variances(
    piece: NDArray[np.bool_], spacing_zyx_mm: tuple[float, float, float], step: int
) -> tuple[float, float, float]:
    """Along its three axes in mm², the longest first; equal for a few voxels."""
    z, y, x = np.nonzero(piece)
    if len(z) <= 3:
        return 1.0, 1.0, 1.0
    _, row, pixel = spacing_zyx_mm
    places = np.stack([z * spacing_zyx_mm[0], y * (row * step), x * (pixel * step)])
    third, second, first = np.linalg.eigvalsh(np.cov(places)).clip(0.0) + _LEAST_VARIANCE
    return float(first), float(second), float(third)


def _sides(piece: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], ...]:
    return (piece[0], piece[-1], piece[:, 0], piece[:, -1], piece[:, :, 0], piece[:, :, -1])
