"""Draw small boxes again, along the half-contrast contour of what they hold.

In: tracks, HU. Out: the same tracks, their small boxes tight around the lesion.
Does not know: networks, labels, millimetres.

A network tells a small lesion well and its edges badly: one of its cells is as wide as the lesion
itself. Grey values tell them to the pixel, the way a reader measures: halfway between the lesion
and what surrounds it. A box stays as it is where grey values do not tell: where the lesion is
faint, or touches something of its own density.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.findings.decode import FindingsConfig
from raypipe.findings.link import Track
from raypipe.geometry import Box
from raypipe.types import HuArray

LEAST_CONTRAST_HU = 15.0
LEAST_CONTRAST_TO_NOISE = 3.0
LEAST_IOU = 0.15
"""What overlaps the network's box by less is another thing than it saw."""
_MARGIN, _LEAST_MARGIN = 0.6, 2.0
_FULLEST = 0.25
"""Share of the box's pixels, the most different ones, whose mean is the lesion's grey value."""
_LEAST_SURROUNDINGS = 8


def contoured(
    tracks: Sequence[Track], hu_zhw: HuArray, config: FindingsConfig
) -> tuple[Track, ...]:
    """The tracks, with boxes of up to config.contour_pixels along their lesion's contour.

    Half the contrast of the lesion, not of each slice: where it begins and ends it fills its
    voxels in part and is fainter than it is.

    Args:
        tracks: lesions through the slices.
        hu_zhw: (slices, rows, columns) HU, on the grid of the boxes.
        config: says how long the longest edge of a box may be.
    """
    return tuple(_contoured(track, hu_zhw, config.contour_pixels) for track in tracks)


def _contoured(track: Track, hu_zhw: HuArray, longest: float) -> Track:
    small = [max(d.box_zyx.size_zyx[1:]) <= longest for d in track.detections]
    if not any(small):
        return track
    best = track.best
    around_best = Surroundings.of(hu_zhw, best.box_zyx)
    contrast = around_best.contrast()
    if abs(contrast) < LEAST_CONTRAST_HU:
        return track
    detections = []
    for detection, is_small in zip(track.detections, small, strict=True):
        if is_small:
            box = detection.box_zyx
            around = around_best if detection is best else Surroundings.of(hu_zhw, box)
            detection = replace(detection, box_zyx=_contour_box(box, around, contrast))
        detections.append(detection)
    return track.redrawn(tuple(detections))


@dataclass(frozen=True, kw_only=True, eq=False)
class Surroundings:
    """A box of one slice and what lies around it.

    Args:
        hu: (rows, columns) of a part of the slice.
        first_yx: where that part begins.
        inside: pixels that the box holds.
        level, noise: HU outside of the box and their spread; NaN where too little is outside.
    """

    hu: NDArray[np.float32]
    first_yx: tuple[int, int]
    inside: NDArray[np.bool_]
    level: float
    noise: float

    @classmethod
    def of(cls, hu_zhw: HuArray, box: Box) -> Self:
        """What a box of one slice holds and has around it."""
        depth, height, width = hu_zhw.shape
        margin = max(_LEAST_MARGIN, _MARGIN * max(box.size_zyx[1:]))
        part = _grown(box, margin).slices((depth, height, width))
        _, rows, columns = part
        hu = np.asarray(hu_zhw[part][0], np.float32)
        around = hu[~_held(_grown(box, 1.0), rows, columns)]
        level = _median(around) if len(around) >= _LEAST_SURROUNDINGS else np.nan
        return cls(
            hu=hu,
            first_yx=(rows.start, columns.start),
            inside=_held(box, rows, columns),
            level=level,
            noise=1.4826 * _median(np.abs(around - level)) if len(around) else np.nan,
        )

    def contrast(self) -> float:
        """HU of the box's fullest pixels above (or, negative, below) the level; 0: not known."""
        if not self.inside.any() or np.isnan(self.level):
            return 0.0
        held = self.hu[self.inside] - self.level
        sign = 1.0 if held.mean() > 0 else -1.0
        fullest = np.sort(sign * held)[::-1][: max(1, round(_FULLEST * len(held)))]
        return sign * float(fullest.mean())


def _median(values: NDArray[np.float32]) -> float:
    """numpy's, which takes four times as long for so few values."""
    in_order = np.sort(values)
    middle = len(in_order) // 2
    return float(in_order[middle - 1 + len(in_order) % 2] + in_order[middle]) / 2.0


def _contour_box(box: Box, around: Surroundings, contrast: float) -> Box:
    """The tight box around the contour at half a contrast; the box itself where there is none."""
    lesion = _lesion(around, contrast)
    if lesion is None:
        return box
    y, x = ndimage.find_objects(lesion.astype(np.int8))[0]
    y0, x0 = around.first_yx
    tight = Box(
        lower_zyx=(box.lower_zyx[0], float(y0 + y.start), float(x0 + x.start)),
        upper_zyx=(box.upper_zyx[0], float(y0 + y.stop), float(x0 + x.stop)),
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


def _lesion(around: Surroundings, contrast: float) -> NDArray[np.bool_] | None:
    """Pixels past half the contrast that hang together; None where grey values do not tell."""
    inside = around.inside
    # written so that an unknown level or noise ends here as well
    if not inside.any() or not abs(contrast) >= LEAST_CONTRAST_TO_NOISE * around.noise:
        return None
    above = np.sign(contrast) * (around.hu - around.level)
    pieces, _ = ndimage.label(above > abs(contrast) / 2.0)
    own = np.bincount(pieces[inside])
    own[0] = 0
    lesion: NDArray[np.bool_] = pieces == own.argmax()
    at_border = lesion[[0, -1]].any() or lesion[:, [0, -1]].any()
    return None if own.max() == 0 or at_border else lesion
