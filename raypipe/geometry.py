"""Where voxels lie in the patient.

In: a shape and a matrix. Out: points and boxes on another grid or in millimetres.
Does not know: file formats, pixel values.

Conventions: arrays are (z, y, x); the patient space is DICOM's LPS in millimetres; an integer
index is the centre of a voxel; a box is half-open in voxels, so `lower` = 3 is the near face of
voxel 3, which lies at the index 2.5.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A half-open box on the voxel grid that its holder names: lower <= index < upper.

    Args:
        lower_zyx: near corner in voxels.
        upper_zyx: far corner in voxels, at least the near corner.
    """

    lower_zyx: tuple[float, float, float]
    upper_zyx: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.lower_zyx) != 3 or len(self.upper_zyx) != 3:
            raise ValueError("Box: lower_zyx and upper_zyx have three numbers each")
        if not all(map(math.isfinite, (*self.lower_zyx, *self.upper_zyx))):
            raise ValueError("Box: every corner is finite")
        if any(u < lo for lo, u in zip(self.lower_zyx, self.upper_zyx, strict=True)):
            raise ValueError(f"Box: upper_zyx {self.upper_zyx} lies below {self.lower_zyx}")

    @property
    def size_zyx(self) -> tuple[float, float, float]:
        """Edge lengths in voxels."""
        z, y, x = (u - lo for lo, u in zip(self.lower_zyx, self.upper_zyx, strict=True))
        return (z, y, x)

    @property
    def center_zyx(self) -> tuple[float, float, float]:
        """The centre as an index (a voxel's centre is an integer)."""
        z, y, x = (
            (lo + u - 1.0) / 2.0 for lo, u in zip(self.lower_zyx, self.upper_zyx, strict=True)
        )
        return (z, y, x)

    def iou(self, other: "Box") -> float:
        """Intersection over union with a box on the same grid, from 0 to 1."""
        lower = map(max, self.lower_zyx, other.lower_zyx)
        upper = map(min, self.upper_zyx, other.upper_zyx)
        common = math.prod(max(u - lo, 0.0) for lo, u in zip(lower, upper, strict=True))
        union = math.prod(self.size_zyx) + math.prod(other.size_zyx) - common
        return common / union if union > 0 else 0.0

    def slices(self, shape_zyx: tuple[int, int, int]) -> tuple[slice, slice, slice]:
        """Index slices of the voxels that the box touches, at least one a side, inside a grid."""
        lower = [
            min(max(math.floor(lo), 0), n - 1)
            for lo, n in zip(self.lower_zyx, shape_zyx, strict=True)
        ]
        upper = [
            min(max(math.ceil(u), lo + 1), n)
            for u, lo, n in zip(self.upper_zyx, lower, shape_zyx, strict=True)
        ]
        z, y, x = (slice(lo, u) for lo, u in zip(lower, upper, strict=True))
        return (z, y, x)


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """A regular voxel grid in the patient.

    Args:
        shape_zyx: number of voxels along each axis, all positive.
        affine_zyx_to_lps: (4, 4) float64; index (z, y, x, 1) -> patient (L, P, S, 1) in mm.
    """

    shape_zyx: tuple[int, int, int]
    affine_zyx_to_lps: FloatArray = field(repr=False)

    def __post_init__(self) -> None:
        affine = np.array(self.affine_zyx_to_lps, dtype=np.float64)
        if affine.shape != (4, 4) or not np.all(np.isfinite(affine)):
            raise ValueError("Geometry: affine_zyx_to_lps is a finite 4 x 4 matrix")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise ValueError("Geometry: the last row of affine_zyx_to_lps is 0 0 0 1")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise ValueError("Geometry: affine_zyx_to_lps is singular")
        if len(self.shape_zyx) != 3 or min(self.shape_zyx) < 1:
            raise ValueError(f"Geometry: shape_zyx {self.shape_zyx} has three positive numbers")
        affine.setflags(write=False)
        object.__setattr__(self, "affine_zyx_to_lps", affine)
        object.__setattr__(self, "shape_zyx", tuple(int(n) for n in self.shape_zyx))

    @cached_property
    def spacing_zyx_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis."""
        z, y, x = (float(v) for v in np.linalg.norm(self.affine_zyx_to_lps[:3, :3], axis=0))
        return (z, y, x)

    @cached_property
    def _lps_to_zyx(self) -> FloatArray:
        return np.asarray(np.linalg.inv(self.affine_zyx_to_lps), dtype=np.float64)

    def to_lps_mm(self, index_zyx: ArrayLike) -> FloatArray:
        """Patient positions in mm, (..., 3) L P S, of indices (..., 3)."""
        index = np.asarray(index_zyx, dtype=np.float64)
        lps: FloatArray = index @ self.affine_zyx_to_lps[:3, :3].T + self.affine_zyx_to_lps[:3, 3]
        return lps

    def to_index(self, lps_mm: ArrayLike) -> FloatArray:
        """Continuous indices (..., 3) z y x of patient positions (..., 3) in mm."""
        points = np.asarray(lps_mm, dtype=np.float64)
        index: FloatArray = points @ self._lps_to_zyx[:3, :3].T + self._lps_to_zyx[:3, 3]
        return index

    def box_to(self, other: "Geometry", box_zyx: Box) -> Box:
        """The smallest box on another grid that encloses a box on this one."""
        return box_around(other, self.corners_lps_mm(box_zyx))

    def corners_lps_mm(self, box_zyx: Box) -> FloatArray:
        """The eight corners of a box in mm, (8, 3) L P S."""
        faces = np.stack([box_zyx.lower_zyx, box_zyx.upper_zyx]) - 0.5
        corners = np.array(
            [
                (faces[k, 0], faces[j, 1], faces[i, 2])
                for k in (0, 1)
                for j in (0, 1)
                for i in (0, 1)
            ]
        )
        return self.to_lps_mm(corners)

    def size_mm(self, box_zyx: Box) -> tuple[float, float, float]:
        """Edge lengths of a box in mm along z, y, x of this grid."""
        z, y, x = (float(n * s) for n, s in zip(box_zyx.size_zyx, self.spacing_zyx_mm, strict=True))
        return (z, y, x)

    def diameter_mm(self, box_zyx: Box) -> float:
        """The longest edge of a box within the slice plane, in mm: how large a lesion is called."""
        return max(self.size_mm(box_zyx)[1:])

    def resized(self, shape_zyx: tuple[int, int, int]) -> "Geometry":
        """The grid of another shape over the same field of view (outer faces coincide)."""
        factor = np.array(self.shape_zyx, dtype=np.float64) / np.array(shape_zyx)
        affine = self.affine_zyx_to_lps.copy()
        affine[:3, :3] = self.affine_zyx_to_lps[:3, :3] * factor
        affine[:3, 3] = self.to_lps_mm(factor / 2.0 - 0.5)
        return Geometry(shape_zyx=shape_zyx, affine_zyx_to_lps=affine)

    def same_grid(self, other: "Geometry", *, tolerance_mm: float = 0.01) -> bool:
        """Whether both have one shape and no voxel differs by more than the tolerance."""
        if self.shape_zyx != other.shape_zyx:
            return False
        whole = Box(lower_zyx=(0.0, 0.0, 0.0), upper_zyx=self.shape_zyx)
        gap = self.corners_lps_mm(whole) - other.corners_lps_mm(whole)
        return bool(np.max(np.linalg.norm(gap, axis=1)) <= tolerance_mm)


def box_around(geometry: Geometry, points_lps_mm: ArrayLike) -> Box:
    """The smallest box on a grid around points (n, 3) in mm; not clipped to the grid."""
    index = geometry.to_index(points_lps_mm) + 0.5
    lower, upper = index.min(axis=0), index.max(axis=0)
    return Box(
        lower_zyx=(float(lower[0]), float(lower[1]), float(lower[2])),
        upper_zyx=(float(upper[0]), float(upper[1]), float(upper[2])),
    )
