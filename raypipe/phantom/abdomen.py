"""The solid organs and great vessels of the abdomen.

In: a canvas that holds the body wall. Out: the canvas, painted.
Does not know: the bowel, bones, noise, lesions.
"""

import numpy as np

from raypipe.phantom.build import Build
from raypipe.phantom.canvas import Array, Bounds, Canvas
from raypipe.phantom.organs import LUNGS, Organ
from raypipe.phantom.shapes import ellipsoid, moved, segments, smooth_union, spline
from raypipe.phantom.vessels import grow_tree

ABDOMEN: Bounds = ((-140.0, 140.0), (-125.0, 80.0), (-430.0, 30.0))


def paint_abdomen(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    """Paint fat, then the organs from the back to the front."""
    region = canvas.region(ABDOMEN)
    if region is None:
        return
    room = canvas.smooth(
        lambda x, y, z: np.maximum(build.cavity(x, y, z), z - build.diaphragm_z(x, y)), region
    )
    lungs = np.isin(canvas.organs[region.fine], LUNGS)
    canvas.paint(region, np.where(lungs, np.float32(9), room), hu["fat"] - 2, Organ.ABDOMINAL_FAT)
    _paint_psoas(canvas, build, hu)
    _paint_vessels(canvas, build, hu)
    _paint_liver(canvas, build, hu)
    _paint_spleen(canvas, build, hu)
    _paint_pancreas(canvas, hu)
    _paint_kidneys(canvas, build, hu)
    _paint_adrenals(canvas, build, hu)
    canvas.paint_shape(
        ellipsoid((0, -14, -366), (44, 36, 34)), ((-46, 46), (-52, 24), (-402, -330)), 52.0
    )
    canvas.paint_shape(
        ellipsoid((0, -14, -366), (40, 32, 30)),
        ((-46, 46), (-52, 24), (-402, -330)),
        hu["urine"],
        Organ.BLADDER,
    )


def _under_diaphragm(build: Build, x: Array, y: Array, z: Array) -> Array:
    """Distance to the room an organ under the diaphragm may fill."""
    dome = (z - build.diaphragm_z(x, y)) * 0.75 + 2.5
    return np.asarray(np.maximum(build.cavity(x, y, z) + 3.0, dome))


def _paint_liver(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    rng = canvas.rng("liver")
    fatty = rng.random() < 0.15
    value = hu["liver"] - (35.0 if fatty else 0.0)
    size, tip, left = rng.uniform(0.9, 1.1), rng.uniform(-150, -110), rng.uniform(0.75, 1.15)
    lift = build.dome_mm

    def liver(x: Array, y: Array, z: Array) -> Array:
        right = ellipsoid((-66, -4, -48 + lift), (76 * size, 86, 78 * size))(x, y, z)
        lower = ellipsoid((-92, 4, tip + 40), (36, 58, 62), turn_deg=(0, -10, 0))(x, y, z)
        lobe = ellipsoid((8, -52, -32 + lift), (64 * left, 34, 36), turn_deg=(0, 12, 0))(x, y, z)
        whole = smooth_union(smooth_union(right, lower, 25), lobe, 22)
        fissure = 7 - np.hypot(x + 12, (y + 70) * 0.5) - 0.1 * (z + 40)
        return np.asarray(np.maximum.reduce([whole, _under_diaphragm(build, x, y, z), fissure]))

    region = canvas.region(((-140, 85), (-100, 90), (-180, 25)))
    if region is None:
        return
    canvas.paint(region, canvas.smooth(liver, region), value, Organ.LIVER)
    _paint_liver_vessels(canvas, hu, value, lift)
    center = (-48, -52, -98 + lift * 0.5)
    full = rng.uniform(0.6, 1.25)
    for grow, filling in ((2.2, hu["gut_wall"]), (0.0, hu["bile"])):
        canvas.paint_shape(
            ellipsoid(
                center, (13 * full + grow, 17 * full + grow, 30 + grow), turn_deg=(25, 10, 0)
            ),
            ((-80, -15), (-85, -10), (-140, -50)),
            filling,
            Organ.GALLBLADDER,
        )


def _paint_liver_vessels(canvas: Canvas, hu: dict[str, float], liver: float, lift: float) -> None:
    rng = canvas.rng("liver vessels")
    targets = moved(rng.uniform((-125, -75, -110), (30, 60, 5), (130, 3)), 0, 0, lift)
    for root, part, radius in (
        (np.array([-24.0, 8.0, -5.0 + lift]), targets[:65], 5.0),
        (np.array([-22.0, -12.0, -70.0 + lift]), targets[65:], 6.0),
    ):
        tree = grow_tree(root, part, leaf_radius_mm=0.9, root_radius_mm=radius, rng=rng)
        points, radii = segments(
            tree.start, tree.end, tree.radii_start, tree.radii_end, step_mm=1.6
        )
        tube = canvas.tube(points, radii - 0.2)
        if tube is not None:
            inside = canvas.within(tube, Organ.LIVER)
            value = 0.75 * hu["hepatic_vein"] + 0.25 * liver
            canvas.paint(tube.region, inside, value, edge_mm=2.2)


def _paint_spleen(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    size = canvas.rng("spleen").uniform(0.8, 1.2)

    def spleen(x: Array, y: Array, z: Array) -> Array:
        body = ellipsoid((96, 34, -48), (27 * size, 44, 52 * size), turn_deg=(20, -12, -25))(
            x, y, z
        )
        hilum = 26 - np.hypot(x - 58, y - 18)
        return np.asarray(np.maximum.reduce([body, hilum, _under_diaphragm(build, x, y, z)]))

    region = canvas.region(((40, 140), (-25, 95), (-125, 25)))
    if region is None:
        return
    value = hu["spleen"] + np.zeros(region.shape, np.float32)
    if hu["blood"] > 180:  # the red pulp enhances in bands while the arteries are full
        value += 14 * canvas.noise("spleen bands", region, step=2)
    canvas.paint(region, canvas.smooth(spleen, region), value, Organ.SPLEEN)


def _paint_pancreas(canvas: Canvas, hu: dict[str, float]) -> None:
    rng = canvas.rng("pancreas")
    knots = np.array([(-30, -12, -132), (-18, -26, -118), (2, -32, -102), (34, -14, -92)])
    knots = np.concatenate([knots, [(72, 12, -72)]]) + rng.normal(0, 4, (5, 3))
    points, radii = spline(knots, np.array([13, 12, 8, 9, 8]) * rng.uniform(0.75, 1.1))
    lobules = radii * (1 + 0.16 * rng.standard_normal(len(radii)))
    points = points + rng.normal(0, 1.2, points.shape)
    canvas.paint_tube(points, lobules, hu["pancreas"], Organ.PANCREAS)


def _kidney_center(canvas: Canvas, sign: float) -> tuple[float, float, float]:
    rng = canvas.rng(f"kidney {sign}")
    return (
        sign * (60 + rng.normal(0, 3)),
        26 + rng.normal(0, 3),
        (-132 if sign > 0 else -145) + rng.normal(0, 6),
    )


def _paint_kidneys(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    for sign, organ in ((-1.0, Organ.KIDNEY_RIGHT), (1.0, Organ.KIDNEY_LEFT)):
        rng = canvas.rng(f"kidney size {sign}")
        x0, y0, z0 = _kidney_center(canvas, sign)
        size = rng.uniform(0.88, 1.12)
        turn = (10.0, -12.0 * sign, -28.0 * sign)
        region = canvas.region(((x0 - 48, x0 + 48), (y0 - 48, y0 + 48), (z0 - 66, z0 + 66)))
        if region is None:
            continue
        clear = ellipsoid((x0, y0, z0), (38 * size, 36 * size, 64 * size), turn_deg=turn)
        canvas.paint(region, canvas.smooth(clear, region), hu["fat"], Organ.ABDOMINAL_FAT)
        outer = ellipsoid((x0, y0, z0), (28 * size, 26 * size, 54 * size), turn_deg=turn)
        sinus = ellipsoid((x0 - sign * 17, y0 - 8, z0), (21, 12, 27), turn_deg=turn)
        body = canvas.smooth(outer, region)
        depth = -body
        rays = canvas.noise(f"pyramids {sign}", region, step=2)
        cortex = np.clip((8.0 - depth + 3.5 * rays) / 2.5, 0, 1)
        value = hu["kidney"] + (hu["renal_cortex"] - hu["kidney"]) * cortex
        canvas.paint(region, body, value, organ)
        canvas.paint(region, canvas.smooth(sinus, region), hu["fat"] + 15, Organ.RENAL_SINUS)
        _paint_collecting_system(canvas, hu, (x0, y0, z0), sign)


def _paint_collecting_system(
    canvas: Canvas, hu: dict[str, float], center: tuple[float, float, float], sign: float
) -> None:
    x0, y0, z0 = center
    full = canvas.rng(f"pelvis {sign}").uniform(0.7, 1.5)
    pelvis = [(x0 - sign * 12, y0 - 6, z0 + 2), (x0 - sign * 26, y0 - 13, z0 - 4)]
    points, radii = spline([*pelvis, (x0 - sign * 30, y0 - 16, z0 - 30)], [3.2, 4.2, 2.0])
    for dz in (-24, -8, 9, 25):
        calyx, width = spline(
            [(x0 - sign * 12, y0 - 6, z0 + 2), (x0 - sign * 6, y0 - 3, z0 + dz)], [2.5, 2.8]
        )
        points, radii = np.concatenate([points, calyx]), np.concatenate([radii, width])
    canvas.paint_tube(points, radii * full, hu["urine"], Organ.RENAL_SINUS)
    hilum = [(x0 - sign * 14, y0 - 10, z0 + 6), (x0 - sign * 45, y0 - 16, z0 + 10)]
    canvas.paint_tube(*spline(hilum, 2.6), hu["vein"], Organ.VEIN)


def _paint_adrenals(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    for organ, apex, legs in (
        (Organ.ADRENAL_LEFT, (36, 16, -78), ((44, 32, -92), (30, 34, -92))),
        (Organ.ADRENAL_RIGHT, (-32, 24, -70), ((-40, 42, -86), (-29, 44, -84))),
    ):
        parts = [spline([apex, leg], [2.6, 2.0], step_mm=1.2)[0] for leg in legs]
        rows = np.concatenate([moved(p, 0, 0, dz) for p in parts for dz in (-8, -4, 0, 4)])
        radii = np.full(len(rows), 2.4) * canvas.rng(f"{organ.name}").uniform(0.8, 1.15)
        around = np.concatenate([rows, rows])
        canvas.paint_tube(around, np.tile(radii + 5.0, 2), hu["fat"], Organ.ABDOMINAL_FAT)
        canvas.paint_tube(rows, radii, hu["adrenal"], organ)


def _paint_psoas(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    z = np.linspace(-70, -330, 9)
    spine = build.spine_y(z.astype(np.float32))
    for sign in (-1.0, 1.0):
        x = sign * np.interp(z, (-330, -210, -70), (62, 42, 24))
        knots = np.stack([x, np.minimum(spine + 4, 50), z], axis=1)
        radii = np.interp(z, (-330, -220, -120, -70), (20, 22, 14, 6))
        canvas.paint_tube(*spline(knots, radii), hu["muscle"], Organ.MUSCLE)
        crus = [(sign * 10, 40, -110), (sign * 14, 26, -60), (sign * 20, 20, -22)]
        canvas.paint_tube(*spline(crus, [5, 5, 3]), hu["muscle"], Organ.MUSCLE)


def _paint_vessels(canvas: Canvas, build: Build, hu: dict[str, float]) -> None:
    wide = canvas.rng("aorta").uniform(0.88, 1.2)
    z = np.array([112.0, 60, 10, -40, -90, -140, -190, -205])
    y = build.spine_y(z.astype(np.float32)) - np.interp(z, (-200, -60, 110), (27, 30, 30))
    x = np.interp(z, (-205, -60, 112), (4, 8, 22))
    aorta, radii = spline(np.stack([x, y, z], 1), np.linspace(12.5, 8.5, 8) * wide)
    canvas.paint_tube(aorta, radii, hu["blood"], Organ.AORTA)
    rng = canvas.rng("plaque")
    if rng.random() < 0.5:  # calcified plaques on the wall
        spots = rng.integers(0, len(aorta), 26)
        angle = rng.uniform(0, 2 * np.pi, 26)
        wall = np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1) * radii[spots, None] * 0.95
        canvas.paint_tube(aorta[spots] + wall, rng.uniform(0.5, 1.6, 26), 620.0)
    for sign in (-1.0, 1.0):
        iliac = [(4 + 3 * sign, y[-1], -200), (sign * 30, 34, -250), (sign * 58, 0, -330)]
        canvas.paint_tube(*spline([*iliac, (sign * 70, -45, -400)], 5.5), hu["blood"], Organ.AORTA)
        vein = [(-14, y[-1] + 5, -212), (sign * 32, 46, -255), (sign * 54, 10, -335)]
        canvas.paint_tube(*spline([*vein, (sign * 62, -38, -400)], 6.5), hu["vein"], Organ.VEIN)
    cava = [(-14, y[-1] + 4, -212), (-22, 14, -140), (-24, 12, -70), (-26, 4, -10), (-26, -12, 45)]
    canvas.paint_tube(*spline(cava, [9, 10.5, 11, 12, 12]), hu["vein"], Organ.VEIN)
    portal = [(-4, -16, -112), (-16, -14, -88), (-34, -14, -66)]
    canvas.paint_tube(*spline(portal, 7), hu["hepatic_vein"], Organ.VEIN)
    splenic = [(-4, -16, -106), (35, -4, -86), (78, 24, -64)]
    canvas.paint_tube(*spline(splenic, 4), hu["hepatic_vein"], Organ.VEIN)
    mesenteric = [(8, 8, -98), (8, -12, -112), (4, -18, -160), (0, -20, -220)]
    canvas.paint_tube(*spline(mesenteric, [4, 4, 3.5, 2.5]), hu["blood"], Organ.AORTA)
