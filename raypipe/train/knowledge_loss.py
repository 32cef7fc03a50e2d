"""The knowledge-enhanced part of the loss: what the graph forbids costs.

In: a network's output, regions in view and HU of cells. Out: four scalar terms.
Does not know: boxes, weights of terms.

- anatomy: classes whose regions are not in view.
- compatibility: attribute values that the true finding of a cell cannot have.
- hu_range: classes at cells whose mean HU lies outside the finding's range.
- hierarchy: a finding likelier than the finding that it is a kind of.

Shape suffixes: B slices, N cells, K classes, V attribute values, L image labels, R regions.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from raypipe.knowledge.graph import REGIONS, KnowledgeGraph
from raypipe.model.network import NetworkConfig, NetworkOutput
from raypipe.train.targets import NO_LESION

SURROUNDING_SHAPES = frozenset({"crescent", "layering"})
HU_SOFTNESS = 100.0
"""HU beyond the range at which the penalty is full; partial volume reaches that far."""


@dataclass(frozen=True, kw_only=True, eq=False)
class KnowledgeRules:
    """The graph as tensors, in the order of a network's labels.

    Args:
        regions_kr: (K, R) 1 where the finding may be claimed.
        image_regions_lr: the same for image labels.
        allowed_kv: (K, V) 1 where the finding can have the value; all 1 for an attribute that
            the graph does not name for it.
        hu_low_k, hu_high_k: range of mean HU; infinite where unbounded.
        parents: (child, parent) indices of image labels.
        attribute_slices: where each attribute's logits stand.
    """

    regions_kr: Tensor
    image_regions_lr: Tensor
    allowed_kv: Tensor
    hu_low_k: Tensor
    hu_high_k: Tensor
    parents: tuple[tuple[int, int], ...]
    attribute_slices: tuple[slice, ...]


def make_rules(graph: KnowledgeGraph, config: NetworkConfig) -> KnowledgeRules:
    """The rules for a network's labels."""
    nodes = [graph.finding(label) for label in config.labels]
    low, high = [], []
    for node in nodes:
        bends = SURROUNDING_SHAPES & set(node.attributes.get("shape", ()))
        bounds = (-torch.inf, torch.inf) if node.hu_range is None or bends else node.hu_range
        low.append(bounds[0])
        high.append(bounds[1])
    allowed = [
        [
            float(name not in node.attributes or value in node.attributes[name])
            for name, values in config.attributes.items()
            for value in values
        ]
        for node in nodes
    ]
    index = {label: i for i, label in enumerate(config.image_labels)}
    parents = tuple(
        (index[label], index[parent])
        for label in config.image_labels
        if (parent := graph.finding(label).parent) in index and parent is not None
    )
    image_nodes = [graph.finding(label) for label in config.image_labels]
    return KnowledgeRules(
        regions_kr=torch.tensor([[float(r in n.regions) for r in REGIONS] for n in nodes]),
        image_regions_lr=torch.tensor(
            [[float(r in n.regions) for r in REGIONS] for n in image_nodes]
        ),
        allowed_kv=torch.tensor(allowed),
        hu_low_k=torch.tensor(low),
        hu_high_k=torch.tensor(high),
        parents=parents,
        attribute_slices=tuple(config.attribute_slices.values()),
    )


def knowledge_terms(
    output: NetworkOutput,
    label_bn: Tensor,
    region_br: Tensor,
    hu_bn: Tensor,
    rules: KnowledgeRules,
    count: Tensor,
) -> dict[str, Tensor]:
    """The four terms; each is 0 where the output breaks no rule.

    Args:
        label_bn: class of a cell, else NO_LESION or CUT_LESION.
        region_br: regions in view, 0 or 1; a row of zeros: not known, nothing is forbidden.
        hu_bn: mean HU of the cells.
        count: positives by which sums over cells are divided.
    """
    score_bnk = torch.sigmoid(output.head.class_logits_bnk)
    known_b1 = (region_br.sum(dim=1, keepdim=True) > 0).float()
    foreign_bk = (region_br @ rules.regions_kr.T == 0).float() * known_b1
    foreign_bl = (region_br @ rules.image_regions_lr.T == 0).float() * known_b1
    of_image = (torch.sigmoid(output.image_logits).square() * foreign_bl).mean()
    anatomy = (score_bnk.square() * foreign_bk[:, None]).sum() / count + of_image
    hu_bn1 = hu_bn[..., None]
    beyond = (rules.hu_low_k - hu_bn1).clamp(min=0) + (hu_bn1 - rules.hu_high_k).clamp(min=0)
    outside_bnk = (beyond / HU_SOFTNESS).clamp(max=1.0)
    # cells that are a lesion's are judged by their truth; partial volume is no crime
    outside_bnk = outside_bnk * (label_bn == NO_LESION)[..., None]
    hu_range = (score_bnk.square() * outside_bnk).sum() / count
    return {
        "anatomy": anatomy,
        "compatibility": _compatibility(output, label_bn, rules) / count,
        "hu_range": hu_range,
        "hierarchy": _hierarchy(output.image_logits, rules),
    }


def _compatibility(output: NetworkOutput, label_bn: Tensor, rules: KnowledgeRules) -> Tensor:
    positive = label_bn >= 0
    logits = output.head.attribute_logits_bnv[positive]
    allowed = rules.allowed_kv[label_bn[positive]]
    total = logits.sum() * 0.0
    for part in rules.attribute_slices:
        mass = (logits[:, part].softmax(dim=-1) * allowed[:, part]).sum(dim=-1)
        total = total - mass.clamp(min=1e-6).log().sum()
    return total


def _hierarchy(image_logits_bl: Tensor, rules: KnowledgeRules) -> Tensor:
    if not rules.parents:
        return image_logits_bl.sum() * 0.0
    children, parents = (list(side) for side in zip(*rules.parents, strict=True))
    p_bl = torch.sigmoid(image_logits_bl)
    return (p_bl[:, children] - p_bl[:, parents]).clamp(min=0).square().mean()
