"""Which cell answers for which lesion.

In: true boxes of a slice, the strides of the levels. Out: for every cell the index of its box or
-1, and how central the cell is. Does not know: images, losses.

Shape suffixes: N cells of all levels, M boxes of a slice.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from raypipe.model.encoder import IMAGE_SIZE
from raypipe.model.heads import cell_centers

LONGEST_EDGE_STRIDES = 6.0
"""A level answers for boxes whose longer edge is up to so many of its strides; the last for all."""
OVERLAP = 0.8
"""Levels overlap: each begins at this share of the next finer level's limit."""
CORE_STRIDES = 1.5
"""Cells within so many strides of a box's centre may answer for it, ..."""
LEAST_STRIDES = 0.71
"""... and at least those within this reach, so that no lesion falls between two cells."""
NO_LESION, CUT_LESION = -1, -2
"""In place of a cell's class: nothing is there, or a part of a lesion whose middle is not in view,
which is neither right nor wrong to claim."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """All cells of a network, finest level first.

    Args:
        centers_n2: x, y in pixels.
        stride_n: pixels a cell.
        lower_n, upper_n: range of the longer edge, in pixels, that the cell's level answers for.
        image_size: edge of what the cells cover, in pixels.
    """

    centers_n2: Tensor
    stride_n: Tensor
    lower_n: Tensor
    upper_n: Tensor
    image_size: int


def make_grid(strides: Sequence[int], image_size: int = IMAGE_SIZE) -> Grid:
    """The cells of levels with these strides, finest first."""
    centers, stride, lower, upper = [], [], [], []
    for level, s in enumerate(strides):
        cells = cell_centers(image_size // s, image_size // s, s, "cpu")
        centers.append(cells)
        stride.append(torch.full((len(cells),), float(s)))
        first, last = level == 0, level == len(strides) - 1
        low = 0.0 if first else LONGEST_EDGE_STRIDES * strides[level - 1] * OVERLAP
        lower.append(torch.full((len(cells),), low))
        upper.append(torch.full((len(cells),), 1e9 if last else LONGEST_EDGE_STRIDES * s))
    return Grid(
        centers_n2=torch.cat(centers),
        stride_n=torch.cat(stride),
        lower_n=torch.cat(lower),
        upper_n=torch.cat(upper),
        image_size=image_size,
    )


def assign(boxes_m4: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Give every cell of one slice its box.

    Args:
        boxes_m4: centre x, centre y, width, height in pixels.
        grid: the cells.

    Returns:
        (N,) int64, index of the box or -1; (N,) float32, 1 at the box's centre and falling to 0
        at its edge (0 where there is no box). Where several boxes claim a cell, the smallest gets
        it.
    """
    count = len(grid.centers_n2)
    if len(boxes_m4) == 0:
        return torch.full((count,), -1, dtype=torch.int64), torch.zeros(count)
    away_nm2 = (grid.centers_n2[:, None] - boxes_m4[None, :, :2]).abs()
    half_m2 = boxes_m4[:, 2:] / 2.0
    longer_m = boxes_m4[:, 2:].amax(dim=1)
    stride_n1 = grid.stride_n[:, None]
    reach = half_m2.clamp(max=1e9)[None].minimum(CORE_STRIDES * stride_n1[..., None])
    reach = reach.maximum(LEAST_STRIDES * stride_n1[..., None])
    claims = (away_nm2 <= reach).all(dim=2)
    claims &= (longer_m >= grid.lower_n[:, None]) & (longer_m < grid.upper_n[:, None])
    area_m = boxes_m4[:, 2] * boxes_m4[:, 3]
    cost = torch.where(claims, area_m[None], torch.inf)
    best, index = cost.min(dim=1)
    index = torch.where(torch.isfinite(best), index, -1)
    central = 1.0 - away_nm2 / half_m2[None].maximum(stride_n1[..., None])
    of_own = central.clamp(0.0, 1.0).prod(dim=2).sqrt()
    picked = of_own.gather(1, index.clamp(min=0)[:, None]).squeeze(1)
    return index, torch.where(index >= 0, picked, 0.0)
