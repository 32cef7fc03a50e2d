"""The detection network: encoder, knowledge enhancement, pyramid, heads.

In: windowed slices (B, 3 * context_slices, 256, 256), 0..1. Out: NetworkOutput.
Does not know: HU, series, files.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from raypipe.knowledge.graph import REGIONS, KnowledgeGraph
from raypipe.model import encoder as encoders
from raypipe.model.encoder import Encoder, EncoderConfig
from raypipe.model.enhancement import Enhancement, FreeSlots, GraphEncoder, Strategy, node_table
from raypipe.model.heads import BoxHead, HeadOutput, ImageHead
from raypipe.model.pyramid import FeaturePyramid, Pointwise, Pyramid
from raypipe.settings import Settings

COARSEST_STRIDE = 32
TISSUE_STRIDE = 4
"""Of the level on which training tells tissues apart."""
KNOWING_STRIDE = 8
"""Of the finest level that reads the graph itself: below it tokens are many and local."""


class NetworkConfig(Settings):
    """What a checkpoint needs to be built again."""

    size: Literal["small", "paper"] = Field(
        default="small", description="preset that it was made from"
    )
    encoder: EncoderConfig = Field(
        description="sizes of the encoder, told in full: a preset may change, a file does not"
    )
    labels: tuple[str, ...] = Field(min_length=1, description="findings that get boxes")
    image_labels: tuple[str, ...] = Field(description="findings that get a label for the slice")
    attributes: dict[str, tuple[str, ...]] = Field(description="attribute -> values, in order")
    pyramid_channels: int = Field(default=64, gt=0, multiple_of=8, description="width of a level")
    pyramid_blocks: int = Field(
        default=0,
        ge=0,
        description="residual blocks of two 3 x 3 convolutions on every level but that of stride 2",
    )
    finest_stride: Literal[2, 4] = Field(
        default=4, description="pixels a cell of the finest level; 2: for lesions of a few pixels"
    )
    node_channels: int = Field(default=64, gt=0, description="width of a graph node")
    context_slices: Literal[1, 3] = Field(
        default=1, description="3: the network also sees the slices below and above"
    )
    tissues: tuple[str, ...] = Field(
        default=(), description="tissues that training tells apart cell by cell; none: no such head"
    )
    strategy: Strategy = Field(default="full", description="how knowledge enters the features")

    @property
    def attribute_slices(self) -> dict[str, slice]:
        """Where the logits of each attribute stand."""
        out, start = {}, 0
        for name, values in self.attributes.items():
            out[name] = slice(start, start + len(values))
            start += len(values)
        return out


def config_for(
    graph: KnowledgeGraph, *, size: Literal["small", "paper"] = "small"
) -> NetworkConfig:
    """The network of a graph's detected findings."""
    labels = graph.detected
    ancestors = [key for label in labels for key in graph.ancestors(label)]
    return NetworkConfig(
        size=size,
        encoder=encoders.small() if size == "small" else encoders.paper(),
        labels=labels,
        image_labels=tuple(dict.fromkeys((*labels, *ancestors))),
        attributes={name: attribute.values for name, attribute in graph.attributes.items()},
        pyramid_channels=64 if size == "small" else 256,
        pyramid_blocks=1 if size == "small" else 0,
        finest_stride=2 if size == "small" else 4,
        node_channels=64 if size == "small" else 256,
        context_slices=3 if size == "small" else 1,
    )


class NetworkOutput(NamedTuple):
    """What the network says of a batch of slices."""

    head: HeadOutput
    attention: tuple[Tensor, ...]  # logits (B, 1, H, W), finest first
    image_logits: Tensor  # (B, image labels)
    region_logits: Tensor  # (B, regions): chest, abdomen, head
    features: Tensor  # (B, 2 C)
    tissue_logits: Tensor | None = None  # (B, tissues, H, W) on TISSUE_STRIDE, in training only

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "NetworkOutput":
        """The same on a device, in a floating dtype."""
        tissue = self.tissue_logits
        return NetworkOutput(
            head=HeadOutput(*(t.to(device, dtype) for t in self.head)),
            attention=tuple(t.to(device, dtype) for t in self.attention),
            image_logits=self.image_logits.to(device, dtype),
            region_logits=self.region_logits.to(device, dtype),
            features=self.features.to(device, dtype),
            tissue_logits=None if tissue is None else tissue.to(device, dtype),
        )


class Network(nn.Module):
    """The whole network."""

    def __init__(self, config: NetworkConfig, graph: KnowledgeGraph) -> None:
        super().__init__()
        self.config = config
        sizes, width = config.encoder, config.pyramid_channels
        self.encoder = Encoder(sizes, in_channels=3 * config.context_slices)
        found, finest = self.encoder.strides, config.finest_stride
        self.first = next(i for i, stride in enumerate(found) if stride >= finest)
        strides = list(found[self.first :])
        extra = 0
        while strides[-1] < COARSEST_STRIDE:
            strides.append(strides[-1] * 2)
            extra += 1
        self.strides = tuple(strides)
        self.pyramid = FeaturePyramid(
            self.encoder.channels[self.first :],
            width,
            extra,
            [config.pyramid_blocks if stride > 2 else 0 for stride in strides],
        )
        self.nodes: GraphEncoder | FreeSlots | None = None
        if config.strategy != "base":
            table = node_table(graph, config.labels)
            slots = config.strategy == "adaptive_attention"
            self.nodes = (FreeSlots if slots else GraphEncoder)(table, config.node_channels)
        gated = config.strategy != "knowledge_fusion"
        # finer levels are enhanced by way of the coarser ones
        knowing = sum(stride >= KNOWING_STRIDE for stride in strides)
        self.enhancements = nn.ModuleList(
            Enhancement(width, config.node_channels, gated=gated)
            for _ in range(knowing if self.nodes is not None else 0)
        )
        values = sum(len(v) for v in config.attributes.values())
        self.box_head = BoxHead(width, len(config.labels), values, self.strides)
        self.image_head = ImageHead(width, len(config.image_labels) + len(REGIONS))
        self.tissue_head = Pointwise(width, len(config.tissues)) if config.tissues else None

    def forward(self, x_bchw: Tensor) -> NetworkOutput:
        """(B, 3 * context_slices, 256, 256) in 0..1, the windows of each slice side by side."""
        maps = self.encoder(x_bchw)[self.first :]
        pyramid = enhanced_pyramid(maps, self.pyramid, self.nodes, self.enhancements)
        # the sharpest evidence of the finest level that knows the graph beside the whole slice's
        peak = pyramid.maps[self.strides.index(KNOWING_STRIDE)].amax(dim=(2, 3))
        features = torch.cat((pyramid.context_bc, peak), dim=1)
        logits = self.image_head(features)
        count = len(self.config.image_labels)
        return NetworkOutput(
            head=self.box_head(pyramid.maps),
            attention=pyramid.attention,
            image_logits=logits[:, :count],
            region_logits=logits[:, count:],
            features=features,
            tissue_logits=self._tissues(pyramid.maps[self.strides.index(TISSUE_STRIDE)]),
        )

    def _tissues(self, map_bchw: Tensor) -> Tensor | None:
        if self.tissue_head is None or not self.training:
            return None
        logits: Tensor = self.tissue_head(map_bchw)
        return logits


def enhanced_pyramid(
    maps: Sequence[Tensor],
    pyramid: FeaturePyramid,
    nodes: GraphEncoder | FreeSlots | None,
    enhancements: nn.ModuleList,
) -> Pyramid:
    """The pyramid over an encoder's maps, finest first; the coarser ones read the nodes."""
    laterals = pyramid.lateral(maps)
    if nodes is not None:
        nodes_nd, first = nodes(), len(laterals) - len(enhancements)
        laterals[first:] = [
            enhance(lateral, nodes_nd)
            for enhance, lateral in zip(enhancements, laterals[first:], strict=True)
        ]
    result: Pyramid = pyramid(laterals)
    return result
