"""Signed distances of simple solids, and centre lines of tubes.

In: coordinates and sizes in mm. Out: approximate signed distances in mm (negative inside).
Does not know: voxels, organs, Hounsfield units.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raypipe.phantom.canvas import Array, Bounds, Shape

Points = NDArray[np.float64]


def ellipsoid(
    center: Sequence[float], radii: Sequence[float], *, turn_deg: Sequence[float] = (0, 0, 0)
) -> Shape:
    """An ellipsoid turned about x, then y, then z."""
    axes = _turn(turn_deg)
    cx, cy, cz = (np.float32(c) for c in center)

    def distance(x: Array, y: Array, z: Array) -> Array:
        dx, dy, dz = x - cx, y - cy, z - cz
        first = second = np.float32(0)
        for column, radius in zip(axes.T, radii, strict=True):
            along = dx * column[0] + dy * column[1] + dz * column[2]
            first = first + (along / np.float32(radius)) ** 2
            second = second + (along / np.float32(radius**2)) ** 2
        norm = np.sqrt(first)
        return np.asarray(norm * (norm - 1) / (np.sqrt(second) + np.float32(1e-6)))

    return distance


def ellipsoid_bounds(center: Sequence[float], radii: Sequence[float]) -> Bounds:
    """Bounds that hold the ellipsoid however it is turned by up to 45 degrees."""
    wide = [max(r, 0.75 * max(radii)) for r in radii]
    (x, y, z), (rx, ry, rz) = center, wide
    return ((x - rx, x + rx), (y - ry, y + ry), (z - rz, z + rz))


def smooth_union(a: Array, b: Array, blend_mm: float) -> Array:
    """The union of two solids with a rounded seam."""
    mix = np.clip(blend_mm - np.abs(a - b), 0.0, None) / blend_mm
    return np.asarray(np.minimum(a, b) - mix * mix * np.float32(blend_mm / 4))


def _turn(turn_deg: Sequence[float]) -> Array:
    matrix = np.eye(3)
    for (i, j), angle in zip([(1, 2), (2, 0), (0, 1)], np.deg2rad(turn_deg), strict=True):
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        matrix = step @ matrix
    return np.asarray(matrix, np.float32)


def spline(knots: ArrayLike, radii: ArrayLike, *, step_mm: float = 2.0) -> tuple[Points, Points]:
    """A smooth curve through knots (k, 3) with radii (k,), sampled every step_mm."""
    from scipy.interpolate import PchipInterpolator

    points = np.asarray(knots, np.float64)
    widths = np.broadcast_to(np.asarray(radii, np.float64), (len(points),))
    lengths = np.linalg.norm(np.diff(points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(np.maximum(lengths, 1e-3))])
    at = np.linspace(0.0, along[-1], max(2, int(along[-1] / step_mm) + 1))
    both = PchipInterpolator(along, np.column_stack([points, widths]))(at)
    return both[:, :3], both[:, 3]


def moved(points: Points, x: float, y: float, z: float) -> Points:
    """The points (n, 3), all moved by one vector."""
    return np.asarray(points + np.array((x, y, z)))


def segments(
    start: Points, end: Points, radii_start: Points, radii_end: Points, *, step_mm: float
) -> tuple[Points, Points]:
    """Points and radii along many straight segments at once."""
    count = np.ceil(np.linalg.norm(end - start, axis=1) / step_mm).astype(int) + 1
    which = np.repeat(np.arange(len(start)), count)
    order = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    t = (order / np.maximum(count[which] - 1, 1))[:, None]
    points = start[which] * (1 - t) + end[which] * t
    radii = radii_start[which] * (1 - t[:, 0]) + radii_end[which] * t[:, 0]
    return points, radii
