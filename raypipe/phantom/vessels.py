"""Branching trees that fill an organ: pulmonary vessels and bronchi, hepatic vessels.

In: a root and points that the tree has to reach, template mm. Out: segments with radii that
follow Murray's law (the cube of a parent's radius is the sum of its children's cubes).
Does not know: voxels, Hounsfield units.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Tree:
    """Segments (n): from, to, radius at each end, all in mm."""

    start: Points
    end: Points
    radii_start: Points
    radii_end: Points


def grow_tree(
    root: Points,
    targets: Points,
    *,
    leaf_radius_mm: float,
    root_radius_mm: float,
    rng: np.random.Generator,
) -> Tree:
    """Join targets, nearest first, to the node that keeps the way to the root short."""
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    step = 9.0
    capacity = 1 + int(np.sum(np.linalg.norm(targets - root, axis=1) / step + 2))
    nodes = np.empty((capacity, 3))
    way = np.empty(capacity)
    parent = np.zeros(capacity, np.int64)
    nodes[0], way[0], n = root, 0.0, 1
    for target in targets[order]:
        gap = np.linalg.norm(nodes[:n] - target, axis=1)
        best = int(np.argmin(gap + 0.35 * way[:n]))
        pieces = max(1, round(float(gap[best]) / step))
        last = best
        for k in range(1, pieces + 1):
            t = k / pieces
            point = nodes[best] * (1 - t) + target * t
            if k < pieces:
                point = point + rng.normal(0.0, 0.12 * step, 3)
            nodes[n], parent[n] = point, last
            way[n] = way[last] + np.linalg.norm(point - nodes[last])
            last, n = n, n + 1
    return _with_radii(nodes[:n], parent[:n], leaf_radius_mm, root_radius_mm)


def _with_radii(nodes: Points, parent: NDArray[np.int64], leaf: float, root: float) -> Tree:
    cubes = np.zeros(len(nodes))
    has_child = np.zeros(len(nodes), bool)
    has_child[parent[1:]] = True
    cubes[~has_child] = leaf**3
    for i in range(len(nodes) - 1, 0, -1):  # children stand after their parents
        cubes[parent[i]] += cubes[i]
    radii = np.cbrt(cubes)
    power = np.log(root / leaf) / np.log(max(radii[0] / leaf, 1.01))
    radii = leaf * (radii / leaf) ** power
    kids = np.arange(1, len(nodes))
    thick = np.minimum(radii[parent[kids]], radii[kids] * 1.25)
    return Tree(
        start=nodes[parent[kids]], end=nodes[kids], radii_start=thick, radii_end=radii[kids]
    )
