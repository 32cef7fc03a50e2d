"""The template torso's build: outlines by height, the spine's curve, the diaphragm.

In: template coordinates in mm. Out: signed distances and positions that several organs share.
Does not know: voxels, Hounsfield units.

Template axes: x to the patient's left, y to the back, z to the head; the origin lies mid-body
at the height of the diaphragm's domes (about T10).
"""

from dataclasses import dataclass

import numpy as np

from raypipe.phantom.canvas import Array

# z: half width, half depth to the front, half depth to the back; in mm
_MUSCLE = np.array(
    [
        (-430, 150, 85, 95),
        (-360, 172, 92, 105),
        (-290, 168, 88, 104),
        (-215, 150, 82, 98),
        (-150, 138, 82, 92),
        (-80, 140, 92, 96),
        (0, 150, 102, 104),
        (70, 158, 102, 108),
        (125, 168, 90, 108),
        (165, 184, 74, 102),
        (198, 180, 60, 90),
        (218, 120, 50, 76),
        (240, 66, 50, 68),
    ]
)
_CAVITY = np.array(
    [
        (-430, 60, 40, 40),
        (-360, 78, 62, 60),
        (-290, 96, 72, 62),
        (-215, 118, 70, 58),
        (-150, 122, 70, 58),
        (-80, 126, 80, 74),
        (0, 134, 88, 86),
        (70, 131, 84, 88),
        (125, 112, 66, 82),
        (160, 88, 46, 74),
        (185, 66, 26, 64),
        (205, 44, 6, 50),
        (222, 22, -10, 36),
        (250, 10, -20, 30),
    ]
)
_SPINE_Z = (-420, -330, -290, -240, -190, -130, -60, 20, 110, 170, 215, 260)
_SPINE_Y = (82, 78, 66, 46, 36, 33, 40, 52, 58, 52, 42, 30)

VERTEBRA_Z = np.concatenate(
    [-223.0 + 36.0 * np.arange(5), -46.0 + 21.6 * np.arange(12), 212.0 + 16.0 * np.arange(4)]
)
"""Centres of L5 ... L1, T12 ... T1, C7 ... C4."""


@dataclass(frozen=True, kw_only=True)
class Build:
    """What varies between bodies.

    Args:
        fat_mm: thickness of the fat under the skin, mid-abdomen.
        belly_mm: how far the front of the abdomen bulges.
        dome_mm: how high the diaphragm stands (breath).
        scoliosis_mm: sideways bend of the spine.
    """

    fat_mm: float
    belly_mm: float
    dome_mm: float
    scoliosis_mm: float

    def spine_y(self, z: Array) -> Array:
        """The vertebral body's centre, along y."""
        return np.asarray(np.interp(z, _SPINE_Z, _SPINE_Y), np.float32)

    def spine_x(self, z: Array) -> Array:
        """The vertebral body's centre, along x."""
        return np.asarray(self.scoliosis_mm * np.sin(z / 110.0), np.float32)

    def muscle(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the outside of the body wall's muscle."""
        return self._tube(_MUSCLE, 2.35, x, y, z)

    def cavity(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the inside of the chest and abdominal wall."""
        return self._tube(_CAVITY, 2.3, x, y, z)

    def skin(self, x: Array, y: Array, z: Array) -> Array:
        """Distance to the skin: muscle plus fat, thicker at the belly, flanks and buttocks."""
        fat = self.fat_mm * np.interp(z, (-300, -150, 0, 120, 220), (1.25, 1.0, 0.7, 0.5, 0.45))
        angle = np.arctan2(y, x)
        around = 1.0 + 0.25 * np.cos(2 * angle) - 0.12 * np.sin(angle)
        return np.asarray(self.muscle(x, y, z) - fat * around, np.float32)

    def diaphragm_z(self, x: Array, y: Array) -> Array:
        """The height of the diaphragm over a point."""
        domes = (
            (-70.0, -8.0, self.dome_mm + 8.0, 92.0, 98.0),
            (72.0, -5.0, self.dome_mm - 5.0, 88.0, 96.0),
            (12.0, -35.0, self.dome_mm - 12.0, 75.0, 75.0),
        )
        height = np.full(np.shape(x), -150.0, np.float32)
        for cx, cy, top, rx, ry in domes:
            drop = ((x - cx) / rx) ** 2 + ((y - cy) / np.where(y < cy, ry * 1.15, ry)) ** 2
            height = np.maximum(height, top - 78.0 * drop)
        return np.asarray(height, np.float32)

    def _tube(self, table: np.ndarray, power: float, x: Array, y: Array, z: Array) -> Array:
        a, front, back = (np.interp(z, table[:, 0], table[:, i]) for i in (1, 2, 3))
        front = front + self.belly_mm * np.exp(-(((z + 130) / 90) ** 2))
        # an off-centre egg: shift to the middle, so that front and back may differ
        middle, b = (back - front) / 2, (back + front) / 2
        b = np.maximum(b, 4.0)
        radius = (np.abs(x / a) ** power + np.abs((y - middle) / b) ** power) ** (1 / power)
        return np.asarray((radius - 1) * np.minimum(a, b), np.float32)


def random_build(rng: np.random.Generator) -> Build:
    """Draw a build, from thin to stout."""
    fat = float(np.clip(rng.lognormal(2.6, 0.5), 4.0, 38.0))
    return Build(
        fat_mm=fat,
        belly_mm=float(rng.uniform(-12, 10) + fat * 0.6),
        dome_mm=float(rng.uniform(-18, 14)),
        scoliosis_mm=float(rng.normal(0, 3)),
    )
