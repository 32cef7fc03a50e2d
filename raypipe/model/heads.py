"""Heads: anchor-free boxes, classes, attributes on every level; labels of the whole slice.

In: the pyramid's maps. Out: per cell logits of class, box, centreness and attribute values.
Does not know: thresholds, suppression of overlaps, what the labels mean.

A cell at column i of a level of stride s has its centre at pixel (i + 0.5) s, counted from the
outer face of pixel 0. It predicts the offset of the box's centre in strides and the logarithm
of the box's edges in strides.

Shape suffixes: B slices, C channels, H W grid, K classes, V attribute values.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from raypipe.model.pyramid import Pointwise, Separable

PRIOR = 0.01
"""Score of an untrained cell, so that the many empty cells do not drown the loss (Lin 2017)."""


class HeadOutput(NamedTuple):
    """All levels' cells in one row, finest level first."""

    class_logits_bnk: Tensor
    box_bn4: Tensor  # centre x, centre y, width, height in pixels of the slice
    centerness_bn: Tensor  # logits
    attribute_logits_bnv: Tensor


class BoxHead(nn.Module):
    """Shared by all levels; each level scales the box's edges by a factor of its own."""

    def __init__(self, channels: int, classes: int, values: int, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.class_tower = nn.Sequential(Separable(channels), Separable(channels))
        self.box_tower = nn.Sequential(Separable(channels), Separable(channels))
        self.classify = Pointwise(channels, classes)
        self.attributes = Pointwise(channels, values)
        self.box = Pointwise(channels, 4)
        self.centerness = Pointwise(channels, 1)
        self.scale = nn.Parameter(torch.ones(len(self.strides)))
        nn.init.constant_(self.classify.bias, -math.log((1 - PRIOR) / PRIOR))
        nn.init.normal_(self.classify.weight, std=0.01)
        nn.init.normal_(self.box.weight, std=0.01)

    def forward(self, maps: Sequence[Tensor]) -> HeadOutput:
        """Maps (B, C, H, W), finest first."""
        columns: list[list[Tensor]] = [[], [], [], []]
        for level, (x_bchw, stride) in enumerate(zip(maps, self.strides, strict=True)):
            of_class, of_box = self.class_tower(x_bchw), self.box_tower(x_bchw)
            raw = self.box(of_box)
            columns[0].append(_rows(self.classify(of_class)))
            columns[1].append(self._decode(raw, stride, self.scale[level]))
            columns[2].append(_rows(self.centerness(of_box)).squeeze(-1))
            columns[3].append(_rows(self.attributes(of_class)))
        return HeadOutput(*(torch.cat(column, dim=1) for column in columns))

    def _decode(self, raw_b4hw: Tensor, stride: int, scale: Tensor) -> Tensor:
        centers = cell_centers(raw_b4hw.shape[2], raw_b4hw.shape[3], stride, raw_b4hw.device)
        raw = _rows(raw_b4hw)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        center = centers + raw[..., :2] * stride
        size = torch.exp((raw[..., 2:] * scale).clamp(-4.0, 4.0)) * (2.0 * stride)
        return torch.cat((center, size), dim=-1)


def cell_centers(height: int, width: int, stride: int, device: torch.device | str) -> Tensor:
    """(H W, 2) x, y in pixels of the slice, row by row."""
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((grid_x.reshape(-1), grid_y.reshape(-1)), dim=-1)


def _rows(x_bchw: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H W, C)."""
    return x_bchw.permute(0, 2, 3, 1).flatten(1, 2)


class ImageHead(nn.Module):
    """Labels of the slice: findings, their ancestors and the body regions in view."""

    def __init__(self, channels: int, labels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, labels)
        )

    def forward(self, features_bc: Tensor) -> Tensor:
        """(B, 2 C) -> logits (B, labels)."""
        logits: Tensor = self.mlp(features_bc)
        return logits
