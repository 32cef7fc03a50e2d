"""The detection loss: classes, boxes, attributes, image labels, attention and knowledge.

In: a network's output and the truth of its slices. Out: named terms, each a scalar, and their
weighted sum. Does not know: optimisers, data sets.

Shape suffixes: B slices, N cells, K classes, V attribute values, A attributes, L image labels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.model.heads import HeadOutput
from raypipe.model.network import NetworkOutput
from raypipe.settings import Settings
from raypipe.train.knowledge_loss import KnowledgeRules, knowledge_terms
from raypipe.train.targets import CUT_LESION
from raypipe.train.tissues import tissue_term


class LossConfig(Settings):
    """Weight of each term; 0 leaves it out."""

    focal: float = Field(default=1.0, ge=0, description="classes of cells (Lin 2017)")
    focal_alpha: float = Field(default=0.25, gt=0, lt=1, description="weight of positive cells")
    focal_gamma: float = Field(default=2.0, ge=0, description="how much easy cells are muted")
    lesion_balance: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="0: all positive cells weigh the same; 1: all lesions do, however many cells "
        "answer for them",
    )
    giou: float = Field(default=2.0, ge=0, description="boxes (Rezatofighi 2019)")
    centerness: float = Field(default=0.5, ge=0, description="centreness (Tian 2019)")
    attributes: float = Field(default=0.3, ge=0, description="attribute values of positive cells")
    image: float = Field(default=0.5, ge=0, description="labels of the slice")
    region: float = Field(default=0.2, ge=0, description="body regions in view")
    tissue: float = Field(default=0.5, ge=0, description="organ or lesion, cell by cell")
    attention: float = Field(default=0.3, ge=0, description="attention maps against true boxes")
    anatomy: float = Field(default=0.3, ge=0, description="findings outside their anatomy")
    compatibility: float = Field(default=0.1, ge=0, description="attributes that cannot be")
    hu_range: float = Field(default=0.3, ge=0, description="findings where HU is out of range")
    hierarchy: float = Field(default=0.2, ge=0, description="parents below their children")

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight; without what shapes a term."""
        return self.model_dump(exclude={"focal_alpha", "focal_gamma", "lesion_balance"})


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The truth of a batch.

    Args:
        index_bn: (B, N) int64; row of the cell's box within its slice, -1 without one.
        centerness_bn: (B, N).
        label_bn: (B, N) int64; class of the cell, else NO_LESION or CUT_LESION.
        box_bn4: centre x, y, width, height of the cell's box.
        attribute_bna: (B, N, A) int64; index of the value, -1 where not known.
        image_bl: (B, L) 0 or 1; -1 where only a cut lesion speaks for the label.
        region_br: (B, R) 0 or 1; a row of zeros where the regions are not known.
        attention: (B, 1, H, W) a level, 0 or 1.
        hu_bn: (B, N) mean HU of the cell.
        tissue_bhw: (B, H, W) int64 on network.TISSUE_STRIDE; 255 where not known.
    """

    index_bn: Tensor
    centerness_bn: Tensor
    label_bn: Tensor
    box_bn4: Tensor
    attribute_bna: Tensor
    image_bl: Tensor
    region_br: Tensor
    attention: tuple[Tensor, ...]
    hu_bn: Tensor
    tissue_bhw: Tensor


Total = Callable[[Tensor], Tensor]
"""Takes a worker's scalar to its mean over all workers, so that they normalise alike."""


def detection_loss(
    output: NetworkOutput,
    truth: Truth,
    rules: KnowledgeRules,
    config: LossConfig,
    share: Total = lambda count: count,
) -> dict[str, Tensor]:
    """Every term with a weight above 0, unweighted, and their weighted sum as "total".

    Args:
        share: maps a worker's count of positives to the mean over workers.
    """
    positive = truth.label_bn >= 0
    count = share(positive.sum().float()).clamp(min=1.0)
    head = output.head
    weights = config.weights
    terms: dict[str, Tensor] = {}
    target = F.one_hot(truth.label_bn.clamp(min=0), head.class_logits_bnk.shape[-1])
    target = target.float() * positive[..., None]
    weight_bn = cell_weights(truth, config.lesion_balance, share)
    classes = focal(head.class_logits_bnk, target, config.focal_alpha, config.focal_gamma)
    terms["focal"] = (classes * weight_bn[..., None]).sum() / count
    terms.update(_box_terms(head, truth, positive, weight_bn[positive], count))
    terms["attributes"] = _attribute_term(head, truth, rules, positive) / count
    terms["image"] = _image_term(output.image_logits, truth.image_bl)
    terms["region"] = _region_term(output.region_logits, truth.region_br)
    if output.tissue_logits is not None:
        terms["tissue"] = tissue_term(output.tissue_logits, truth.tissue_bhw, share)
    terms["attention"] = _attention_term(output.attention, truth.attention)
    terms.update(
        knowledge_terms(output, truth.label_bn, truth.region_br, truth.hu_bn, rules, count)
    )
    kept = {name: value for name, value in terms.items() if weights[name] > 0}
    total = sum((weights[name] * value for name, value in kept.items()), torch.zeros(()))
    return {**kept, "total": total}


def focal(logits: Tensor, target: Tensor, alpha: float, gamma: float) -> Tensor:
    """Focal loss, element by element (Lin 2017, equation 5)."""
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = torch.sigmoid(logits)
    miss = torch.where(target > 0, 1.0 - p, p)
    weight = torch.where(target > 0, alpha, 1.0 - alpha)
    return weight * miss.pow(gamma) * entropy


def cell_weights(truth: Truth, balance: float, share: Total) -> Tensor:
    """(B, N) weight of each cell: 1, or 1 on average over positive cells, small lesions' above.

    A lesion of three pixels has one or two cells, a large one twenty.
    """
    positive = truth.label_bn >= 0
    lesion_bn = truth.index_bn + (truth.index_bn.max() + 1) * torch.arange(
        len(positive), device=positive.device
    ).unsqueeze(1)
    own = lesion_bn[positive]
    raw = torch.bincount(own)[own].to(truth.box_bn4.dtype) ** -balance
    mean = share(raw.sum()) / share(positive.sum().float()).clamp(min=1.0)
    weight_bn = torch.ones_like(truth.centerness_bn)
    weight_bn[positive] = raw / mean
    weight_bn[truth.label_bn == CUT_LESION] = 0.0
    return weight_bn


def giou(a_n4: Tensor, b_n4: Tensor) -> Tensor:
    """Generalised IoU, -1 to 1, of boxes given as centre x, y, width, height."""
    a_low, a_high = a_n4[:, :2] - a_n4[:, 2:] / 2, a_n4[:, :2] + a_n4[:, 2:] / 2
    b_low, b_high = b_n4[:, :2] - b_n4[:, 2:] / 2, b_n4[:, :2] + b_n4[:, 2:] / 2
    common = (a_high.minimum(b_high) - a_low.maximum(b_low)).clamp(min=0).prod(dim=1)
    union = a_n4[:, 2:].prod(dim=1) + b_n4[:, 2:].prod(dim=1) - common
    hull = (a_high.maximum(b_high) - a_low.minimum(b_low)).prod(dim=1)
    return common / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)


def _box_terms(
    head: HeadOutput, truth: Truth, positive: Tensor, weight_n: Tensor, count: Tensor
) -> dict[str, Tensor]:
    overlap = giou(head.box_bn4[positive], truth.box_bn4[positive])
    central = F.binary_cross_entropy_with_logits(
        head.centerness_bn[positive], truth.centerness_bn[positive], reduction="none"
    )
    return {
        "giou": (weight_n * (1.0 - overlap)).sum() / count,
        "centerness": (weight_n * central).sum() / count,
    }


def _attribute_term(
    head: HeadOutput, truth: Truth, rules: KnowledgeRules, positive: Tensor
) -> Tensor:
    logits, target = head.attribute_logits_bnv[positive], truth.attribute_bna[positive]
    total = logits.sum() * 0.0
    for a, part in enumerate(rules.attribute_slices):
        total = total + F.cross_entropy(
            logits[:, part], target[:, a], ignore_index=-1, reduction="sum"
        )
    return total


def _image_term(logits_bl: Tensor, truth_bl: Tensor) -> Tensor:
    """Cross-entropy over the labels that are known."""
    entropy = F.binary_cross_entropy_with_logits(
        logits_bl, truth_bl.clamp(min=0.0), reduction="none"
    )
    return (entropy * (truth_bl >= 0)).mean()


def _region_term(logits_br: Tensor, truth_br: Tensor) -> Tensor:
    """Cross-entropy over slices whose regions are known."""
    known_b1 = (truth_br.sum(dim=1, keepdim=True) > 0).float()
    entropy = F.binary_cross_entropy_with_logits(logits_br, truth_br, reduction="none")
    return (entropy * known_b1).mean()


def _attention_term(logits: tuple[Tensor, ...], target: tuple[Tensor, ...]) -> Tensor:
    """Soft Dice plus cross-entropy, each level alike."""
    total = logits[0].new_zeros(())
    for x, t in zip(logits, target, strict=True):
        p = torch.sigmoid(x)
        common, size = (p * t).sum(dim=(1, 2, 3)), (p + t).sum(dim=(1, 2, 3))
        # slice by slice, so that the mean over workers is the mean over the whole batch
        dice = 1.0 - (2.0 * common + 1.0) / (size + 1.0)
        total = total + dice.mean() + F.binary_cross_entropy_with_logits(x, t)
    return total / len(logits)
