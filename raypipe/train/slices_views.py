"""What a classifier sees of slices: the part around the body, on its grid, varied in training.

In: slices with their neighbours in HU. Out: the same, cut, resized and varied. The same seed gives
the same view, whichever worker makes it. Does not know: networks, classes.

Grey is HU through the soft tissue window, 0 to 1: what pictures hold. It is changed there and
becomes HU again, so that pictures and CT take one way.

Shape suffixes: B slices, Z a slice and its neighbours, H W pixels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.knowledge.windows import SOFT_TISSUE
from raypipe.train.slices_config import SliceAugmentConfig, ViewConfig
from raypipe.types import HuArray

Box = tuple[float, float, float, float]
BODY_GREY = 0.04
"""Grey above this is body or table; the body is the largest piece of it without thin parts."""
LEAST_BODY = 0.03
"""Share of a slice that a body fills at least; else the whole slice is taken."""


def body_box(hu_hw: HuArray) -> Box:
    """First and last row, first and last column (half-open, pixels) of the body.

    Found on half the grid: what the skin encloses, without tables, which are thin and open.
    """
    rows, columns = (n // 2 * 2 for n in hu_hw.shape)
    low = SOFT_TISSUE.low_hu + BODY_GREY * (SOFT_TISSUE.high_hu - SOFT_TISSUE.low_hu)
    quads = hu_hw[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2)
    filled = ndimage.binary_fill_holes(quads.max(axis=(1, 3)) > low)
    pieces, count = ndimage.label(ndimage.binary_opening(filled, np.ones((5, 5))))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    if sizes.max() < LEAST_BODY * pieces.size:
        return 0.0, float(hu_hw.shape[0]), 0.0, float(hu_hw.shape[1])
    y, x = ndimage.find_objects((pieces == int(sizes.argmax())).astype(np.int8))[0]
    return 2.0 * y.start, 2.0 * y.stop, 2.0 * x.start, 2.0 * x.stop


def part_box(hu_hw: HuArray, view: ViewConfig) -> Box:
    """The part of a slice that becomes the network's input."""
    rows, columns = hu_hw.shape
    whole = (0.0, float(rows), 0.0, float(columns))
    top, bottom, left, right = body_box(hu_hw) if view.crop_to_body else whole
    y0, y1, x0, x1 = view.part_yx
    height, width = bottom - top, right - left
    return top + y0 * height, top + y1 * height, left + x0 * width, left + x1 * width


def plain_views(hu_bzhw: HuArray, view: ViewConfig) -> Tensor:
    """(B, 3, H, W) float32 HU on the view's grid, not varied."""
    boxes = [part_box(stack[1], view) for stack in hu_bzhw]
    thetas = [_theta(box, stack.shape[1:], np.eye(2), (0.0, 0.0))
              for box, stack in zip(boxes, hu_bzhw, strict=True)]  # fmt: skip
    return _sampled(hu_bzhw, thetas, view)


def varied_views(
    hu_bzhw: HuArray,
    boxes: Sequence[Box],
    view: ViewConfig,
    augment: SliceAugmentConfig,
    seeds: Sequence[int],
) -> Tensor:
    """The same, varied; one seed a slice is the only source of chance.

    Args:
        hu_bzhw: slices, alone (B, 1, H, W) or with their neighbours.
        boxes: part_box of each.
        view, augment: how.
        seeds: one a slice.
    """
    rngs = [np.random.default_rng(seed) for seed in seeds]
    thetas = []
    for box, rng in zip(boxes, rngs, strict=True):
        turn, shift = _draw_motion(augment, rng)
        thetas.append(_theta(box, hu_bzhw.shape[2:], turn, shift))
    grey = _to_grey(_sampled(hu_bzhw, thetas, view))
    return _to_hu(
        torch.stack([_varied_grey(g, augment, r) for g, r in zip(grey, rngs, strict=True)])
    )


def _draw_motion(
    augment: SliceAugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """A matrix on (x, y) of the view from -1 to 1, and a shift in the same unit."""
    angle = np.deg2rad(rng.uniform(-augment.rotation_deg, augment.rotation_deg))
    zoom = np.exp(rng.uniform(-augment.zoom, augment.zoom))
    stretch = np.exp(rng.uniform(-augment.stretch, augment.stretch, 2))
    mirror = -1.0 if augment.flip and rng.random() < 0.5 else 1.0
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    dx, dy = rng.uniform(-2 * augment.shift, 2 * augment.shift, 2)
    return turn @ np.diag([mirror * zoom * stretch[0], zoom * stretch[1]]), (float(dx), float(dy))


def _theta(
    box: Box, shape_hw: tuple[int, ...], turn: NDArray[np.float64], shift: tuple[float, float]
) -> Tensor:
    """(2, 3) affine of grid_sample that shows a box, turned and shifted about its centre."""
    top, bottom, left, right = box
    height, width = shape_hw
    half = np.array([(right - left) / width, (bottom - top) / height])
    center = np.array([(left + right) / width - 1.0, (top + bottom) / height - 1.0])
    # turning happens in pixels, so that a long box is not sheared
    aspect = np.array([right - left, bottom - top])
    matrix = np.diag(half / aspect) @ turn @ np.diag(aspect)
    offset = center + half * np.array(shift)
    return torch.from_numpy(np.concatenate([matrix, offset[:, None]], axis=1).astype(np.float32))


def _sampled(hu_bzhw: HuArray, thetas: Sequence[Tensor], view: ViewConfig) -> Tensor:
    """Linear sampling on the view's grid; air outside."""
    size = [len(hu_bzhw), 1, *view.size_yx]
    where = F.affine_grid(torch.stack(list(thetas)), size, align_corners=False)
    raised = torch.from_numpy(np.asarray(hu_bzhw, dtype=np.float32)) + 1024.0  # zeros are air
    moved = F.grid_sample(raised, where, mode="bilinear", align_corners=False)
    return moved - 1024.0


def _to_grey(hu: Tensor) -> Tensor:
    return (hu - SOFT_TISSUE.low_hu) / (SOFT_TISSUE.high_hu - SOFT_TISSUE.low_hu)


def _to_hu(grey: Tensor) -> Tensor:
    return grey * (SOFT_TISSUE.high_hu - SOFT_TISSUE.low_hu) + SOFT_TISSUE.low_hu


def _varied_grey(grey_zhw: Tensor, augment: SliceAugmentConfig, rng: np.random.Generator) -> Tensor:
    """Gamma, contrast, brightness, noise and a lost patch; the same for a slice and its own."""
    gamma = float(np.exp(rng.uniform(-augment.gamma, augment.gamma)))
    gain = 1.0 + float(rng.uniform(-augment.gain, augment.gain))
    offset = float(rng.uniform(-augment.offset, augment.offset))
    inside = grey_zhw.clamp(0.0, 1.0)
    # beyond the window HU keep their distance to it: bone and air stay bone and air
    varied = (inside.pow(gamma) - 0.5) * gain + 0.5 + offset + (grey_zhw - inside)
    noise = float(rng.uniform(0, augment.noise)) * (rng.random() < 0.5)
    if noise > 0:
        one = rng.standard_normal(grey_zhw.shape[1:], np.float32)
        varied = varied + noise * torch.from_numpy(one)
    if rng.random() < augment.erase:
        height, width = grey_zhw.shape[1:]
        h, w = (int(rng.uniform(0.1, 0.3) * edge) for edge in (height, width))
        y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
        varied = varied.clone()
        varied[:, y : y + h, x : x + w] = float(rng.uniform(0, 0.6))
    return varied
