"""Feature pyramid with hierarchical attention: the whole slice, then regions, then lesions.

In: the encoder's maps, finest first. Out: maps of one width, finest first, weighted by attention,
and the attention maps. Does not know: classes, boxes, the knowledge graph.

Shape suffixes: B slices, C channels, H W grid.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.model.residual import residual_blocks


class Pyramid(NamedTuple):
    """The pyramid's result, finest level first."""

    maps: tuple[Tensor, ...]  # (B, C, H, W) each
    attention: tuple[Tensor, ...]  # logits (B, 1, H, W) each: is there a lesion here
    context_bc: Tensor  # (B, C) the whole slice


class Pointwise(nn.Linear):
    """A 1 x 1 convolution as a matrix product, which one CPU thread runs several times faster."""

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H, W), channels-last in memory."""
        return super().forward(x_bchw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Separable(nn.Module):
    """A depthwise and a pointwise convolution, normalised cell by cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Linear(channels, channels, bias=False)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, C, H, W) -> the same."""
        x_bhwc = self.pointwise(self.depthwise(x_bchw).permute(0, 2, 3, 1))
        return F.relu(self.norm(x_bhwc), inplace=True).permute(0, 3, 1, 2)


class GlobalAttention(nn.Module):
    """One vector for the slice: a weighted mean over the cells of the coarsest map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = Pointwise(channels, 1)
        self.mlp = nn.Sequential(
            nn.Linear(2 * channels, channels), nn.ReLU(inplace=True), nn.Linear(channels, channels)
        )

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C)."""
        weight = self.score(x_bchw).flatten(2).softmax(dim=-1)
        weighted = (x_bchw.flatten(2) * weight).sum(dim=-1)
        result: Tensor = self.mlp(torch.cat((weighted, x_bchw.amax(dim=(2, 3))), dim=1))
        return result


class LevelAttention(nn.Module):
    """Attention on one level, guided by the slice's vector and the coarser level's attention."""

    def __init__(self, channels: int, *, coarsest: bool) -> None:
        super().__init__()
        self.guide = nn.Linear(channels, channels)
        self.score = Pointwise(channels, 1)
        self.coarse_weight = None if coarsest else nn.Parameter(torch.tensor(0.5))
        nn.init.constant_(self.score.bias, -3.0)  # lesions are rare

    def forward(
        self, x_bchw: Tensor, context_bc: Tensor, coarse: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted map and the attention's logits (B, 1, H, W)."""
        guide = torch.sigmoid(self.guide(context_bc))[:, :, None, None]
        logits = self.score(x_bchw * guide)
        if coarse is not None and self.coarse_weight is not None:
            size = (x_bchw.shape[2], x_bchw.shape[3])
            up = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
            logits = logits + self.coarse_weight * up
        return x_bchw * (1.0 + torch.sigmoid(logits)), logits


class FeaturePyramid(nn.Module):
    """Laterals, a top-down path, hierarchical attention from the coarsest level down.

    Args:
        in_channels: channels of the encoder's maps that enter, finest first.
        channels: width of every level.
        extra_levels: coarser levels to add by strided convolution.
        blocks: residual blocks of each level, before its attention.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        extra_levels: int,
        blocks: Sequence[int],
    ) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(Pointwise(c, channels) for c in in_channels)
        self.extra = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(extra_levels)
        )
        levels = len(in_channels) + extra_levels
        self.smooth = nn.ModuleList(Separable(channels) for _ in range(levels))
        self.blocks = nn.ModuleList(residual_blocks(channels, n) for n in blocks)
        self.whole = GlobalAttention(channels)
        self.attention = nn.ModuleList(
            LevelAttention(channels, coarsest=level == levels - 1) for level in range(levels)
        )

    def lateral(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The encoder's maps at the pyramid's width, and the extra levels."""
        out = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for convolution in self.extra:
            out.append(convolution(F.relu(out[-1])))
        return out

    def forward(self, laterals: list[Tensor]) -> Pyramid:
        """Laterals, finest first -> the pyramid."""
        levels = list(laterals)
        for i in range(len(levels) - 2, -1, -1):
            size = (levels[i].shape[2], levels[i].shape[3])
            levels[i] = levels[i] + F.interpolate(levels[i + 1], size=size, mode="nearest")
        levels = [smooth(level) for smooth, level in zip(self.smooth, levels, strict=True)]
        levels = [block(level) for block, level in zip(self.blocks, levels, strict=True)]
        context_bc = self.whole(levels[-1])
        maps: list[Tensor] = [context_bc] * len(levels)
        attention: list[Tensor] = [context_bc] * len(levels)
        coarse: Tensor | None = None
        for i in range(len(levels) - 1, -1, -1):
            maps[i], attention[i] = self.attention[i](levels[i], context_bc, coarse)
            coarse = attention[i]
        return Pyramid(tuple(maps), tuple(attention), context_bc)
