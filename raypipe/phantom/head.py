"""A head: scalp, skull, face, brain with folds, ventricles.

In: an empty canvas. Out: the canvas, painted.
Does not know: noise, lesions.

Template axes: x to the patient's left, y to the back, z to the head; origin amid the brain.
"""

import numpy as np

from raypipe.phantom.canvas import Array, Bounds, Canvas, Region
from raypipe.phantom.face import paint_face, paint_neck
from raypipe.phantom.organs import Organ
from raypipe.phantom.shapes import ellipsoid, moved, smooth_union, spline

SKULL: Bounds = ((-90.0, 90.0), (-110.0, 115.0), (-80.0, 100.0))


def cranium(x: Array, y: Array, z: Array) -> Array:
    """Distance to the outside of the skull's vault."""
    wide = 74 + 4 * np.clip(y / 60, -1, 1)  # wider behind the ears than at the brow
    radius = np.abs(x / wide) ** 2.2 + np.abs((y - 4) / 93) ** 2.1 + np.abs((z - 4) / 84) ** 2.2
    return np.asarray((radius ** (1 / 2.15) - 1) * 78, np.float32)


def brain_cavity(x: Array, y: Array, z: Array) -> Array:
    """Distance to the inside of the skull: the vault above the three fossae."""
    wide = 68 + 4 * np.clip(y / 60, -1, 1)
    radius = np.abs(x / wide) ** 2.2 + np.abs((y - 4) / 86.5) ** 2.1 + np.abs((z - 4) / 77) ** 2.2
    vault = (radius ** (1 / 2.15) - 1) * 72
    middle = np.interp(np.abs(x), (0, 14, 24, 60), (-20, -26, -40, -40))
    floor = np.interp(y, (-95, -40), (-12, -24))
    floor = np.where(y < -20 - 0.3 * np.abs(x), floor, middle)
    behind = np.clip((y - 4) / 22, 0, 1)
    floor = floor * (1 - behind) + behind * (-62 + 0.012 * (y - 40) ** 2)
    return np.asarray(np.maximum(vault, (floor - z) * 0.8), np.float32)


def paint_head(canvas: Canvas, hu: dict[str, float]) -> None:
    """Paint a head on its holder."""
    region = canvas.whole

    def skin(x: Array, y: Array, z: Array) -> Array:
        face = ellipsoid((0, -34, -70), (60, 66, 72))(x, y, z)
        neck = np.maximum((np.hypot(x / 56, (y - 22) / 60) - 1) * 56, z + 50)
        nose = ellipsoid((0, -98, -66), (13, 20, 18), turn_deg=(-25, 0, 0))(x, y, z)
        whole = smooth_union(cranium(x, y, z) - 6.0, smooth_union(face, neck, 25), 25)
        return np.asarray(smooth_union(whole, nose, 10))

    outside = canvas.smooth(skin, region)
    canvas.paint(region, outside, hu["skin"], Organ.SKIN)
    canvas.paint(region, outside + 1.8, hu["fat"] + 15, Organ.SUBCUTANEOUS_FAT)
    deep = canvas.smooth(
        lambda x, y, z: np.minimum(cranium(x, y, z) - 1.5, skin(x, y, z) + 8), region
    )
    lines = np.clip(1 - np.abs(canvas.noise("septa", region, step=2)) / 0.15, 0, 1)
    canvas.paint(region, np.maximum(deep, outside + 2.5), hu["muscle"] - 60 * lines, Organ.MUSCLE)
    paint_neck(canvas, hu)
    _paint_skull(canvas, hu)
    paint_face(canvas, hu)
    _paint_brain(canvas, hu)
    _paint_holder(canvas)


def _paint_skull(canvas: Canvas, hu: dict[str, float]) -> None:
    region = canvas.region(SKULL)
    if region is None:
        return
    outer, inner = canvas.smooth(cranium, region), canvas.smooth(brain_cavity, region)
    base = canvas.smooth(lambda x, y, z: z + 10 - 0.18 * y, region)
    thick = 9.0 + 2.0 * canvas.noise("skull base", region, step=2)
    bone = np.maximum.reduce([outer, -inner, inner - np.where(base < 0, thick, 14)])
    depth = np.minimum(-outer, inner)
    shell = np.exp(-np.clip(depth, 0, None) / 1.3)
    marrow = hu["diploe"] * (1 + 0.2 * canvas.noise("diploe", region))
    canvas.paint(region, bone, marrow + (hu["skull"] - marrow) * shell, Organ.BONE)
    for sign in (-1.0, 1.0):
        petrous = ellipsoid((sign * 36, 12, -42), (30, 9, 10), turn_deg=(0, 0, -28 * sign))
        box = ((-72.0, 72.0), (-15.0, 42.0), (-58.0, -26.0))
        part = canvas.region(box)
        if part is None:
            continue
        canvas.paint(part, canvas.sharp(petrous, part), 1000.0, Organ.BONE)
        cells = canvas.noise(f"air cells {sign}", part)
        mastoid = ellipsoid((sign * 56, 26, -46), (12, 13, 15))
        air = np.maximum(canvas.sharp(mastoid, part), 2.2 * (0.1 - cells))
        canvas.paint(part, air, -750.0, Organ.SINUS_AIR)


def _paint_brain(canvas: Canvas, hu: dict[str, float]) -> None:
    region = canvas.region(SKULL)
    if region is None:
        return
    rng = canvas.rng("brain")
    atrophy = rng.uniform(0.2, 1.3)
    inside = canvas.smooth(brain_cavity, region)
    canvas.paint(region, inside, hu["csf"] + 3, Organ.CSF)
    # folds: the zero surfaces of a smooth noise are sulci; grey matter lines them
    fold = np.abs(canvas.noise("folds", region, step=2) + 0.45 * canvas.noise("folds 2", region))
    depth = -inside - (1.0 + 0.9 * atrophy)
    sulcus = fold * 5.5 + np.clip((depth - 10) / 3, 0, 9)
    middle = np.abs(canvas.smooth(lambda x, y, z: x, region))
    deep = canvas.smooth(lambda x, y, z: np.hypot(y / 1.5, z - 8) - 26, region)
    cleft = np.where(deep > 0, middle, np.float32(9))
    gap = np.minimum.reduce([depth, sulcus - 0.25 - 0.75 * atrophy, cleft - 0.7])
    canvas.paint(region, -gap, hu["grey"], Organ.BRAIN)
    canvas.paint(region, 4.2 - np.minimum(gap, sulcus), hu["white"], edge_mm=2.5)
    _paint_deep_grey(canvas, hu)
    _paint_cerebellum(canvas, hu, region, inside)
    _paint_fluid(canvas, hu, atrophy)
    falx = np.maximum.reduce([middle - 0.7, inside + 1.5, -deep])
    canvas.paint(region, falx, 58.0)
    canvas.paint_tube(
        *spline([(0, -70, 38), (0, -20, 74), (0, 40, 68), (0, 84, 15)], 3.0), hu["vein"] + 12
    )
    rim = np.exp(-np.clip(-inside, 0, None) / 9.0) * (inside < 0)
    canvas.hu[region.fine] += 4.0 * rim  # what beam hardening leaves under the vault


def _paint_deep_grey(canvas: Canvas, hu: dict[str, float]) -> None:
    for sign in (-1.0, 1.0):
        for center, radii, turn in (
            ((26, -4, 4), (5.5, 19, 12), 12),
            ((12, 9, 8), (9, 15, 10), 20),
            ((14, -29, 12), (5, 9, 9), 15),
            ((36, -2, 4), (2.5, 24, 16), 8),
        ):
            middle = (sign * center[0], center[1], center[2])
            shape = ellipsoid(middle, radii, turn_deg=(0, 0, -turn * sign))
            bounds = tuple((c - 26.0, c + 26.0) for c in middle)
            region = canvas.region((bounds[0], bounds[1], bounds[2]))
            if region is not None:
                canvas.paint(region, canvas.sharp(shape, region), hu["grey"] + 1.5, edge_mm=3.0)


def _paint_cerebellum(canvas: Canvas, hu: dict[str, float], region: Region, inside: Array) -> None:
    def under_tent(x: Array, y: Array, z: Array) -> Array:
        tent = z + 14 - 0.25 * (48 - np.abs(x)) * np.clip((y - 5) / 40, 0, 1)
        return np.asarray(
            np.maximum.reduce([tent, 10 + 0.35 * np.abs(x) - y, np.abs(x) - 56]), np.float32
        )

    tent = canvas.smooth(under_tent, region)
    folia = np.abs(canvas.noise("folia", region))
    body = np.maximum(tent + 1.5, inside + 2.5)
    canvas.paint(
        region,
        np.where(tent < 4, np.abs(tent) - 1.2, np.float32(9)) + np.where(inside < -2, 0, 9),
        hu["csf"] + 14,
    )
    canvas.paint(region, body, hu["grey"] - 1.5 * np.clip(1 - 2 * folia, 0, 1), Organ.BRAIN)
    canvas.paint(region, body + 12, hu["white"] + 3, edge_mm=6.0)
    stem, radii = spline([(0, 4, -14), (0, 7, -28), (0, 14, -48), (0, 20, -80)], [12, 14, 12, 9])
    tube = canvas.tube(moved(stem[4:], 0, 1, 0), radii[4:] + 3.5)
    if tube is not None:
        cistern = np.maximum(tube.distance, _part(inside, region, tube.region))
        canvas.paint(tube.region, cistern, hu["csf"] + 2, Organ.CSF)
    canvas.paint_tube(stem, radii, hu["white"] + 3, Organ.BRAIN)


def _part(distance: Array, whole: Region, wanted: Region) -> Array:
    """A distance on another region; 9 mm where that reaches beyond the one it is known on."""
    part = np.full(wanted.shape, 9.0, np.float32)
    known, at = [], []
    for have, want in zip(whole.fine, wanted.fine, strict=True):
        start = max(have.start, want.start)
        stop = max(start, min(have.stop, want.stop))
        known.append(slice(start - have.start, stop - have.start))
        at.append(slice(start - want.start, stop - want.start))
    part[tuple(at)] = distance[tuple(known)]
    return part


def _paint_fluid(canvas: Canvas, hu: dict[str, float], atrophy: float) -> None:
    wide = 0.75 + 0.4 * atrophy
    for sign in (-1.0, 1.0):
        horn = [(9, -38, 10), (10, -20, 17), (13, 5, 24), (21, 28, 18), (25, 42, 8), (19, 60, 6)]
        radii = np.array([3.5, 5, 4.5, 6.5, 5.5, 2.5]) * wide
        tip = [(23, 34, 12), (33, 20, -8), (33, 0, -18), (30, -10, -20)]
        points, widths = spline([(sign * x, y, z) for x, y, z in horn], radii, step_mm=1.5)
        more, thin = spline([(sign * x, y, z) for x, y, z in tip], [4 * wide, 2, 1.8, 1.5])
        both, width = np.concatenate([points, more]), np.concatenate([widths, thin])
        canvas.paint_tube(both, width, hu["csf"], Organ.CSF)
        if canvas.rng("choroid").random() < 0.6:
            canvas.paint_tube(*spline([(sign * 21, 30, 16), (sign * 23, 36, 12)], 1.6), 140.0)
        sylvian = [
            (sign * 62, -22, -2),
            (sign * 42, -12, 0),
            (sign * 40, 4, 6),
            (sign * 56, 22, 10),
        ]
        canvas.paint_tube(*spline(sylvian, 1.3 * wide), hu["csf"] + 2, Organ.CSF)
    third, widths = spline([(0, -16, -4), (0, 0, 4), (0, 14, 4)], 1.7 * wide)
    rows = np.concatenate([moved(third, 0, 0, dz) for dz in (-6, -3, 0, 3)])
    canvas.paint_tube(rows, np.tile(widths, 4), hu["csf"], Organ.CSF)
    canvas.paint_tube(*spline([(0, 30, -26), (0, 33, -40)], [3, 6]), hu["csf"], Organ.CSF)
    star = [(-12, -16, -18), (12, -16, -18), (10, 18, -2), (-10, 18, -2)]
    canvas.paint_tube(*spline([*star, star[0]], 3.2), hu["csf"] + 2, Organ.CSF)
    canvas.paint_tube(np.array([[0.0, 22, 4], [1.5, 23, 5]]), np.array([2.0, 1.5]), 160.0)


def _paint_holder(canvas: Canvas) -> None:
    def cup(x: Array, y: Array, z: Array) -> Array:
        ring = np.abs((np.hypot(x / 104, (y - 8) / 112) - 1) * 106) - 1.6
        return np.asarray(np.maximum(ring, 20 - y), np.float32)

    region = canvas.region(((-120, 120), (0, 130), (-400, 400)))
    if region is not None:
        air = canvas.organs[region.fine] == Organ.AIR
        distance = canvas.sharp(cup, region)
        canvas.paint(region, np.where(air, distance, np.float32(9)), 60.0, Organ.TABLE)
