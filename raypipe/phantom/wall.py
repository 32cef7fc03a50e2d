"""The body wall of the torso, the table under it, and the texture over everything.

In: an empty canvas, or a painted one. Out: the canvas, painted.
Does not know: organs, lesions.
"""

import numpy as np

from raypipe.phantom.build import Build
from raypipe.phantom.canvas import Array, Canvas
from raypipe.phantom.organs import Organ


def paint_wall(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    """Paint skin, fat under the skin, and muscle with fat between its bundles."""
    region = canvas.whole
    skin = canvas.smooth(build.skin, region)
    canvas.paint(region, skin, hu["skin"], Organ.SKIN)
    canvas.paint(region, skin + 2.0, hu["fat"], Organ.SUBCUTANEOUS_FAT)
    muscle = np.maximum(canvas.smooth(build.muscle, region), skin + 3.0)
    strands = canvas.noise("septa", region, step=2)
    lines = np.clip(1 - np.abs(strands) / 0.14, 0, 1)
    cavity = canvas.smooth(build.cavity, region)
    # layers of the wall: a sheet of fat between outer and inner muscles, wide in the armpits
    half = 1.0 + np.clip(0.22 * (cavity - muscle - 26), 0, 7)
    sheet = np.clip(half + 0.5 - np.abs(0.5 * (muscle + cavity) - 2 + 3 * strands), 0, 1)
    between = np.maximum(0.35 * lines, np.where(half > 2, 0.95, 0.5) * sheet)
    canvas.paint(region, muscle, hu["muscle"] + (hu["fat"] - hu["muscle"]) * between, Organ.MUSCLE)


def paint_table(canvas: Canvas, *, top_y_mm: float, half_width_mm: float) -> None:
    """Paint the couch: a curved carbon shell over foam, and a thin mattress."""
    sag = 50.0 / half_width_mm**2

    def surface(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(top_y_mm + 4 - sag * x * x - y, np.float32)

    x_far = half_width_mm * 1.3
    region = canvas.region(((-x_far, x_far), (top_y_mm - 80, top_y_mm + 80), (-700, 700)))
    if region is None:
        return
    air = canvas.organs[region.fine] == Organ.AIR

    def sides(x: Array, y: Array, z: Array) -> Array:
        beyond = np.maximum(np.abs(x) - half_width_mm, y - (top_y_mm + 42))
        return np.asarray(np.stack([surface(x, y, z), beyond]), np.float32)

    above, beyond = canvas.rigid(sides, region)
    body = np.where(air, np.maximum(above, beyond), np.float32(9))
    canvas.paint(region, body, -935.0, Organ.TABLE)
    canvas.paint(region, np.maximum(np.abs(body + 8.5) - 1.2, body), -60.0)
    canvas.paint(region, np.where(air, np.maximum(np.abs(above + 2) - 4.0, beyond), 9.0), -890.0)


_TEXTURE_HU = {
    Organ.SUBCUTANEOUS_FAT: 5.0,
    Organ.MUSCLE: 9.0,
    Organ.LIVER: 4.0,
    Organ.SPLEEN: 4.0,
    Organ.PANCREAS: 12.0,
    Organ.HEART: 5.0,
    Organ.MEDIASTINAL_FAT: 14.0,
    Organ.ABDOMINAL_FAT: 9.0,
    Organ.BRAIN: 0.8,
    Organ.BOWEL: 6.0,
}


def add_texture(canvas: Canvas) -> None:
    """Vary the HU inside tissues, by an amount that suits each."""
    table = np.zeros(256, np.float32)
    for organ, deviation in _TEXTURE_HU.items():
        table[organ] = deviation
    canvas.hu += table[canvas.organs] * canvas.noise("texture", canvas.whole)
