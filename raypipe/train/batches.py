"""Batches of augmented slices and their truth as tensors.

In: a SampleStore, indices, a seed. Out: HU (B, 3, 256, 256) and a Truth. The same seed and index
give the same slice, whichever worker loads it. Does not know: networks, optimisers.

Shape suffixes: B slices, Z a slice and its neighbours, H W pixels, N cells, M boxes,
A attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.knowledge.graph import REGIONS, KnowledgeGraph
from raypipe.model.encoder import IMAGE_SIZE
from raypipe.model.network import TISSUE_STRIDE, NetworkConfig
from raypipe.settings import Settings
from raypipe.train.dataset import SampleStore, SliceSample
from raypipe.train.losses import Truth
from raypipe.train.targets import CUT_LESION, NO_LESION, Grid, assign
from raypipe.train.tissues import moved_tissues

LESION_PATCHES = 0.8
"""Share of patches that are cut around a lesion where the slice has one."""


class AugmentConfig(Settings):
    """How training slices are varied. No mirror images: the body is not symmetric."""

    shift_pixels: int = Field(default=12, ge=0, description="largest shift along each axis")
    zoom: float = Field(default=0.12, ge=0, lt=1, description="largest relative change of size")
    hu_offset: float = Field(default=8.0, ge=0, description="largest shift of all HU")
    hu_gain: float = Field(default=0.04, ge=0, lt=1, description="largest change of the HU scale")
    noise_hu: float = Field(default=10.0, ge=0, description="largest added noise, HU")
    lone_share: float = Field(
        default=0.1, ge=0, le=1, description="share of slices shown as their own neighbours"
    )
    patch_pixels: Literal[128, 256] = Field(
        default=256,
        description="edge of what the network sees; 128 cuts a patch around a lesion, a quarter "
        "of the cost, good for the first part of a training",
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """Where keys of the graph stand in a network's output."""

    labels: dict[str, int]
    image_labels: dict[str, tuple[int, ...]]  # label -> itself and its ancestors
    image_count: int
    attributes: tuple[tuple[str, dict[str, int]], ...]


def make_vocabulary(graph: KnowledgeGraph, config: NetworkConfig) -> Vocabulary:
    """The vocabulary of a network."""
    image = {label: i for i, label in enumerate(config.image_labels)}
    return Vocabulary(
        labels={label: i for i, label in enumerate(config.labels)},
        image_labels={
            label: tuple(image[key] for key in (label, *graph.ancestors(label)) if key in image)
            for label in config.labels
        },
        image_count=len(config.image_labels),
        attributes=tuple(
            (name, {value: i for i, value in enumerate(values)})
            for name, values in config.attributes.items()
        ),
    )


def make_batch(
    store: SampleStore,
    indices: Sequence[int],
    seeds: Sequence[int],
    vocabulary: Vocabulary,
    grid: Grid,
    augment: AugmentConfig | None,
) -> tuple[Tensor, Truth]:
    """HU (B, 3, 256, 256) float32 and the truth of slices.

    Args:
        store: the data set.
        indices: of its samples.
        seeds: one a sample; the only source of chance.
        vocabulary, grid: of the network.
        augment: None leaves slices as they are.
    """
    slices, truths, tissues = [], [], []
    cells = grid.image_size // TISSUE_STRIDE
    for index, seed in zip(indices, seeds, strict=True):
        sample = store[index]
        hu, boxes, theta = _augmented(sample, np.random.default_rng(seed), augment)
        slices.append(hu)
        tissues.append(moved_tissues(sample.tissues, theta, cells))
        truths.append(_truth_of_slice(sample, boxes, vocabulary, grid))
    hu_bzhw = torch.from_numpy(np.stack(slices))
    index_bn, central_bn, label_bn, box_bn4, attribute_bna, image_bl, region_br = (
        torch.stack(column) for column in zip(*truths, strict=True)
    )
    return hu_bzhw, Truth(
        index_bn=index_bn,
        centerness_bn=central_bn,
        label_bn=label_bn,
        box_bn4=box_bn4,
        attribute_bna=attribute_bna,
        image_bl=image_bl,
        region_br=region_br,
        attention=_attention_targets(box_bn4, label_bn, grid),
        hu_bn=cell_hu(hu_bzhw[:, 1], grid),
        tissue_bhw=torch.from_numpy(np.stack(tissues)).long(),
    )


def _augmented(
    sample: SliceSample, rng: np.random.Generator, augment: AugmentConfig | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], Tensor]:
    """HU (3, edge, edge) and boxes of a slice, varied, and the movement (1, 2, 3) of all of it."""
    boxes = np.array(sample.boxes_m4, dtype=np.float32)
    if augment is None:
        return np.asarray(sample.hu, dtype=np.float32), boxes, torch.eye(2, 3)[None]
    zoom = float(np.exp(rng.uniform(-augment.zoom, augment.zoom)))
    shift_xy = rng.uniform(-augment.shift_pixels, augment.shift_pixels, 2).astype(np.float32)
    middle = IMAGE_SIZE / 2
    boxes[:, :2] = (boxes[:, :2] - middle) * zoom + middle + shift_xy
    boxes[:, 2:] *= zoom
    edge = augment.patch_pixels
    corner_xy = _corner(boxes, edge, rng)
    boxes[:, :2] -= corner_xy
    stack = np.asarray(sample.hu, dtype=np.float32)
    if rng.random() < augment.lone_share:
        stack = stack[[1, 1, 1]]
    theta = _movement(zoom, shift_xy - corner_xy, edge)
    hu = _moved(stack, theta, edge)
    gain = 1.0 + rng.uniform(-augment.hu_gain, augment.hu_gain)
    hu = (hu + 1000.0) * np.float32(gain) - 1000.0
    hu += np.float32(rng.uniform(-augment.hu_offset, augment.hu_offset))
    noise = rng.uniform(0, augment.noise_hu) * (rng.random() < 0.5)
    if noise > 0:
        hu = hu + np.float32(noise) * rng.standard_normal(hu.shape, np.float32)
    return hu, boxes, theta


def _corner(boxes: NDArray[np.float32], edge: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """x, y of a square part that holds a lesion's centre, or lies anywhere near the body."""
    around_lesion = len(boxes) > 0 and rng.random() < LESION_PATCHES
    middle_xy = boxes[rng.integers(len(boxes)), :2] if around_lesion else rng.uniform(48, 208, 2)
    corner_xy = np.floor(middle_xy - rng.uniform(0.15, 0.85, 2) * edge)
    return np.asarray(corner_xy.clip(0, IMAGE_SIZE - edge), np.float32)


def _movement(zoom: float, shift_xy: NDArray[np.float32], edge: int) -> Tensor:
    """Scale about the centre, shift, and keep the first `edge` rows and columns: (1, 2, 3)."""
    half, own = IMAGE_SIZE / 2, edge / 2
    x, y = ((own - half - float(shift)) / half / zoom for shift in shift_xy)
    scale = own / half / zoom
    return torch.tensor([[[scale, 0.0, x], [0.0, scale, y]]])


def _moved(hu: NDArray[np.float32], theta: Tensor, edge: int) -> NDArray[np.float32]:
    """The slice where a movement takes it; air outside."""
    where = F.affine_grid(theta, [1, 1, edge, edge], align_corners=False)
    raised = torch.from_numpy(hu)[None] + 1024.0  # zeros from outside are air
    moved = F.grid_sample(raised, where, mode="bilinear", align_corners=False)
    return np.asarray((moved[0] - 1024.0).numpy())


def _truth_of_slice(
    sample: SliceSample, boxes: NDArray[np.float32], vocabulary: Vocabulary, grid: Grid
) -> tuple[Tensor, ...]:
    middle, half = boxes[:, :2], boxes[:, 2:] / 2
    inside = ((middle > 0) & (middle < grid.image_size)).all(axis=1)
    in_view = ((middle + half > 0) & (middle - half < grid.image_size)).all(axis=1)
    known = np.array([label in vocabulary.labels for label in sample.labels], dtype=bool)
    rows, cut = np.flatnonzero(inside & known), np.flatnonzero(~inside & in_view & known)
    of_cut_n, _ = assign(torch.from_numpy(boxes[cut].reshape(-1, 4)), grid)
    without_n = torch.where(of_cut_n >= 0, CUT_LESION, NO_LESION)
    boxes_m4 = torch.from_numpy(boxes[rows].reshape(-1, 4))
    index_n, central_n = assign(boxes_m4, grid)
    has = index_n >= 0
    pick = index_n.clamp(min=0)
    image_l = torch.zeros(vocabulary.image_count)
    for m in cut:
        image_l[list(vocabulary.image_labels[sample.labels[m]])] = -1.0
    for m in rows:
        image_l[list(vocabulary.image_labels[sample.labels[m]])] = 1.0
    region_r = torch.tensor([float(region in sample.regions) for region in REGIONS])
    if not len(rows):
        none_a = torch.full((len(index_n), len(vocabulary.attributes)), -1, dtype=torch.int64)
        no_box = torch.zeros(len(index_n), 4)
        return index_n, central_n, without_n, no_box, none_a, image_l, region_r
    labels_m = torch.tensor([vocabulary.labels[sample.labels[m]] for m in rows])
    attributes_ma = torch.tensor(
        [
            [
                values.get(sample.attributes[m].get(name, ""), -1)
                for name, values in vocabulary.attributes
            ]
            for m in rows
        ]
    )
    label_n = torch.where(has, labels_m[pick], without_n)
    attribute_na = torch.where(has[:, None], attributes_ma[pick], -1)
    return index_n, central_n, label_n, boxes_m4[pick], attribute_na, image_l, region_r


def _level_sizes(grid: Grid) -> list[tuple[int, int]]:
    """(stride, cells a side) of each level, finest first."""
    strides = [int(s) for s in torch.unique(grid.stride_n).tolist()]
    return [(s, grid.image_size // s) for s in sorted(strides)]


def _attention_targets(box_bn4: Tensor, label_bn: Tensor, grid: Grid) -> tuple[Tensor, ...]:
    """Cells whose centre lies in any true box, or that answer for one: (B, 1, H, W) a level."""
    targets = []
    for b in range(len(box_bn4)):
        boxes = torch.unique(box_bn4[b][label_bn[b] >= 0], dim=0)
        away = (grid.centers_n2[:, None] - boxes[None, :, :2]).abs()
        inside = (away <= boxes[None, :, 2:] / 2).all(dim=2).any(dim=1)
        targets.append((inside | (label_bn[b] != NO_LESION)).float())
    flat, out, start = torch.stack(targets), [], 0
    for _, side in _level_sizes(grid):
        out.append(flat[:, start : start + side * side].view(-1, 1, side, side))
        start += side * side
    return tuple(out)


def cell_hu(hu_bhw: Tensor, grid: Grid) -> Tensor:
    """(B, N) mean HU around each cell: over the cell itself, whatever the level."""
    columns = [F.avg_pool2d(hu_bhw[:, None], stride).flatten(1) for stride, _ in _level_sizes(grid)]
    return torch.cat(columns, dim=1)


def sample_weights(
    store: SampleStore,
    vocabulary: Vocabulary,
    empty_share: float | None = None,
    label_weights: Mapping[str, float] | None = None,
) -> NDArray[np.float64]:
    """How often each slice is drawn: rare labels more often.

    Args:
        store: the data set.
        vocabulary: of the network.
        empty_share: of the slices drawn, how many hold no lesion; None: an empty slice counts as
            much as one with the commonest label.
        label_weights: how much oftener slices with a label are drawn than its rarity asks for.
    """
    counts = np.zeros(len(vocabulary.labels))
    for label in store.labels:
        if str(label) in vocabulary.labels:
            counts[vocabulary.labels[str(label)]] += 1
    rarity = counts.max() / np.maximum(counts, 1.0)
    for label, weight in (label_weights or {}).items():
        rarity[vocabulary.labels[label]] *= weight
    weights = np.ones(len(store))
    empty = np.zeros(len(store), dtype=bool)
    for i in range(len(store)):
        rows = slice(int(store.first[i]), int(store.first[i + 1]))
        known = [
            vocabulary.labels[str(x)] for x in store.labels[rows] if str(x) in vocabulary.labels
        ]
        weights[i] = max((rarity[k] for k in known), default=1.0)
        empty[i] = not known
    if empty_share is not None and empty.any() and not empty.all():
        full = weights[~empty].sum() / (1.0 - empty_share)
        weights[empty] = empty_share * full / empty.sum()
    return np.asarray(weights / weights.sum())
