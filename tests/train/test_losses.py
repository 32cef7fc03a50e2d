from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from raypipe.knowledge.graph import REGIONS, load_graph
from raypipe.model.heads import HeadOutput
from raypipe.model.network import NetworkOutput, config_for
from raypipe.train.knowledge_loss import make_rules
from raypipe.train.losses import LossConfig, Truth, cell_weights, detection_loss, focal, giou
from raypipe.train.tissues import TISSUES, UNKNOWN

GRAPH = load_graph()
CONFIG = config_for(GRAPH)
RULES = make_rules(GRAPH, CONFIG)
LABEL = CONFIG.labels.index("liver_cyst")
CELLS = 6
BOX = torch.tensor([20.0, 30.0, 10.0, 12.0])


def truth() -> Truth:
    """One slice of the abdomen; cell 2 is a liver cyst."""
    label = torch.full((1, CELLS), -1)
    label[0, 2] = LABEL
    attributes = torch.full((1, CELLS, len(CONFIG.attributes)), -1)
    attributes[0, 2, 0] = CONFIG.attributes["density"].index("fluid")
    image = torch.zeros(1, len(CONFIG.image_labels))
    for key in ("liver_cyst", "focal_liver_lesion"):
        image[0, CONFIG.image_labels.index(key)] = 1.0
    attention = torch.zeros(1, 1, 2, 3)
    attention[0, 0, 0, 2] = 1.0
    return Truth(
        index_bn=torch.where(label >= 0, 0, -1),
        centerness_bn=(label >= 0).float(),
        label_bn=label,
        box_bn4=BOX.expand(1, CELLS, 4).clone(),
        attribute_bna=attributes,
        image_bl=image,
        region_br=torch.tensor([[float(r == "abdomen") for r in REGIONS]]),
        attention=(attention,),
        hu_bn=torch.full((1, CELLS), 10.0),
        tissue_bhw=torch.tensor([[[0, UNKNOWN, TISSUES.index("liver_cyst")], [1, 1, 1]]]),
    )


def output(quality: float) -> NetworkOutput:
    """From a blind guess (0) to the truth (1)."""
    t = truth()
    sure = 8.0 * quality

    def signed(target: Tensor) -> Tensor:
        return sure * (2.0 * target - 1.0)

    classes = torch.zeros(1, CELLS, len(CONFIG.labels))
    classes[0, 2, LABEL] = 1.0
    values = torch.zeros(1, CELLS, sum(len(v) for v in CONFIG.attributes.values()))
    for name, part in CONFIG.attribute_slices.items():
        allowed = GRAPH.finding("liver_cyst").attributes[name][0]
        values[0, 2, part.start + CONFIG.attributes[name].index(allowed)] = 1.0
    box = BOX + (1.0 - quality) * torch.tensor([6.0, 5.0, 4.0, 3.0])
    return NetworkOutput(
        head=HeadOutput(
            class_logits_bnk=signed(classes),
            box_bn4=box.expand(1, CELLS, 4),
            centerness_bn=signed(t.centerness_bn),
            attribute_logits_bnv=signed(values),
        ),
        attention=(signed(t.attention[0]),),
        image_logits=signed(t.image_bl),
        region_logits=signed(t.region_br),
        features=torch.zeros(1, 4),
        tissue_logits=signed(
            one_hot(t.tissue_bhw % UNKNOWN, len(TISSUES)).permute(0, 3, 1, 2).float()
        ),
    )


TERMS = sorted(set(LossConfig.model_fields) - {"focal_alpha", "focal_gamma", "lesion_balance"})


@pytest.mark.parametrize("term", TERMS)
def test_each_term_falls_as_the_prediction_gets_better(term: str) -> None:
    values = [
        float(detection_loss(output(q), truth(), RULES, LossConfig())[term])
        for q in (0.0, 0.5, 1.0)
    ]
    if term == "hierarchy":  # a blind guess already has parents as likely as children
        assert values == [0.0, 0.0, 0.0]
        return
    assert values[0] > values[1] > values[2] >= 0.0
    assert values[2] < 0.12 * values[0] + 1e-3


def test_a_term_with_weight_0_is_left_out() -> None:
    terms = detection_loss(output(0.5), truth(), RULES, LossConfig(giou=0.0))
    assert "giou" not in terms
    full = detection_loss(output(0.5), truth(), RULES, LossConfig())
    assert float(terms["total"]) == pytest.approx(
        float(full["total"] - 2.0 * full["giou"]), rel=1e-4
    )


def test_a_slice_without_lesions_has_a_finite_loss() -> None:
    empty = replace(
        truth(),
        label_bn=torch.full((1, CELLS), -1),
        index_bn=torch.full((1, CELLS), -1),
        attribute_bna=torch.full((1, CELLS, len(CONFIG.attributes)), -1),
        region_br=torch.zeros(1, len(REGIONS)),
    )
    terms = detection_loss(output(0.0), empty, RULES, LossConfig())
    assert all(torch.isfinite(v) for v in terms.values())
    assert float(terms["giou"]) == 0.0
    # nothing is forbidden, and nothing learned of regions, where they are not known
    assert float(terms["anatomy"]) == 0.0 and float(terms["region"]) == 0.0


def _with_class(cell: int, label: str, logit: float) -> NetworkOutput:
    base = output(1.0)
    classes = base.head.class_logits_bnk.clone()
    classes[0, cell, CONFIG.labels.index(label)] = logit
    return base._replace(head=base.head._replace(class_logits_bnk=classes))


def knowledge(name: str, out: NetworkOutput, t: Truth | None = None) -> float:
    return float(detection_loss(out, t or truth(), RULES, LossConfig())[name])


def test_a_finding_outside_its_anatomy_costs() -> None:
    foreign = knowledge("anatomy", _with_class(0, "brain_infarct", 4.0))
    native = knowledge("anatomy", _with_class(0, "renal_cyst", 4.0))
    assert foreign > native + 0.5


def test_a_finding_where_hu_is_out_of_range_costs() -> None:
    dense = replace(truth(), hu_bn=torch.full((1, CELLS), 400.0))
    wrong = knowledge("hu_range", _with_class(0, "renal_cyst", 4.0), dense)
    right = knowledge("hu_range", _with_class(0, "kidney_stone", 4.0), dense)
    assert wrong > right + 0.5
    # a true lesion's own cell is judged by its truth
    assert knowledge("hu_range", output(1.0), dense) < 0.01
    # fluid bends around the lung: what its box holds in the middle is not it
    bent = knowledge("hu_range", _with_class(0, "pleural_effusion", 4.0), dense)
    assert bent < 0.01


def test_an_attribute_that_cannot_be_costs() -> None:
    part = CONFIG.attribute_slices["density"]
    for value, costs in (("calcified", True), ("fluid", False)):
        base = output(1.0)
        logits = base.head.attribute_logits_bnv.clone()
        logits[0, 2, part] = -6.0
        logits[0, 2, part.start + CONFIG.attributes["density"].index(value)] = 6.0
        out = base._replace(head=base.head._replace(attribute_logits_bnv=logits))
        assert (knowledge("compatibility", out) > 3.0) is costs


def test_a_child_above_its_parent_costs() -> None:
    base = output(1.0)
    image = base.image_logits.clone()
    image[0, CONFIG.image_labels.index("focal_liver_lesion")] = -8.0
    assert knowledge("hierarchy", base._replace(image_logits=image)) > 0.05
    assert knowledge("hierarchy", base) < 1e-6


def test_rules_follow_the_graph() -> None:
    density = CONFIG.attribute_slices["density"]
    row = RULES.allowed_kv[LABEL, density]
    assert {v for v, ok in zip(CONFIG.attributes["density"], row, strict=True) if ok} == {"fluid"}
    assert float(RULES.hu_low_k[LABEL]) == -10.0
    assert (
        CONFIG.image_labels.index("liver_cyst"),
        CONFIG.image_labels.index("focal_liver_lesion"),
    ) in RULES.parents


def test_giou_values() -> None:
    a = torch.tensor([[5.0, 5.0, 10.0, 10.0]])
    assert float(giou(a, a)) == pytest.approx(1.0)
    apart = torch.tensor([[25.0, 5.0, 10.0, 10.0]])
    assert float(giou(a, apart)) == pytest.approx(-100 / 300)
    half = torch.tensor([[10.0, 5.0, 10.0, 10.0]])
    assert float(giou(a, half)) == pytest.approx(1 / 3)


def test_focal_is_cross_entropy_without_focus() -> None:
    x, t = torch.tensor([1.5, -0.3]), torch.tensor([1.0, 0.0])
    plain = torch.nn.functional.binary_cross_entropy_with_logits(x, t, reduction="none")
    torch.testing.assert_close(focal(x, t, 0.5, 0.0), 0.5 * plain)
    assert focal(x, t, 0.5, 2.0)[0] < 0.5 * plain[0] * (1 - torch.sigmoid(x[0]))


def test_gradients_are_right() -> None:
    """Analytic against numeric, in float64, through every term that sees the boxes."""
    boxes = (BOX + 1.0).double()[None].requires_grad_()
    assert torch.autograd.gradcheck(lambda b: giou(b, BOX.double()[None]), (boxes,))
    logits = torch.randn(4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: focal(x, target, 0.25, 2.0), (logits,))


def test_lesions_weigh_the_same_when_balanced() -> None:
    """One lesion answers in one cell, another in four: 1 to 1 instead of 1 to 4."""
    two = replace(
        truth(),
        label_bn=torch.tensor([[LABEL, LABEL, LABEL, LABEL, LABEL, -1]]),
        index_bn=torch.tensor([[0, 1, 1, 1, 1, -1]]),
    )
    plain, half, even = (cell_weights(two, balance, lambda x: x)[0] for balance in (0, 0.5, 1))
    assert plain.tolist() == [1.0] * CELLS
    assert even[0] == pytest.approx(float(even[1:5].sum()))
    assert half[0] == pytest.approx(2.0 * float(half[1]))
    for weight in (half, even):
        assert float(weight[:5].mean()) == pytest.approx(1.0) and weight[5] == 1.0
    apart = replace(
        two,
        label_bn=two.label_bn.reshape(2, 3),
        index_bn=torch.tensor([[0, 0, 0], [0, 0, -1]]),
        centerness_bn=two.centerness_bn.reshape(2, 3),
    )
    found = cell_weights(apart, 1.0, lambda x: x)
    assert found[0, 0] * 3 == pytest.approx(float(found[1, 0] * 2))  # other slices, other lesions
