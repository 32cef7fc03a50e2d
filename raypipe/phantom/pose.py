"""How the template anatomy lies in one patient: size, small rotations, a smooth bend.

In: patient points in LPS mm. Out: points of the template anatomy in mm, and back.
Does not know: voxels, organs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pose:
    """Template -> patient: scale, rotate, shift; a sum of sine waves bends it.

    Args:
        scale_xyz: size of the patient over the size of the template.
        rotation: (3, 3), template axes -> patient axes.
        shift_lps_mm: where the template's origin lies in the patient.
        waves: (k, 3) wave vectors in rad/mm.
        phases: (k,) in rad.
        amplitudes_mm: (k, 3) displacement of each wave.
    """

    scale_xyz: FloatArray
    rotation: FloatArray
    shift_lps_mm: FloatArray
    waves: FloatArray
    phases: FloatArray
    amplitudes_mm: FloatArray

    def bend(self, lps_mm: FloatArray) -> FloatArray:
        """Displacement in template mm at patient points (..., 3)."""
        return np.asarray(np.sin(lps_mm @ self.waves.T + self.phases) @ self.amplitudes_mm)

    def to_template(self, lps_mm: FloatArray) -> FloatArray:
        """Template points (..., 3) of patient points (..., 3)."""
        straight = ((lps_mm - self.shift_lps_mm) @ self.rotation) / self.scale_xyz
        return np.asarray(straight + self.bend(lps_mm))

    def to_patient(self, template_mm: FloatArray) -> FloatArray:
        """Patient points of template points; inverts the bend by fixed-point iteration."""
        lps = (template_mm * self.scale_xyz) @ self.rotation.T + self.shift_lps_mm
        for _ in range(4):  # the bend is gentle (slope below 0.3), so this converges fast
            straight = template_mm - self.bend(lps)
            lps = (straight * self.scale_xyz) @ self.rotation.T + self.shift_lps_mm
        return np.asarray(lps)


def random_pose(rng: np.random.Generator, *, size_range: tuple[float, float]) -> Pose:
    """Draw a pose: build within size_range, rotations of a few degrees, a bend of 2 to 3 mm."""
    size = rng.uniform(*size_range)
    scale = size * rng.normal(1.0, 0.025, 3)
    angles = np.deg2rad(rng.normal(0.0, (1.5, 1.5, 2.5)))
    waves = rng.normal(size=(6, 3))
    waves *= (2 * np.pi / rng.uniform(70.0, 180.0, 6) / np.linalg.norm(waves, axis=1))[:, None]
    return Pose(
        scale_xyz=scale,
        rotation=_rotation(angles),
        shift_lps_mm=rng.normal(0.0, (5.0, 5.0, 4.0)),
        waves=waves,
        phases=rng.uniform(0, 2 * np.pi, 6),
        amplitudes_mm=rng.normal(0.0, 1.1, (6, 3)),
    )


def _rotation(angles: FloatArray) -> FloatArray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [(1, 2), (2, 0), (0, 1)][axis]
        turn = np.eye(3)
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix
