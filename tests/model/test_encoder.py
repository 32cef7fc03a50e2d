import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raypipe.model.encoder import Encoder, paper, small


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_paper_sizes() -> None:
    """Counts and grids of the published network, within 5 %."""
    with torch.device("meta"):
        encoder = Encoder(paper())
        with FlopCounterMode(display=False) as counter:
            maps = encoder(torch.empty(1, 3, 256, 256))
    assert parameters(encoder.stem) == pytest.approx(9.4e3, rel=0.05)
    for stage, count in zip(encoder.stages, (1.2e6, 4.8e6, 19.2e6), strict=True):
        assert parameters(stage) == pytest.approx(count, rel=0.05)
    assert parameters(encoder.out) == pytest.approx(8.4e6, rel=0.05)
    assert [tuple(m.shape) for m in maps] == [
        (1, 64, 256, 256),
        (1, 128, 128, 128),
        (1, 256, 64, 64),
        (1, 512, 32, 32),
        (1, 1024, 16, 16),
    ]
    assert encoder.strides == (1, 2, 4, 8, 16)
    gflops = counter.get_total_flops() / 1e9
    assert gflops == pytest.approx(156.8, rel=0.05)


def test_small_sizes() -> None:
    encoder = Encoder(small())
    assert parameters(encoder) < 2e6
    maps = encoder(torch.zeros(1, 3, 256, 256))
    assert [m.shape[2] for m in maps] == [128, 64, 32, 16, 8]
    assert tuple(m.shape[1] for m in maps) == encoder.channels
    assert tuple(256 // m.shape[2] for m in maps) == encoder.strides


def test_every_pathway_takes_part() -> None:
    """Without its pathways a stage gives another result."""
    torch.manual_seed(0)
    encoder = Encoder(small()).eval()
    x = torch.rand(1, 3, 256, 256)
    with torch.inference_mode():
        before = [m.clone() for m in encoder(x)]
        for stage in encoder.stages:
            for pathway in stage.pathways:
                gate = pathway.gate.clone()
                pathway.gate.zero_()
                assert not torch.allclose(encoder(x)[-1], before[-1], atol=1e-7)
                pathway.gate.copy_(gate)


def test_information_crosses_windows() -> None:
    """A change in one corner reaches the opposite corner of the coarsest map."""
    torch.manual_seed(0)
    encoder = Encoder(small()).eval()
    x = torch.rand(1, 3, 256, 256)
    y = x.clone()
    y[..., :16, :16] = 0.0
    with torch.inference_mode():
        gap = (encoder(x)[-1] - encoder(y)[-1]).abs()
    assert gap[..., -1, -1].max() > 0


def test_activation_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    config = small()
    plain = Encoder(config)
    saving = Encoder(config.model_copy(update={"checkpoint_activations": True}))
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 256, 256)
    grads = []
    for encoder in (plain, saving):
        encoder(x)[-1].square().mean().backward()
        grads.append(encoder.stages[0].layers[0].mlp[0].weight.grad)
    torch.testing.assert_close(grads[0], grads[1])
