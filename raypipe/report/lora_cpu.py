"""vLLM's LoRA on a CPU, faster where one adapter has the batch for itself.

In: vLLM's operators. Out: the same ones, replaced in this process.
Does not know: engines, where adapters come from.

vLLM 0.32 copies an adapter's weights once for every token of a batch and multiplies the copies one
by one, which makes an adapter on a CPU four times as slow as the model alone. raypipe's engine
parts its batches by adapter, so that two plain matrix products do the same. vLLM calls `register`
in each of its processes (an entry point of the group vllm.general_plugins).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear


def register() -> None:
    """Replace the operators, in a process of a CPU engine; elsewhere nothing happens."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    for name, fast in (
        ("bgmv_shrink", _shrink(lora_ops.bgmv_shrink)),
        ("bgmv_expand", _expand(lora_ops.bgmv_expand)),
        ("bgmv_expand_slice", _expand_slice(lora_ops.bgmv_expand_slice)),
    ):
        setattr(lora_ops, name, fast)  # the ones for prefill call it there
        setattr(punica_cpu, name, fast)


def only_adapter(weights: Tensor, indices: Tensor) -> Tensor | None:
    """Weights (out, in) of the adapter of all tokens; None where tokens have several.

    Args:
        weights: (adapters, out, in) or (adapters, 1, out, in).
        indices: (tokens,), the adapter of each.
    """
    first = int(indices[0])
    if not bool((indices == first).all()):
        return None
    return weights[first].reshape(weights.shape[-2:])


def _shrink(plain: Any) -> Any:
    def shrink(
        inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, scaling: float = 1.0
    ) -> None:
        only = only_adapter(weights, indices)
        if only is None:
            plain(inputs, weights, output, indices, scaling)
            return
        found = linear(inputs.to(output.dtype), only.to(output.dtype))
        torch.mul(found, scaling, out=output[:, : found.shape[1]])

    return shrink


def _expand(plain: Any) -> Any:
    def expand(
        inputs: Tensor, weights: Tensor, output: Tensor, indices: Tensor, add_inputs: bool = True
    ) -> None:
        only = only_adapter(weights, indices)
        if only is None:
            plain(inputs, weights, output, indices, add_inputs)
            return
        _put(inputs, only[: output.shape[1]], output, 0, add_inputs)

    return expand


def _expand_slice(plain: Any) -> Any:
    def expand_slice(
        inputs: Tensor,
        weights: Tensor,
        output: Tensor,
        indices: Tensor,
        slice_offset: int,
        slice_size: int,
        add_inputs: bool = True,
    ) -> None:
        only = only_adapter(weights, indices)
        if only is None:
            plain(inputs, weights, output, indices, slice_offset, slice_size, add_inputs)
            return
        _put(inputs, only, output, slice_offset, add_inputs)

    return expand_slice


def _put(inputs: Tensor, weights: Tensor, output: Tensor, offset: int, add: bool) -> None:
    target = output[: inputs.shape[0], offset : offset + weights.shape[0]]
    found = linear(inputs.to(output.dtype), weights.to(output.dtype))
    if add:
        target += found
    else:
        target.copy_(found)
