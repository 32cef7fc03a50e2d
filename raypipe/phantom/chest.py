"""The organs of the chest: lungs with vessels and bronchi, mediastinum, heart, great vessels.

In: a canvas that holds the body wall. Out: the canvas, painted.
Does not know: bones, noise, lesions.
"""

import numpy as np

from raypipe.phantom.build import Build
from raypipe.phantom.canvas import Array, Bounds, Canvas
from raypipe.phantom.organs import LUNGS, Organ
from raypipe.phantom.shapes import (
    Points,
    ellipsoid,
    ellipsoid_bounds,
    segments,
    smooth_union,
    spline,
)
from raypipe.phantom.vessels import Tree, grow_tree

_ARCH_MM = 20.0
"""Half the width of vertebral arches, canal and all."""

CHEST: Bounds = ((-150.0, 150.0), (-110.0, 110.0), (-105.0, 235.0))


def mediastinum(build: Build, x: Array, y: Array, z: Array) -> Array:
    """Distance to what parts the lungs: pericardium, upper column, spine."""
    heart = ellipsoid((18, -27, 42 + build.dome_mm * 0.5), (64, 50, 58), turn_deg=(0, 20, 15))
    width = np.interp(z, (60, 100, 150, 210), (34, 33, 28, 26)).astype(np.float32)
    depth = np.interp(z, (60, 120, 170, 210), (62, 58, 48, 44)).astype(np.float32)
    center = np.interp(z, (60, 120, 170, 210), (-12, -8, 4, 10)).astype(np.float32)
    column = (np.sqrt(((x - 2) / width) ** 2 + ((y - center) / depth) ** 2) - 1) * width
    column = np.maximum(column, 62 - z)
    sx, sy = x - build.spine_x(z), y - build.spine_y(z) + 12
    spine = (np.sqrt(((sx - 3) / 27) ** 2 + (sy / 32) ** 2) - 1) * 28
    arch = np.maximum(np.abs(sx) - _ARCH_MM, 12 - sy)  # no lung behind a vertebral body
    spine = smooth_union(spine, arch, 8)
    front = np.maximum(np.abs(x - 6) - 11 + 0.12 * (y + 80), y + 40)  # anterior junction
    front = np.maximum(front, np.abs(z - 60) - 120)
    both = smooth_union(heart(x, y, z), column, 22)
    return np.asarray(smooth_union(smooth_union(both, spine, 16), front, 14))


def lung_distance(build: Build, x: Array, y: Array, z: Array) -> Array:
    """Distance to both lungs."""
    above = (build.diaphragm_z(x, y) - z) * 0.75
    apex = z - 205
    return np.asarray(
        np.maximum.reduce([build.cavity(x, y, z) + 3, above, -mediastinum(build, x, y, z), apex])
    )


def paint_chest(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    """Paint the chest's content, from the lungs inwards."""
    region = canvas.region(CHEST)
    if region is None:
        return
    inside = canvas.smooth(
        lambda x, y, z: np.maximum(build.cavity(x, y, z) + 1, build.diaphragm_z(x, y) - z), region
    )
    canvas.paint(region, inside, hu["fat"], Organ.MEDIASTINAL_FAT)
    _paint_lungs(canvas, build, hu)
    _paint_lung_trees(canvas, build, hu)
    _paint_heart(canvas, build, hu)
    _paint_great_vessels(canvas, build, hu)


def _paint_lungs(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    rng = canvas.rng("lungs")
    region = canvas.region(CHEST)
    assert region is not None
    distance = canvas.smooth(lambda x, y, z: lung_distance(build, x, y, z), region)
    slope, dark = rng.uniform(0.25, 0.7), rng.normal(0.0, 14.0)

    def air(x: Array, y: Array, z: Array) -> Array:
        return np.asarray(hu["lung"] + dark + slope * y + 0.0 * z, np.float32)

    value = canvas.smooth(air, region)
    value += 16 * canvas.noise("lung coarse", region, step=3) + 14 * canvas.noise("lung", region)
    value += _fissures(canvas)
    canvas.paint(region, distance, value)
    right = canvas.smooth(lambda x, y, z: x - 4, region) < 0
    inside = distance < 0
    organs = canvas.organs[region.fine]
    organs[inside & right] = Organ.LUNG_RIGHT
    organs[inside & ~right] = Organ.LUNG_LEFT


def _fissures(canvas: Canvas) -> Array:
    """Faint planes: both oblique fissures and the right horizontal one."""
    region = canvas.region(CHEST)
    assert region is not None

    def oblique(x: Array, y: Array, z: Array) -> Array:
        bow = 6 * np.sin(x / 40)
        return np.asarray(0.62 * (z - 55) - 0.78 * (y - 5) + bow, np.float32) * -1

    plane = canvas.smooth(oblique, region)
    return np.asarray(70 * np.clip(1.3 - np.abs(plane), 0, 1), np.float32)


def _paint_lung_trees(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    for side, sign in (("right", -1.0), ("left", 1.0)):
        rng = canvas.rng(f"lung tree {side}")
        targets = _lung_targets(build, rng, sign)
        artery_root = np.array([sign * 34.0, 6.0, 88.0 - (8 if sign < 0 else 0)])
        vein_root = np.array([sign * 30.0, 2.0, 62.0])
        split = len(targets) * 11 // 20
        arteries = grow_tree(
            artery_root, targets[:split], leaf_radius_mm=0.78, root_radius_mm=8.0, rng=rng
        )
        veins = grow_tree(
            vein_root, targets[split:], leaf_radius_mm=0.78, root_radius_mm=6.5, rng=rng
        )
        for tree, name in ((arteries, "blood"), (veins, "vein")):
            _paint_tree(canvas, tree, 0.85 * hu[name], Organ.LUNG_VESSEL)
        _paint_bronchi(canvas, arteries, sign)


def _lung_targets(build: Build, rng: np.random.Generator, sign: float) -> Points:
    low, high = np.array([[8.0, -100, -95], [145, 100, 205]])
    draw = rng.uniform(low, high, (4200, 3)) * (sign, 1.0, 1.0)
    x, y, z = draw.T.astype(np.float32)
    depth = lung_distance(build, x, y, z)
    inside = draw[depth < -3.5]
    return np.asarray(inside[:850])


def _paint_tree(canvas: Canvas, tree: Tree, hu: float, organ: Organ) -> None:
    # a vessel thinner than a voxel fills it in part: shrink it so that its centre is fainter
    step = max(0.8, 0.6 * canvas.pixel_mm)
    points, radii = segments(tree.start, tree.end, tree.radii_start, tree.radii_end, step_mm=step)
    thin = np.minimum(1.0, 1.7 * radii / canvas.pixel_mm)
    seen = np.where(thin < 1.0, (thin - 0.5) * canvas.pixel_mm * 0.9, radii)
    tube = canvas.tube(points, np.minimum(radii, np.maximum(seen, -0.45 * canvas.pixel_mm)))
    if tube is None:
        return
    inside = canvas.within(tube, *LUNGS, Organ.MEDIASTINAL_FAT, Organ.LIVER)
    canvas.paint(tube.region, inside, hu, organ)


def _paint_bronchi(canvas: Canvas, arteries: Tree, sign: float) -> None:
    """Bronchi run beside the wider arteries: a ring beside a dot."""
    wide = arteries.radii_end > 1.35
    wall = np.where(wide, arteries.radii_end, 0)[wide]
    beside = np.array([-0.7 * sign, 0.6, 0.2]) * (wall * 1.9)[:, None]
    start, end = arteries.start[wide] + beside, arteries.end[wide] + beside
    points, radii = segments(start, end, wall * 1.05, wall * 1.0, step_mm=1.2)
    tube = canvas.tube(points, radii)
    if tube is None:
        return
    canvas.paint(tube.region, tube.distance, -250.0)
    canvas.paint(tube.region, tube.distance + 0.32 * canvas.pixel_mm + 0.5, -960.0, Organ.AIRWAY)


def _paint_heart(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    rng = canvas.rng("heart")
    lift = build.dome_mm * 0.5 + 42.0
    size = rng.uniform(0.9, 1.12)
    muscle, blood, venous = hu["myocardium"], hu["blood"], 0.6 * hu["blood"] + 0.4 * hu["vein"]
    chambers = (
        ((38, -24, -6), (37, 31, 47), (0, 30, 25), muscle),  # left ventricle's wall
        ((6, -48, -6), (39, 23, 42), (0, 20, 25), muscle),  # right ventricle's wall
        ((-26, -26, 2), (23, 27, 36), (0, 0, 10), venous),  # right atrium
        ((6, 4, 20), (32, 20, 22), (0, 0, 0), blood),  # left atrium
        ((9, -48, -5), (33, 18, 36), (0, 20, 25), venous),
        ((36, -24, -4), (25, 20, 34), (0, 30, 25), blood),
    )
    for (cx, cy, cz), radii, turn, value in chambers:
        center = (cx, cy, cz + lift)
        scaled = tuple(r * size for r in radii)
        canvas.paint_shape(
            ellipsoid(center, scaled, turn_deg=turn),
            ellipsoid_bounds(center, scaled),
            value,
            Organ.HEART,
        )


def _paint_great_vessels(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    lift = build.dome_mm * 0.3
    wide = canvas.rng("aorta").uniform(0.88, 1.2)
    venous = 0.5 * hu["blood"] + 0.5 * hu["vein"]
    trunk = [(14, -42, 78 + lift), (20, -28, 96), (14, -10, 98), (0, 0, 92)]
    canvas.paint_tube(*spline([*trunk, (-28, 5, 84)], [13, 14, 12, 11, 9]), venous, Organ.VEIN)
    canvas.paint_tube(
        *spline([(14, -10, 98), (28, 4, 95), (36, 8, 90)], [12, 11, 9]), venous, Organ.VEIN
    )
    cava = [(-26, -20, 60), (-25, -16, 90), (-24, -14, 120), (-26, -18, 155)]
    canvas.paint_tube(*spline(cava, [10, 10, 9, 8]), hu["vein"], Organ.VEIN)
    brachiocephalic = [(-26, -18, 150), (0, -34, 160), (32, -26, 172)]
    canvas.paint_tube(*spline(brachiocephalic, 6.5), hu["vein"], Organ.VEIN)
    arch = [(-2, -22, 66 + lift), (-12, -30, 92), (-9, -30, 118), (4, -18, 138)]
    arch += [(16, 4, 141), (21, 22, 128), (22, 34, 110)]
    canvas.paint_tube(
        *spline(arch, np.array([15, 16, 15, 14, 13, 12.5, 12]) * wide), hu["blood"], Organ.AORTA
    )
    for knots, radius in (
        ([(-4, -24, 136), (-14, -20, 158), (-22, -10, 185), (-28, -2, 225)], 5.5),
        ([(6, -14, 140), (10, -8, 165), (20, -2, 195), (27, 0, 225)], 4.0),
        ([(14, 0, 140), (20, 4, 165), (34, 6, 190), (70, -5, 200)], 4.8),
    ):
        canvas.paint_tube(*spline(knots, radius), hu["blood"], Organ.AORTA)
    _paint_tubes_of_the_neck(canvas, hu)


def _paint_tubes_of_the_neck(canvas: Canvas, hu: dict[str, float]) -> None:
    gullet = [(2, 26, 225), (4, 32, 170), (2, 33, 115), (4, 28, 60), (14, 12, 8), (34, 0, -10)]
    points, radii = spline(gullet, 7.0)
    canvas.paint_tube(points, radii, hu["muscle"] - 8, Organ.OESOPHAGUS)
    if canvas.rng("oesophagus").random() < 0.6:
        canvas.paint_tube(points, radii - 5.2, -700.0)
    windpipe, radii = spline([(0, 12, 240), (0, 16, 190), (2, 20, 140), (0, 18, 110)], 8.6)
    canvas.paint_tube(windpipe, radii + 1.8, hu["muscle"], Organ.AIRWAY)
    bronchi = [windpipe]
    for end in ((-34, 14, 84), (38, 16, 90)):
        branch, _ = spline([(0, 18, 110), (end[0] * 0.5, 18, 98), end], 1.0)
        canvas.paint_tube(branch, np.full(len(branch), 7.2), hu["muscle"] - 20, Organ.AIRWAY)
        bronchi.append(branch)
    canvas.paint_tube(windpipe, radii, -985.0, Organ.AIRWAY)
    for branch in bronchi[1:]:
        canvas.paint_tube(branch, np.linspace(6.0, 4.8, len(branch)), -975.0, Organ.AIRWAY)
