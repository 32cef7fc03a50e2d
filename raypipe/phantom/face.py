"""The face and the neck: orbits, sinuses, jaws, the top of the spine.

In: a canvas that holds the head's soft tissue. Out: the canvas, painted.
Does not know: the vault, the brain, noise, lesions.
"""

import numpy as np

from raypipe.phantom.canvas import Canvas
from raypipe.phantom.organs import Organ
from raypipe.phantom.shapes import ellipsoid, spline

Vector = tuple[float, float, float]


def paint_face(canvas: Canvas, hu: dict[str, float]) -> None:
    """Paint orbits, cheekbones, jaws and the air-filled sinuses."""
    _paint_jaws(canvas)
    for sign in (-1.0, 1.0):
        _paint_orbit(canvas, hu, sign)
    rng = canvas.rng("sinuses")
    _paint_cell(canvas, (0, -58, -72), (14, 32, 24), wall_mm=1.6)
    _paint_cell(canvas, (0, -60, -38), (11, 22, 15), wall_mm=1.4)
    _paint_cell(canvas, (0, -22, -38), (14, 12, 11), wall_mm=1.8)
    for sign in (-1.0, 1.0):
        size = rng.uniform(0.8, 1.15)
        _paint_cell(canvas, (sign * 30, -54, -68), (14 * size, 17, 18), wall_mm=1.8)
        _paint_cell(canvas, (sign * 11, -80, -14), (11 * size, 7 * size, 11), wall_mm=2.5)
    _paint_septa(canvas, hu)


def _bounds(center: Vector, radii: Vector) -> tuple[tuple[float, float], ...]:
    return tuple((c - r - 4, c + r + 4) for c, r in zip(center, radii, strict=True))


def _paint_cell(canvas: Canvas, center: Vector, radii: Vector, *, wall_mm: float) -> None:
    x, y, z = _bounds(center, radii)
    region = canvas.region((x, y, z))
    if region is None:
        return
    distance = canvas.sharp(ellipsoid(center, radii), region)
    distance += 1.2 * canvas.noise(f"cell {center}", region)
    canvas.paint(region, distance - wall_mm, 650.0, Organ.BONE)
    canvas.paint(region, distance, 25.0)
    canvas.paint(region, distance + 1.0, -960.0, Organ.SINUS_AIR)


def _paint_septa(canvas: Canvas, hu: dict[str, float]) -> None:
    septum = np.array([(0.0, y, z) for y in range(-86, -30, 2) for z in range(-90, -26, 2)])
    canvas.paint_tube(septum, np.full(len(septum), 0.9), 350.0, Organ.BONE)
    for z in (-84, -72):
        for sign in (-1.0, 1.0):
            shell, radii = spline([(sign * 7, -82, z), (sign * 6, -40, z + 2)], 3.4)
            canvas.paint_tube(shell, radii, hu["muscle"], Organ.MUSCLE)
    for y in (-72, -62, -52, -44):
        for sign in (-1.0, 1.0):
            wall, radii = spline([(sign * 1, y, -40), (sign * 10, y + 2, -36)], 0.8)
            canvas.paint_tube(wall, radii, 250.0, Organ.BONE)


def _paint_orbit(canvas: Canvas, hu: dict[str, float], sign: float) -> None:
    center, radii = (sign * 31.0, -60.0, -37.0), (19.0, 30.0, 18.0)
    x, y, z = _bounds(center, (radii[0] + 6, radii[1] + 6, radii[2] + 6))
    region = canvas.region((x, y, z))
    if region is None:
        return
    cone = canvas.sharp(ellipsoid(center, radii, turn_deg=(0, 0, 22 * sign)), region)
    open_front = canvas.smooth(lambda x, y, z: -74 - y, region)
    canvas.paint(region, np.maximum(cone - 3.0, open_front), 750.0, Organ.BONE)
    canvas.paint(region, np.where(open_front > 6, np.float32(9), cone), -85.0, Organ.ORBIT)
    apex = (sign * 16.0, -32.0, -34.0)
    globe = (sign * 32.0, -74.0, -37.0)
    for dx, dz in ((0, 10), (0, -10), (9, 0), (-9, 0)):
        side = (globe[0] + dx, globe[1] + 6, globe[2] + dz)
        canvas.paint_tube(*spline([side, apex], [1.8, 1.4]), 50.0, Organ.ORBIT)
    canvas.paint_tube(*spline([globe, (sign * 24, -54, -37), apex], 2.2), 38.0, Organ.ORBIT)
    ball = np.array([globe])
    canvas.paint_tube(ball, np.array([12.2]), 48.0, Organ.ORBIT)
    canvas.paint_tube(ball, np.array([10.8]), hu["csf"] + 6, Organ.ORBIT)
    lens = np.array([(globe[0] + dx, globe[1] - 8.5, globe[2]) for dx in (-2.0, 0, 2.0)])
    canvas.paint_tube(lens, np.full(3, 2.2), 85.0, Organ.ORBIT)


def _paint_jaws(canvas: Canvas) -> None:
    for sign in (-1.0, 1.0):
        cheek = [(sign * 66, -8, -46), (sign * 60, -40, -50), (sign * 44, -70, -58)]
        canvas.paint_tube(*spline(cheek, [3, 4, 6]), 700.0, Organ.BONE)
        wall = [(sign * 52, -44, -40), (sign * 46, -62, -34), (sign * 36, -72, -20)]
        canvas.paint_tube(*spline(wall, [3, 5, 5]), 750.0, Organ.BONE)
        ramus = [(sign * 52, -4, -56), (sign * 50, -10, -86), (sign * 44, -26, -116)]
        canvas.paint_tube(
            *spline([*ramus, (sign * 20, -84, -122)], [4, 5, 7, 8]), 800.0, Organ.BONE
        )
    arch = [(-28, -44, -98), (-22, -74, -98), (0, -88, -98), (22, -74, -98), (28, -44, -98)]
    points, radii = spline(arch, 5.0)
    canvas.paint_tube(points, radii, 650.0, Organ.BONE)
    teeth = np.concatenate([points[::4] - (0, 0, dz) for dz in (4, 7, 10)])
    canvas.paint_tube(teeth, np.full(len(teeth), 3.2), 1800.0, Organ.BONE)


def paint_neck(canvas: Canvas, hu: dict[str, float]) -> None:
    """Paint the airway, C1 to C3 and the cord under the skull."""
    throat = [(0, -24, -70), (0, -16, -95), (0, -12, -130), (0, -12, -190)]
    canvas.paint_tube(*spline(throat, [9, 8, 7, 8]), -980.0, Organ.AIRWAY)
    for level in (-78.0, -96.0, -114.0, -132.0, -150.0):
        body = [(-8.0, 8, level), (8, 8, level)]
        canvas.paint_tube(*spline(body, 8.0), 480.0, Organ.VERTEBRA)
        angle = np.linspace(0, 2 * np.pi, 40)
        ring = np.stack([15 * np.cos(angle), 26 + 13 * np.sin(angle), 0 * angle + level], 1)
        canvas.paint_tube(ring, np.full(40, 3.6), 560.0, Organ.VERTEBRA)
        spine = [(0.0, 38, level), (0, 52, level - 6)]
        canvas.paint_tube(*spline(spine, 3.5), 480.0, Organ.VERTEBRA)
    cord = spline([(0, 20, -60), (0, 25, -100), (0, 25, -190)], 9.0)
    canvas.paint_tube(*cord, 14.0, Organ.CSF)
    canvas.paint_tube(cord[0], cord[1] - 4.0, hu["cord"], Organ.BRAIN)
