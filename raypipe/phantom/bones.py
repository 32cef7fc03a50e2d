"""The skeleton of the torso: spine, ribs, sternum, shoulder girdle, pelvis.

In: a canvas that holds the body wall. Out: the canvas, painted.
Does not know: organs, noise.
"""

import numpy as np

from raypipe.phantom.build import VERTEBRA_Z, Build
from raypipe.phantom.canvas import Array, Canvas, Region, Shape
from raypipe.phantom.organs import Organ
from raypipe.phantom.shapes import Points, ellipsoid, ellipsoid_bounds, moved, spline


def paint_bone(
    canvas: Canvas,
    region: Region,
    distance: Array,
    hu: dict[str, float],
    *,
    cortex_mm: float = 1.6,
    organ: Organ = Organ.BONE,
) -> None:
    """Paint a bone: a dense shell around spongy bone."""
    air = canvas.organs[region.fine] <= Organ.TABLE  # a bone never sticks out of the skin
    distance = np.where(air, np.float32(9), distance)
    core = hu["trabecular"] * (1.0 + 0.12 * canvas.noise("spongy bone", region))
    shell = np.exp(np.minimum(distance, 0) / np.float32(cortex_mm))
    canvas.paint(region, distance, core + (hu["cortical"] - core) * shell, organ)


def paint_bones(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    """Paint every bone of the torso."""
    _paint_spine(canvas, build, hu)
    _paint_ribs(canvas, build, hu)
    _paint_sternum(canvas, hu)
    _paint_shoulders(canvas, hu)
    _paint_pelvis(canvas, hu)


def _vertebra(build: Build, canvas: Canvas, region: Region) -> tuple[Array, Array, Array]:
    """Distances to bone, to the discs and to the canal."""
    centers = np.sort(VERTEBRA_Z)
    pitch = np.gradient(centers)

    def fields(x: Array, y: Array, z: Array) -> Array:
        nearest = np.clip(np.searchsorted((centers[1:] + centers[:-1]) / 2, z), 0, len(centers) - 1)
        half = (0.39 * pitch[nearest]).astype(np.float32)
        dz = z - centers[nearest].astype(np.float32)
        u, v = x - build.spine_x(z), y - build.spine_y(z)
        wide = np.interp(z, (-230, -60, 100, 200), (25, 20, 15, 13)).astype(np.float32)
        deep = 0.72 * wide
        waist = 1.0 - 0.08 * np.clip(1 - np.abs(dz) / half, 0, 1)
        body = (np.sqrt((u / (wide * waist)) ** 2 + (v / (deep * waist)) ** 2) - 1) * deep
        disc = np.maximum(body, half - np.abs(dz))
        body = np.maximum(body, np.abs(dz) - half)
        rear = v - deep - 9
        canal = np.sqrt((u / 1.25) ** 2 + rear**2) - 7.5
        ring = np.abs(np.sqrt((u / 1.3) ** 2 + rear**2) - 11.5) - 3.2
        ring = np.maximum(ring, np.abs(dz + 0.15 * rear) - 0.72 * half)
        spine = np.maximum.reduce(
            [np.abs(u) - 3.2, np.abs(rear - 20) - 11, np.abs(dz + 0.45 * (rear - 12)) - 6.5]
        )
        arm = np.maximum.reduce(
            [
                np.abs(np.abs(u) - 22) - 13,
                np.abs(rear - 2 - 0.3 * (np.abs(u) - 10)) - 3.6,
                np.abs(dz - 2) - 6,
            ]
        )
        bone = np.minimum.reduce([body, ring, spine, arm])
        bone = np.maximum(bone, -250 - z)
        return np.stack([bone, np.maximum(disc, -250 - z), np.maximum(canal, -300 - z)])

    bone, disc, canal = canvas.sharp(fields, region)
    return bone, disc, canal


def _paint_spine(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    region = canvas.region(((-52, 52), (5, 128), (-262, 262)))
    if region is None:
        return
    bone, disc, canal = _vertebra(build, canvas, region)
    canvas.paint(region, disc, hu["disc"], Organ.MUSCLE)  # soft: no lesion of bone lies in it
    canvas.paint(region, canal, 18.0, Organ.CSF)
    canvas.paint(region, canal + 3.2, hu["cord"], Organ.CSF)
    paint_bone(canvas, region, bone, hu, organ=Organ.VERTEBRA)


def _rib_path(build: Build, number: int, sign: float) -> tuple[Points, int]:
    """Points of one rib and its cartilage (n, 3), and where the cartilage begins."""
    root_z = float(np.sort(VERTEBRA_Z)[::-1][4 + number - 1])
    span = float(np.interp(number, (1, 3, 7, 10, 12), (2.65, 2.7, 2.45, 1.95, 1.25)))
    fall = float(np.interp(number, (1, 3, 7, 10, 12), (38, 62, 92, 88, 60)))
    angle = np.linspace(0.18, span, 90)
    z = root_z - fall * np.clip(angle / 2.2, 0, 1.2) ** 1.25
    bone_end = len(angle)
    if number <= 10:  # the cartilage climbs back to the sternum
        tail = np.linspace(span, min(span + 0.55, 2.98), 25)[1:]
        climb = np.interp(number, (1, 4, 7, 10), (2, 8, 42, 30))
        z = np.concatenate([z, z[-1] + climb * np.linspace(0, 1, len(tail)) ** 1.3])
        angle = np.concatenate([angle, tail])
    x, y = _cage(build, angle, z)
    return np.stack([sign * x, y, z], axis=1), bone_end


def _cage(build: Build, angle: Array, z: Array) -> tuple[Array, Array]:
    """x, y on the rib cage at angles from the back (0) to the front (pi)."""
    radius = np.full(angle.shape, 60.0)
    sin, cos = np.sin(angle), np.cos(angle)
    for _ in range(12):  # march out to where the ribs run, a few mm outside the cavity
        gap = build.cavity(
            (radius * sin).astype(np.float32),
            (radius * cos).astype(np.float32),
            z.astype(np.float32),
        )
        radius = radius + 0.8 * (4.0 - gap)
    return radius * sin, radius * cos


def _paint_ribs(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    bones, cartilages = [], []
    for number in range(1, 13):
        for sign in (-1.0, 1.0):
            path, end = _rib_path(build, number, sign)
            bones.append(_dense(path[:end]))
            if end < len(path):
                cartilages.append(_dense(path[end - 1 :]))
    # a rib is higher than it is thick: two stacked rows of spheres
    rows = np.concatenate(bones)
    both = np.concatenate([moved(rows, 0, 0, 2.6), moved(rows, 0, 0, -2.6)])
    soft = np.concatenate(cartilages)
    canvas.paint_tube(soft, np.full(len(soft), 4.2), hu["cartilage"], Organ.MUSCLE)
    tube = canvas.tube(both, np.full(len(both), 4.1))
    if tube is not None:
        paint_bone(canvas, tube.region, tube.distance, hu, cortex_mm=1.3)


def _dense(path: Points) -> Points:
    points, _ = spline(path[:: max(1, len(path) // 24)], 1.0, step_mm=1.8)
    return points


def _paint_sternum(canvas: Canvas, hu: dict[str, float]) -> None:
    knots = [(0, -76, 22), (0, -88, 60), (0, -82, 100), (0, -68, 140), (0, -58, 160)]
    points, radii = spline(knots, [4.5, 6, 6, 6.5, 6])
    rows = np.concatenate([moved(points, dx, 0, 0) for dx in (-11, -5.5, 0, 5.5, 11)])
    tube = canvas.tube(rows, np.tile(radii, 5))
    if tube is not None:
        paint_bone(canvas, tube.region, tube.distance, hu, cortex_mm=1.2)


def _paint_shoulders(canvas: Canvas, hu: dict[str, float]) -> None:
    for sign in (-1.0, 1.0):
        knots = [(sign * 12, -52, 168), (sign * 60, -52, 182), (sign * 110, -18, 196)]
        points, radii = spline([*knots, (sign * 150, 5, 196)], [8, 5.5, 5.5, 7])
        tube = canvas.tube(points, radii)
        if tube is not None:
            paint_bone(canvas, tube.region, tube.distance, hu)
        blade = ellipsoid((sign * 108, 78, 128), (46, 4.2, 62), turn_deg=(-8, 0, -32 * sign))
        spur = ellipsoid((sign * 122, 82, 172), (38, 5, 8), turn_deg=(0, 0, -38 * sign))
        head = ellipsoid((sign * 160, 22, 184), (23, 22, 22))
        for shape, center, size in (
            (blade, (sign * 108, 78, 128), (50, 40, 64)),
            (spur, (sign * 122, 82, 172), (42, 36, 12)),
            (head, (sign * 160, 22, 184), (24, 24, 24)),
        ):
            _paint_sharp(canvas, shape, center, size, hu)


def _paint_pelvis(canvas: Canvas, hu: dict[str, float]) -> None:
    for sign in (-1.0, 1.0):
        plate = ellipsoid((sign * 98, 26, -262), (6.0, 58, 62), turn_deg=(0, 18 * sign, 24 * sign))
        wing = _bowed(plate, sign)
        socket = ellipsoid((sign * 88, 8, -368), (29, 30, 32))
        ball = ellipsoid((sign * 92, 6, -370), (22, 22, 22))
        neck = ellipsoid((sign * 122, 14, -388), (34, 13, 14), turn_deg=(0, 30 * sign, 0))
        _paint_sharp(canvas, wing, (sign * 98, 26, -262), (40, 64, 66), hu)
        _paint_sharp(canvas, socket, (sign * 88, 8, -368), (30, 32, 34), hu)
        canvas.paint_shape(
            ellipsoid((sign * 92, 6, -370), (25, 25, 25)),
            ellipsoid_bounds((sign * 92, 6, -370), (25, 25, 25)),
            40.0,
        )
        _paint_sharp(canvas, ball, (sign * 92, 6, -370), (24, 24, 24), hu)
        _paint_sharp(canvas, neck, (sign * 122, 14, -388), (36, 16, 30), hu)
    sacrum = ellipsoid((0, 76, -292), (48, 17, 56), turn_deg=(-22, 0, 0))
    _paint_sharp(canvas, sacrum, (0, 76, -292), (52, 40, 60), hu)


def _bowed(plate: Shape, sign: float) -> Shape:
    """The same plate, hollow towards the middle and rough along its crest."""

    def shape(x: Array, y: Array, z: Array) -> Array:
        bow = 0.0045 * (y - 26) ** 2 + 2.5 * np.sin(y / 11 + z / 17)
        return plate(x + np.float32(sign) * bow, y, z)

    return shape


def _paint_sharp(
    canvas: Canvas,
    shape: Shape,
    center: tuple[float, float, float],
    size: tuple[float, float, float],
    hu: dict[str, float],
) -> None:
    (x, y, z), (rx, ry, rz) = center, size
    region = canvas.region(((x - rx, x + rx), (y - ry, y + ry), (z - rz, z + rz)))
    if region is not None:
        paint_bone(canvas, region, canvas.sharp(shape, region), hu)
