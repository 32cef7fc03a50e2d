"""Draw small boxes again, along the half-contrast contour of what they hold.

In: boxes of each slice, HU. Out: the same boxes, the small ones tight around their lesion.
Does not know: networks, labels, millimetres.

A network tells a small lesion well and its edges badly: one of its cells is as wide as the lesion
itself. Grey values tell them to the pixel, the way a reader measures: halfway between the lesion
and what surrounds it. A box stays as it is where grey values do not tell: where the lesion is
faint, or touches something of its own density.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.findings.decode import FindingsConfig
from raypipe.geometry import Box
from raypipe.types import Detection, HuArray

LEAST_CONTRAST_HU = 15.0
LEAST_CONTRAST_TO_NOISE = 3.0
LEAST_IOU = 0.15
"""What overlaps the network's box by less is another thing than it saw."""
_MARGIN, _LEAST_MARGIN = 0.6, 2.0
_FULLEST = 0.25
"""Share of the box's pixels, the most different ones, whose mean is the lesion's grey value."""
_LEAST_SURROUNDINGS = 8


def contoured(
    of_slice: Mapping[int, tuple[Detection, ...]], hu_zhw: HuArray, config: FindingsConfig
) -> dict[int, tuple[Detection, ...]]:
    """The boxes of each slice; those up to config.contour_pixels along their contour.

    Args:
        of_slice: slice index -> its boxes.
        hu_zhw: (slices, rows, columns) HU, on the grid of the boxes.
        config: says how long the longest edge of a box may be.
    """
    return {
        z: tuple(
            replace(d, box_zyx=_contour_box(hu_zhw, d.box_zyx, config.contour_pixels))
            for d in detections
        )
        for z, detections in of_slice.items()
    }


def _contour_box(hu_zhw: HuArray, box: Box, longest: float) -> Box:
    """The tight box around the half-contrast contour; the box itself where there is none."""
    edge = max(box.size_zyx[1:])
    if edge > longest:
        return box
    depth, height, width = hu_zhw.shape
    part = _grown(box, max(_LEAST_MARGIN, _MARGIN * edge)).slices((depth, height, width))
    _, rows, columns = part
    around = np.asarray(hu_zhw[part][0], np.float32)
    lesion = _lesion(around, _held(box, rows, columns), ~_held(_grown(box, 1.0), rows, columns))
    if lesion is None:
        return box
    y, x = ndimage.find_objects(lesion.astype(np.int8))[0]
    tight = Box(
        lower_zyx=(box.lower_zyx[0], float(rows.start + y.start), float(columns.start + x.start)),
        upper_zyx=(box.upper_zyx[0], float(rows.start + y.stop), float(columns.start + x.stop)),
    )
    return tight if tight.iou(box) >= LEAST_IOU else box


def _grown(box: Box, pixels: float) -> Box:
    """The box and so many pixels more on every side, within its slice."""
    (z0, y0, x0), (z1, y1, x1) = box.lower_zyx, box.upper_zyx
    return Box(lower_zyx=(z0, y0 - pixels, x0 - pixels), upper_zyx=(z1, y1 + pixels, x1 + pixels))


def _held(box: Box, rows: slice, columns: slice) -> NDArray[np.bool_]:
    """Pixels of a part of the slice whose centres a box holds."""
    (_, y0, x0), (_, y1, x1) = box.lower_zyx, box.upper_zyx
    y = np.arange(rows.start, rows.stop) + 0.5
    x = np.arange(columns.start, columns.stop) + 0.5
    inside: NDArray[np.bool_] = ((y > y0) & (y < y1))[:, None] & ((x > x0) & (x < x1))
    return inside


def _lesion(
    hu: NDArray[np.float32], inside: NDArray[np.bool_], outside: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Pixels past half the contrast that hang together; None where grey values do not tell."""
    if not inside.any() or np.count_nonzero(outside) < _LEAST_SURROUNDINGS:
        return None
    level = float(np.median(hu[outside]))
    noise = 1.4826 * float(np.median(np.abs(hu[outside] - level)))
    sign = 1.0 if hu[inside].mean() > level else -1.0
    above = sign * (hu - level)
    fullest = np.sort(above[inside])[::-1][: max(1, round(_FULLEST * np.count_nonzero(inside)))]
    contrast = float(fullest.mean())
    if contrast < max(LEAST_CONTRAST_HU, LEAST_CONTRAST_TO_NOISE * noise):
        return None
    pieces, _ = ndimage.label(above > contrast / 2.0)
    own = np.bincount(pieces[inside])
    own[0] = 0
    lesion: NDArray[np.bool_] = pieces == own.argmax()
    at_border = lesion[[0, -1]].any() or lesion[:, [0, -1]].any()
    return None if own.max() == 0 or at_border else lesion
