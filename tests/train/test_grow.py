from typing import Literal

import pytest
import torch

from raypipe.knowledge.graph import load_graph
from raypipe.model.network import Network, config_for
from raypipe.train.grow import grown


def networks(*, finest_stride: Literal[2, 4] = 2) -> tuple[Network, Network]:
    """One with a narrower stem, shallower stages and no residual blocks, and the preset.

    Args:
        finest_stride: of the first.
    """
    torch.manual_seed(0)
    graph = load_graph()
    sizes = config_for(graph)
    stages = [stage.model_copy(update={"layers": 2}) for stage in sizes.encoder.stages]
    encoder = sizes.encoder.model_copy(
        update={"stem_channels": 16, "stem_blocks": 0, "stages": tuple(stages)}
    )
    smaller = sizes.model_copy(
        update={"encoder": encoder, "pyramid_blocks": 0, "finest_stride": finest_stride}
    )
    return Network(smaller, graph), Network(sizes, graph)


@pytest.mark.parametrize("finest_stride", [2, 4])
def test_weights_of_a_smaller_network_start_a_larger_one_that_computes_the_same(
    finest_stride: Literal[2, 4],
) -> None:
    """On the levels of both: one that is gained stands before them."""
    small, large = (network.eval() for network in networks(finest_stride=finest_stride))
    large.load_state_dict(grown(small.state_dict(), large.state_dict()))
    x_bchw = torch.rand(1, 9, 256, 256)
    with torch.inference_mode():
        before, after = small(x_bchw), large(x_bchw)
    cells = before.head.box_bn4.shape[1]
    for one, other in zip(after.head, before.head, strict=True):
        torch.testing.assert_close(one[:, -cells:], other)
    torch.testing.assert_close(after.image_logits, before.image_logits)


def test_blocks_move_with_the_level_that_they_belong_to() -> None:
    graph = load_graph()
    sizes = config_for(graph)
    small = Network(sizes.model_copy(update={"finest_stride": 4}), graph).eval()
    torch.nn.init.normal_(small.pyramid.blocks[-1][0].second.weight)
    large = Network(sizes, graph).eval()
    large.load_state_dict(grown(small.state_dict(), large.state_dict()))
    x_bchw = torch.rand(1, 9, 256, 256)
    with torch.inference_mode():
        torch.testing.assert_close(large(x_bchw).image_logits, small(x_bchw).image_logits)


def test_a_level_that_is_gained_learns_from_the_stem() -> None:
    small, large = networks(finest_stride=4)
    large.load_state_dict(grown(small.state_dict(), large.state_dict()))
    assert large.strides == (2, *small.strides)
    large(torch.rand(1, 9, 64, 64)).head.class_logits_bnk.square().mean().backward()
    lateral = large.pyramid.laterals[0].weight
    assert torch.count_nonzero(lateral) == 0
    assert lateral.grad is not None and torch.count_nonzero(lateral.grad) > 0


def test_what_is_new_learns() -> None:
    """The first step changes what reads the new channels, the second the channels themselves."""
    small, large = networks()
    state = grown(small.state_dict(), large.state_dict())
    start = {name: value.clone() for name, value in state.items()}
    large.load_state_dict(start)
    steps = torch.optim.AdamW(large.parameters())
    for _ in range(2):
        steps.zero_grad()
        large(torch.rand(1, 9, 64, 64)).head.class_logits_bnk.square().mean().backward()
        steps.step()
    now = large.state_dict()
    changed = (now["encoder.stem.weight"] - start["encoder.stem.weight"])[16:]
    assert (changed.abs().amax(dim=(1, 2, 3)) > 0).all()
    new = start.keys() - small.state_dict().keys()
    assert {name.split(".")[1] for name in new} == {"stem_blocks", "stages", "blocks"}
    for name in new:
        assert not torch.equal(now[name], start[name]), name


def test_weights_that_fit_stay_as_they_are() -> None:
    state = Network(config_for(load_graph()), load_graph()).state_dict()
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    result = grown(state, other)
    assert result.keys() == state.keys()
    assert all(torch.equal(result[name], value) for name, value in state.items())
