"""Stomach, small bowel, colon, and the vessels of the mesentery.

In: a canvas that holds the abdominal fat. Out: the canvas, painted.
Does not know: solid organs, noise.
"""

import numpy as np
from numpy.typing import NDArray

from raypipe.phantom.build import Build
from raypipe.phantom.canvas import Array, Canvas, Tube
from raypipe.phantom.organs import Organ
from raypipe.phantom.shapes import Points, spline

GAS_HU = -970.0


def paint_bowel(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    """Paint the digestive tract."""
    front = build.belly_mm * 0.8
    _paint_mesentery(canvas, hu, front)
    _paint_small_bowel(canvas, hu, front)
    _paint_colon(canvas, hu, front)
    _paint_stomach(canvas, build, hu)


def _paint_stomach(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    rng = canvas.rng("stomach")
    lift, full = build.dome_mm, rng.uniform(0.75, 1.1)
    knots = [(66, 6, -30 + lift), (72, -20, -52), (58, -48, -88), (20, -56, -118)]
    points, radii = spline([*knots, (-20, -44, -114)], np.array([30, 32, 25, 17, 11]) * full)
    tube = canvas.tube(points, radii)
    if tube is None:
        return
    spleen = np.isin(canvas.organs[tube.region.fine], (Organ.SPLEEN, Organ.LUNG_LEFT, Organ.HEART))
    distance = np.where(spleen, np.float32(9), tube.distance)
    canvas.paint(tube.region, distance, hu["gut_wall"], Organ.STOMACH)
    content = rng.choice([hu["gut_content"], hu["gut_content"] + 20, 250.0], p=[0.6, 0.3, 0.1])
    food = 18 * canvas.noise("food", tube.region) * float(rng.random() < 0.6)
    inner = distance + rng.uniform(3.5, 5.5)
    canvas.paint(tube.region, inner, np.float32(content) + food)
    _paint_gas(canvas, tube, inner, level_mm=float(rng.uniform(-55, -15)))


def _paint_gas(canvas: Canvas, tube: Tube, inner: Array, *, level_mm: float) -> None:
    """Gas above a level: the patient lies on the back, so it gathers in front."""
    above = canvas.smooth(lambda x, y, z: y - np.float32(level_mm), tube.region)
    canvas.paint(tube.region, np.maximum(inner, above), GAS_HU)


def _paint_bubbles(canvas: Canvas, points: Points, radii: NDArray[np.float64]) -> None:
    """Gas along a part of the bowel, and in nothing else that lies there."""
    tube = canvas.tube(points, radii)
    if tube is not None:
        canvas.paint(tube.region, canvas.within(tube, Organ.BOWEL), GAS_HU)


def _walk(rng: np.random.Generator, low: Points, high: Points, count: int) -> Points:
    """A winding curve that stays inside a box."""
    step = rng.normal(size=(count, 3)) * 26
    points = np.empty((count, 3))
    points[0] = rng.uniform(low, high)
    for i in range(1, count):
        point = points[i - 1] + 0.6 * step[i] + 0.4 * step[i - 1]
        point = np.where(point > high, 2 * high - point, point)
        points[i] = np.clip(np.where(point < low, 2 * low - point, point), low, high)
    return points


def _paint_small_bowel(canvas: Canvas, hu: dict[str, float], front: float) -> None:
    rng = canvas.rng("small bowel")
    low, high = np.array([-84.0, -60 - front, -335]), np.array([84.0, 14, -135])
    oral = rng.random() < 0.25
    for loop in range(13):
        points, _ = spline(_walk(rng, low, high, 11), 1.0, step_mm=3.0)
        radii = rng.uniform(9.5, 14.0) * (1 + 0.1 * np.sin(np.arange(len(points)) * 0.9))
        tube = canvas.tube(points, radii)
        content = 180.0 + 60 * rng.random() if oral else hu["gut_content"] + rng.normal(0, 8)
        gas = rng.random(max(2, len(points) // 6 + 1)) < 0.22
        if tube is None:
            continue
        region = tube.region
        distance = canvas.within(tube, Organ.ABDOMINAL_FAT, Organ.BOWEL)
        canvas.paint(region, distance, hu["gut_wall"], Organ.BOWEL)
        folds = 8 * canvas.noise(f"folds {loop}", region)
        canvas.paint(region, distance + 2.4, np.float32(content) + folds)
        gassy = np.repeat(gas, 6)[: len(points)]
        if gassy.any():
            _paint_bubbles(canvas, points[gassy] - (0, 2.5, 0), radii[gassy] - 5.0)


def _paint_colon(canvas: Canvas, hu: dict[str, float], front: float) -> None:
    rng = canvas.rng("colon")
    knots = np.array(
        [
            (-88, 10, -300), (-100, 22, -240), (-102, 22, -185), (-90, -10, -160),
            (-50, -62 - front, -165), (0, -70 - front, -180), (52, -60 - front, -150),
            (96, 0, -105), (106, 22, -130), (104, 26, -200), (96, 18, -260), (60, 0, -310),
            (10, 18, -320), (0, 40, -350), (0, 48, -410),
        ]
    ) + rng.normal(0, 5, (15, 3))  # fmt: skip
    wide = np.array([26, 24, 22, 20, 18, 18, 17, 19, 17, 15, 14, 14, 13, 17, 17])
    points, radii = spline(knots, wide * rng.uniform(0.75, 1.0), step_mm=2.5)
    radii = radii * (1 + 0.13 * np.sin(np.arange(len(points)) * 2.5 / 28 * 2 * np.pi))
    tube = canvas.tube(points, radii)
    if tube is None:
        return
    region = tube.region
    distance = canvas.within(tube, Organ.ABDOMINAL_FAT, Organ.BOWEL, Organ.MUSCLE)
    canvas.paint(region, distance, hu["gut_wall"], Organ.BOWEL)
    stool = 10 + 45 * canvas.noise("stool", region)
    crumbs = canvas.noise("crumbs", region)
    stool = np.where(crumbs > 1.1, np.float32(-500), stool)
    canvas.paint(region, distance + 2.6, stool)
    for _ in range(int(rng.integers(3, 7))):
        at = int(rng.integers(0, len(points) - 22))
        part = slice(at, at + int(rng.integers(8, 22)))
        _paint_bubbles(canvas, points[part] - (0, 5, 0), radii[part] * 0.72 - 1.5)


def _paint_mesentery(canvas: Canvas, hu: dict[str, float], front: float) -> None:
    """Small vessels in the fat, so that it is not empty."""
    rng = canvas.rng("mesentery")
    low, high = np.array([-90.0, -60 - front, -320]), np.array([90.0, 20, -120])
    root = np.array([4.0, -16, -150])
    rows = []
    for end in rng.uniform(low, high, (46, 3)):
        middle = (root + end) / 2 + rng.normal(0, 10, 3)
        rows.append(spline([root + rng.normal(0, 12, 3), middle, end], 1.0, step_mm=1.6)[0])
    points = np.concatenate(rows)
    tube = canvas.tube(points, np.full(len(points), 1.1))
    if tube is not None:
        canvas.paint(tube.region, canvas.within(tube, Organ.ABDOMINAL_FAT), 0.6 * hu["vein"])
