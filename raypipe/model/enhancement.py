"""Knowledge enhancement: visual tokens look up what the knowledge graph says.

In: a knowledge graph and the labels of a network; feature maps (B, C, H, W). Out: feature maps
of the same shape, enriched. Does not know: boxes, losses, HU of the slice.

Shape suffixes: B slices, C channels, H W grid, T = H * W tokens, N nodes, D node width, F facts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.knowledge.graph import REGIONS, KnowledgeGraph
from raypipe.model.dot_product import attend

Strategy = Literal["base", "knowledge_fusion", "adaptive_attention", "full"]
"""base: no enhancement; knowledge_fusion: nodes are attended to and added; adaptive_attention:
free slots are attended to and gated; full: nodes are attended to and gated."""

KINDS = ("finding", "organ", "region", "attribute")
FACTS = len(KINDS) + 2 + 2 + len(REGIONS)


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeTable:
    """The part of a graph that matters for some labels, as arrays.

    Args:
        names: (N,) "finding:key", "organ:key", "region:key", "attribute=value".
        facts_nf: (N, F) kind, HU range / 1000, log of the size range in mm / 5, regions.
        adjacency_nn: (N, N) symmetric, with loops, each row summing to 1.
    """

    names: tuple[str, ...]
    facts_nf: NDArray[np.float32]
    adjacency_nn: NDArray[np.float32]


def node_table(graph: KnowledgeGraph, labels: Sequence[str]) -> NodeTable:
    """The labels, their ancestors, organs and regions, and every attribute value."""
    findings = list(labels)
    for label in labels:
        findings += [key for key in graph.ancestors(label) if key not in findings]
    organs = sorted({organ for key in findings for organ in graph.finding(key).occurs_in})
    names = [f"finding:{key}" for key in findings] + [f"organ:{key}" for key in organs]
    names += [f"region:{region}" for region in REGIONS]
    names += [f"{a}={v}" for a, attribute in graph.attributes.items() for v in attribute.values]
    index = {name: i for i, name in enumerate(names)}
    adjacency = np.eye(len(names), dtype=np.float32)
    for source, _, target in graph.relations():
        if source in index and target in index:
            adjacency[index[source], index[target]] = 1.0
            adjacency[index[target], index[source]] = 1.0
    return NodeTable(
        names=tuple(names),
        facts_nf=np.stack([_facts(graph, name) for name in names]),
        adjacency_nn=adjacency / adjacency.sum(axis=1, keepdims=True),
    )


def _facts(graph: KnowledgeGraph, name: str) -> NDArray[np.float32]:
    kind, _, key = name.partition(":") if ":" in name else ("attribute", "", name)
    hu: tuple[float, float] | None = None
    size: tuple[float, float] | None = None
    regions: tuple[str, ...] = ()
    if kind == "finding":
        finding = graph.finding(key)
        hu, size, regions = finding.hu_range, finding.size_range_mm, finding.regions
    elif kind == "organ":
        hu, regions = graph.anatomy[key].typical_hu, graph.anatomy[key].regions
    elif kind == "region":
        regions = (key,)
    return np.array(
        [
            *(float(kind == k) for k in KINDS),
            *(v / 1000.0 for v in hu or (0.0, 0.0)),
            *(float(np.log(v)) / 5.0 for v in size or (1.0, 1.0)),
            *(float(region in regions) for region in REGIONS),
        ],
        dtype=np.float32,
    )


class GraphEncoder(nn.Module):
    """Node embeddings: learned vectors and facts, mixed along the graph's edges."""

    facts_nf: Tensor
    adjacency_nn: Tensor

    def __init__(self, table: NodeTable, width: int, rounds: int = 2) -> None:
        super().__init__()
        # persistent: a checkpoint carries the graph that it was trained with
        self.register_buffer("facts_nf", torch.from_numpy(table.facts_nf))
        self.register_buffer("adjacency_nn", torch.from_numpy(table.adjacency_nn))
        self.learned = nn.Parameter(torch.randn(len(table.names), width) * 0.02)
        self.project = nn.Linear(FACTS, width)
        self.mix = nn.ModuleList(nn.Linear(width, width) for _ in range(rounds))
        self.norm = nn.LayerNorm(width)

    def forward(self) -> Tensor:
        """(N, D)."""
        nodes_nd = self.learned + self.project(self.facts_nf)
        for linear in self.mix:
            nodes_nd = nodes_nd + F.relu(linear(self.adjacency_nn @ nodes_nd))
        result: Tensor = self.norm(nodes_nd)
        return result


class FreeSlots(nn.Module):
    """As many learned vectors as the graph has nodes, without its content."""

    def __init__(self, table: NodeTable, width: int) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.randn(len(table.names), width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self) -> Tensor:
        """(N, D)."""
        result: Tensor = self.norm(self.learned)
        return result


class Enhancement(nn.Module):
    """Cross-attention of the tokens of one map to nodes, then fusion.

    Args:
        channels: of the map.
        width: of a node.
        gated: whether a gate, made from the token and what it read, weighs the addition.
    """

    def __init__(self, channels: int, width: int, *, gated: bool, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(width, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.gate = nn.Linear(2 * channels, channels) if gated else None

    def forward(self, x_bchw: Tensor, nodes_nd: Tensor) -> Tensor:
        """(B, C, H, W), (N, D) -> (B, C, H, W)."""
        b, c, h, w = x_bchw.shape
        x_btc = x_bchw.permute(0, 2, 3, 1).reshape(1, b * h * w, c)  # nodes are the same for all
        q = self.norm(x_btc)
        q = self.query(q).view(1, -1, self.heads, c // self.heads).transpose(1, 2)
        k, v = self.key_value(nodes_nd).view(1, -1, 2, self.heads, c // self.heads).unbind(2)
        read = attend(q, k.transpose(1, 2), v.transpose(1, 2))
        read_btc = self.out(read.transpose(1, 2).reshape(1, b * h * w, c))
        if self.gate is not None:
            read_btc = torch.sigmoid(self.gate(torch.cat((x_btc, read_btc), dim=-1))) * read_btc
        result: Tensor = (x_btc + read_btc).view(b, h, w, c).permute(0, 3, 1, 2)
        return result
