"""Scaled dot-product attention in the precision that suits the device.

In: queries, keys, values. Out: what was read. Does not know: windows, nodes.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(..., T, D), (..., S, D), (..., S, D) -> (..., T, D).

    float32 on a CPU, also where the rest is bfloat16: the backward pass of torch's CPU kernel
    takes several times as long in bfloat16.
    """
    if q.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(q.float(), k.float(), v.float())
    return F.scaled_dot_product_attention(q, k, v)
