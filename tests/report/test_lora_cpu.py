"""The faster operators give what vLLM's own give."""

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("vllm")

from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu

from raypipe.report.lora_cpu import only_adapter, register

NAMES = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
TOKENS, ADAPTERS, RANK, WIDE = 7, 3, 8, 24


@pytest.fixture
def plain() -> Iterator[dict[str, object]]:
    before = {name: getattr(lora_ops, name) for name in NAMES}
    register()
    yield before
    for name, operator in before.items():
        setattr(lora_ops, name, operator)
        setattr(punica_cpu, name, operator)


@pytest.mark.parametrize("adapters", [[1] * TOKENS, [0, 1, 1, 2, 0, 0, 2]])
@pytest.mark.parametrize("add", [True, False])
def test_same_as_vllm(plain: dict[str, object], adapters: list[int], add: bool) -> None:
    torch.manual_seed(0)
    indices = torch.tensor(adapters)
    down, up = torch.randn(ADAPTERS, 1, RANK, WIDE), torch.randn(ADAPTERS, 1, WIDE, RANK)
    x, low, start = torch.randn(TOKENS, WIDE), torch.randn(TOKENS, RANK), torch.randn(TOKENS, 40)
    for name, arguments in (
        ("bgmv_shrink", (x, down, start[:, :RANK], indices, 0.5)),
        ("bgmv_expand", (low, up, start, indices, add)),
        ("bgmv_expand_slice", (low, up, start, indices, 10, WIDE, add)),
    ):
        results = []
        for operator in (plain[name], getattr(punica_cpu, name)):
            output = arguments[2].clone()
            operator(*arguments[:2], output, *arguments[3:])  # type: ignore[operator]
            results.append(output)
        torch.testing.assert_close(results[1], results[0])
        assert not torch.equal(results[1], arguments[2]), f"{name} changed nothing"


def test_prefill_goes_the_same_way(plain: dict[str, object]) -> None:
    assert lora_ops.bgmv_shrink is not plain["bgmv_shrink"]
    assert only_adapter(torch.ones(2, 1, 4, 3), torch.tensor([1, 1])) is not None
    assert only_adapter(torch.ones(2, 1, 4, 3), torch.tensor([0, 1])) is None
