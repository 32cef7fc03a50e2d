"""Numbers that a grid in a patient can have; beyond them a header is damaged, not unusual.

In: spacings, positions, a matrix. Out: nothing, or SeriesError.
Does not know: formats.

Whatever passes can be computed with: voxel counts of resampled grids stay finite.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raypipe.errors import Reason, SeriesError

SPACING_MM = (0.01, 1000.0)
FARTHEST_MM = 1e6
_FLATTEST = 0.05
"""Volume of a voxel over that of a box with its edges: 0.87 at 30 degrees of gantry tilt."""


def is_plausible_mm(value: float) -> bool:
    """Whether a spacing or thickness can be true."""
    return SPACING_MM[0] <= value <= SPACING_MM[1]


def check_spacing_mm(name: str, spacing_mm: ArrayLike) -> None:
    """Refuse distances between voxels that cannot be true.

    Raises:
        SeriesError: GEOMETRY_INVALID.
    """
    values: NDArray[Any] = np.asarray(spacing_mm, dtype=np.float64)
    if not np.all((values >= SPACING_MM[0]) & (values <= SPACING_MM[1])):
        raise SeriesError(
            Reason.GEOMETRY_INVALID,
            f"{name} {values.tolist()} mm, from {SPACING_MM[0]:g} to {SPACING_MM[1]:g} is possible",
        )


def check_position_mm(name: str, position_mm: ArrayLike) -> None:
    """Refuse positions that no scanner reaches.

    Raises:
        SeriesError: GEOMETRY_INVALID.
    """
    if not np.all(np.abs(np.asarray(position_mm, dtype=np.float64)) <= FARTHEST_MM):
        raise SeriesError(
            Reason.GEOMETRY_INVALID, f"{name} lies farther than {FARTHEST_MM:g} mm from the origin"
        )


def check_matrix(name: str, affine: NDArray[np.float64]) -> None:
    """Refuse a (4, 4) matrix whose voxels are too small, too large, too far or flat.

    Raises:
        SeriesError: GEOMETRY_INVALID.
    """
    edges = affine[:3, :3]
    check_position_mm(name, affine[:3, 3])
    check_spacing_mm(name, np.abs(edges).max(axis=0))  # before norms, which could overflow
    lengths = np.linalg.norm(edges, axis=0)
    if abs(float(np.linalg.det(edges / lengths))) < _FLATTEST:
        raise SeriesError(Reason.GEOMETRY_INVALID, f"{name} is singular or nearly so")
