import itertools

import pytest
import torch

from raypipe.knowledge.graph import load_graph
from raypipe.model.enhancement import Strategy, node_table
from raypipe.model.heads import cell_centers
from raypipe.model.network import Network, NetworkConfig, config_for

GRAPH = load_graph()
CHANNELS = 9
"""Three windows of a slice and of its neighbours."""


def build(strategy: Strategy = "full") -> Network:
    torch.manual_seed(0)
    config = config_for(GRAPH).model_copy(update={"strategy": strategy})
    return Network(config, GRAPH).eval()


def test_small_network_is_small_and_its_shapes_fit() -> None:
    network = build()
    assert sum(p.numel() for p in network.parameters()) < 3_000_000
    config = network.config
    with torch.inference_mode():
        output = network(torch.rand(2, CHANNELS, 256, 256))
    cells = sum((256 // s) ** 2 for s in (2, 4, 8, 16, 32))
    assert network.strides == (2, 4, 8, 16, 32)
    assert output.head.class_logits_bnk.shape == (2, cells, len(config.labels))
    assert output.head.box_bn4.shape == (2, cells, 4)
    assert output.head.centerness_bn.shape == (2, cells)
    values = sum(len(v) for v in config.attributes.values())
    assert output.head.attribute_logits_bnv.shape == (2, cells, values)
    assert output.image_logits.shape == (2, len(config.image_labels))
    assert output.region_logits.shape == (2, 3)
    assert [a.shape[-1] for a in output.attention] == [128, 64, 32, 16, 8]
    assert (output.head.box_bn4[..., 2:] > 0).all()


def test_boxes_start_at_their_cells() -> None:
    with torch.inference_mode():
        boxes = build()(torch.rand(1, CHANNELS, 256, 256)).head.box_bn4[0]
    first = cell_centers(128, 128, 2, "cpu")
    assert first[0].tolist() == [1.0, 1.0] and first[1].tolist() == [3.0, 1.0]
    assert (boxes[: 128 * 128, :2] - first).abs().max() < 2 * 2


def test_paper_network_has_the_same_levels_but_the_finest() -> None:
    with torch.device("meta"):
        network = Network(config_for(GRAPH, size="paper"), GRAPH)
    assert network.strides == (4, 8, 16, 32)
    assert network.config.context_slices == 1  # the paper's input: 3 x 256 x 256
    assert sum(p.numel() for p in network.encoder.parameters()) > 30e6


@pytest.mark.parametrize("strategy", ["base", "knowledge_fusion", "adaptive_attention", "full"])
def test_strategies_run_and_learn(strategy: Strategy) -> None:
    network = build(strategy).train()
    output = network(torch.rand(1, CHANNELS, 256, 256))
    (output.head.class_logits_bnk.sum() + output.image_logits.sum()).backward()
    assert network.encoder.stem.weight.grad is not None
    if strategy == "base":
        assert network.nodes is None and len(network.enhancements) == 0
    else:
        assert network.nodes is not None
        grad = network.nodes.learned.grad
        assert grad is not None and grad.abs().max() > 0


def test_the_graph_changes_the_full_network_and_not_the_slots() -> None:
    x = torch.rand(1, CHANNELS, 256, 256)
    for strategy, differs in (("full", True), ("adaptive_attention", False)):
        network = build(strategy)  # type: ignore[arg-type]
        with torch.inference_mode():
            before = network(x).image_logits
            for name, buffer in network.named_buffers():
                if name == "nodes.facts_nf":
                    buffer.zero_()
            after = network(x).image_logits
        assert torch.allclose(before, after) is not differs


def test_node_table_holds_the_labels_and_their_world() -> None:
    table = node_table(GRAPH, ("liver_cyst", "pulmonary_nodule"))
    names = set(table.names)
    assert {"finding:liver_cyst", "finding:focal_liver_lesion", "organ:liver"} <= names
    assert {"region:head", "density=fluid"} <= names
    assert "organ:brain" not in names
    at = {name: i for i, name in enumerate(table.names)}
    edges = table.adjacency_nn > 0
    assert edges[at["finding:liver_cyst"], at["density=fluid"]]
    assert edges[at["density=fluid"], at["finding:liver_cyst"]]
    assert not edges[at["finding:liver_cyst"], at["density=calcified"]]
    assert table.adjacency_nn.sum(axis=1) == pytest.approx(1.0)


def test_config_holds_ancestors_as_image_labels() -> None:
    config: NetworkConfig = config_for(GRAPH)
    assert set(config.labels) < set(config.image_labels)
    assert "calculus" in config.image_labels and "calculus" not in config.labels
    slices = list(config.attribute_slices.values())
    assert slices[0].start == 0
    assert all(a.stop == b.start for a, b in itertools.pairwise(slices))
