"""Weights of a smaller network as the start of a larger one that computes the same.

In: tensors of a checkpoint, the larger network's own. Out: tensors that fit it.
Does not know: files, configs.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

_NEW = ("tissue_head.", "encoder.stem_blocks.")
"""Parts that weights may lack: one is for training alone, one starts without effect."""

_STEM, _READER = "encoder.stem.weight", "encoder.stages.0.reduce.weight"


def grown(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, with what the network has beyond them.

    Channels that the stem gains start as in a new network, and nothing reads them yet: their
    weights in the stage behind it are zero. Other differences of shape are left as they are.

    Args:
        tensors: of the checkpoint.
        own: the state of the new network, as it was drawn.

    Returns:
        a state with which the network computes what the checkpoint's does.
    """
    state = {name: value for name, value in own.items() if name.startswith(_NEW)} | dict(tensors)
    if _STEM in tensors and _READER in tensors:
        have = tensors[_STEM].shape[0]
        state[_STEM] = torch.cat((tensors[_STEM], own[_STEM][have:]))
        unread = torch.zeros_like(own[_READER][:, have:])
        state[_READER] = torch.cat((tensors[_READER], unread), dim=1)
    return state
