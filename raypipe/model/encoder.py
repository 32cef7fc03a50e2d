"""The encoder: a convolution stem, then stages of windowed attention at falling resolution.

In: windowed slices (B, 3, 256, 256), or 3 channels a slice of a stack. Out: one feature map a
stage, coarser stage by stage. Does not know: lesions, the knowledge graph, HU.

Each stage carries narrow pathways at fixed grids (64 x 64, 32 x 32, 16 x 16 in the full size)
that run beside its layers and are fused into its result: every stage sees fine detail and the
whole slice at once.

Shape suffixes: B slices, C channels, H W grid, N windows, T tokens of a window, A heads, D width
of a head. "BHWC" maps are channels-last; convolutions see them through a free permutation.
"""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name
from torch.utils.checkpoint import checkpoint

from raypipe.model.dot_product import attend
from raypipe.model.residual import residual_blocks
from raypipe.settings import Settings

IMAGE_SIZE = 256


class StageConfig(Settings):
    """One stage of windowed attention."""

    channels: int = Field(gt=0, description="width of the stage's tokens")
    layers: int = Field(gt=0, description="transformer layers")
    heads: int = Field(gt=0, description="attention heads; divides channels")
    window: int = Field(gt=0, description="edge of an attention window, in tokens")
    mlp_ratio: float = Field(default=4.0, gt=0, description="hidden over outer width of the MLP")

    activation: Literal["gelu", "relu"] = Field(
        default="gelu", description="within the MLP; relu is much cheaper on CPUs"
    )

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.channels % self.heads:
            raise ValueError(f"heads {self.heads} must divide channels {self.channels}")
        return self


class EncoderConfig(Settings):
    """Sizes of the encoder."""

    stem_channels: int = Field(gt=0, description="output channels of the 7 x 7 stem")
    stem_stride: Literal[1, 2] = Field(description="1: the stem keeps the grid; 2: it halves it")
    stem_blocks: int = Field(
        default=0, ge=0, description="residual blocks of two 3 x 3 convolutions on the stem's grid"
    )
    stages: tuple[StageConfig, ...] = Field(min_length=1, description="each halves the grid")
    out_channels: int = Field(gt=0, description="channels of the last, coarsest map")
    pathway_grids: tuple[int, ...] = Field(description="edges of the parallel pathways' grids")
    pathway_ratio: int = Field(default=8, gt=0, description="stage width over pathway width")
    checkpoint_activations: bool = Field(
        default=False, description="recompute layers in the backward pass to save memory"
    )


def paper() -> EncoderConfig:
    """The full size: stages of 1.2, 4.8 and 19.2 M parameters, output 16 x 16 x 1024."""
    return EncoderConfig(
        stem_channels=64,
        stem_stride=1,
        stages=tuple(
            StageConfig(channels=c, layers=6, heads=c // 32, window=16) for c in (128, 256, 512)
        ),
        out_channels=1024,
        pathway_grids=(64, 32, 16),
    )


def small() -> EncoderConfig:
    """The default for CPUs: the same structure on half the grid."""
    return EncoderConfig(
        stem_channels=32,
        stem_stride=2,
        stem_blocks=2,
        stages=tuple(
            StageConfig(
                channels=c, layers=3, heads=heads, window=8, mlp_ratio=ratio, activation="relu"
            )
            for c, heads, ratio in ((32, 2, 2.0), (96, 4, 3.0), (160, 5, 3.0))
        ),
        out_channels=192,
        pathway_grids=(32, 16, 8),
        pathway_ratio=4,
    )


def activation(name: Literal["gelu", "relu"]) -> nn.Module:
    """The module of an activation's name."""
    return nn.GELU(approximate="tanh") if name == "gelu" else nn.ReLU(inplace=True)


class WindowAttention(nn.Module):
    """Self-attention within square windows."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x_bhwc: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        b, h, w, c = x_bhwc.shape
        s = min(self.window, h, w)
        x_nc = x_bhwc.view(b, h // s, s, w // s, s, c).transpose(2, 3).reshape(-1, s * s, c)
        qkv = self.qkv(x_nc).view(-1, s * s, 3, self.heads, c // self.heads)
        q_natd, k_natd, v_natd = (part.transpose(1, 2) for part in qkv.unbind(2))  # views
        y_natd = attend(q_natd, k_natd, v_natd)
        y_nc = self.out(y_natd.transpose(1, 2).reshape(-1, s * s, c))
        return y_nc.view(b, h // s, w // s, s, s, c).transpose(2, 3).reshape(b, h, w, c)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """One transformer layer; a depthwise convolution tells tokens where they stand.

    The convolution also carries information across the borders of windows.
    """

    def __init__(self, stage: StageConfig) -> None:
        super().__init__()
        channels, hidden = stage.channels, int(stage.channels * stage.mlp_ratio)
        self.position = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm_attention = nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, stage.heads, stage.window)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden),
            activation(stage.activation),
            nn.Linear(hidden, channels),
        )

    def forward(self, x_bhwc: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        x_bhwc = x_bhwc + self.position(x_bhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x_bhwc = x_bhwc + self.attention(self.norm_attention(x_bhwc))
        result: Tensor = x_bhwc + self.mlp(self.norm_mlp(x_bhwc))
        return result


def resample(x_bhwc: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean over blocks towards a coarser grid, bilinear towards a finer one."""
    h, w = x_bhwc.shape[1:3]
    if (h, w) == grid:
        return x_bhwc
    x_bchw = x_bhwc.permute(0, 3, 1, 2)
    if h % grid[0] == 0 and w % grid[1] == 0:
        return F.avg_pool2d(x_bchw, (h // grid[0], w // grid[1])).permute(0, 2, 3, 1)
    resized = F.interpolate(x_bchw, size=grid, mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1)


class Pathway(nn.Module):
    """A narrow layer on a grid of its own, beside the layers of a stage.

    Args:
        channels: of the stage.
        grid: edge of the pathway's grid on a whole slice.
        stage_grid: edge of the stage's grid on a whole slice.
        ratio: stage width over pathway width.
        window: edge of an attention window, in tokens.
    """

    def __init__(self, channels: int, grid: int, stage_grid: int, ratio: int, window: int) -> None:
        super().__init__()
        narrow = max(16, channels // ratio)
        self.scale = grid / stage_grid
        self.reduce = nn.Linear(channels, narrow)
        self.layer = Layer(StageConfig(channels=narrow, layers=1, heads=1, window=window))
        self.expand = nn.Linear(narrow, channels)
        self.gate = nn.Parameter(torch.full((channels,), 0.1))

    def forward(self, x_bhwc: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C): what this pathway adds to the stage's result."""
        h, w = x_bhwc.shape[1:3]
        # a part of a slice keeps the scale of the whole, so that patches can train the network
        edge = (max(1, round(h * self.scale)), max(1, round(w * self.scale)))
        narrow = self.layer(self.reduce(resample(x_bhwc, edge)))
        return resample(self.expand(narrow), (h, w)) * self.gate


class Stage(nn.Module):
    """Halve the grid, then layers and pathways in parallel, then their sum."""

    def __init__(
        self, in_channels: int, config: StageConfig, encoder: EncoderConfig, grid: int
    ) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(in_channels, config.channels, 2, stride=2)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.pathways = nn.ModuleList(
            Pathway(config.channels, edge, grid, encoder.pathway_ratio, config.window)
            for edge in encoder.pathway_grids
        )
        self.norm = nn.LayerNorm(config.channels)
        self.checkpoint_activations = encoder.checkpoint_activations

    def forward(self, x_bchw: Tensor) -> Tensor:
        """(B, C', 2 H, 2 W) -> (B, C, H, W), channels-last in memory."""
        x_bhwc = self.reduce(x_bchw).permute(0, 2, 3, 1)
        y_bhwc = x_bhwc
        for layer in self.layers:
            if self.checkpoint_activations and self.training:
                y_bhwc = checkpoint(layer, y_bhwc, use_reentrant=False)
            else:
                y_bhwc = layer(y_bhwc)
        for pathway in self.pathways:
            y_bhwc = y_bhwc + pathway(x_bhwc)
        result: Tensor = self.norm(y_bhwc).permute(0, 3, 1, 2)
        return result


class Encoder(nn.Module):
    """Stem, stages and the coarsest map."""

    def __init__(self, config: EncoderConfig, in_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.stem = nn.Conv2d(
            in_channels, config.stem_channels, 7, stride=config.stem_stride, padding=3, bias=False
        )
        self.activation = activation(config.stages[0].activation)
        # lesions of a few pixels are told from vessels here
        self.stem_blocks = residual_blocks(config.stem_channels, config.stem_blocks)
        widths = (config.stem_channels, *(stage.channels for stage in config.stages))
        self.stages = nn.ModuleList(
            Stage(width, stage, config, IMAGE_SIZE // (config.stem_stride * 2 ** (i + 1)))
            for i, (width, stage) in enumerate(zip(widths[:-1], config.stages, strict=True))
        )
        self.out = nn.Conv2d(widths[-1], config.out_channels, 4, stride=2, padding=1)

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the maps that forward returns, finest first."""
        stages = (stage.channels for stage in self.config.stages)
        return (self.config.stem_channels, *stages, self.config.out_channels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of a slice a cell of each map, finest first."""
        return tuple(self.config.stem_stride * 2**i for i in range(len(self.config.stages) + 2))

    def forward(self, x_bchw: Tensor) -> tuple[Tensor, ...]:
        """(B, in_channels, 256, 256) in 0..1 -> maps (B, C, H, W), finest first."""
        x_bchw = self.stem_blocks(self.activation(self.stem(x_bchw)))
        maps = [x_bchw]
        for stage in self.stages:
            x_bchw = stage(x_bchw)
            maps.append(x_bchw)
        maps.append(self.out(x_bchw))
        return tuple(maps)
