"""Weights of a smaller network as the start of a larger one that computes the same.

In: tensors of a checkpoint, the larger network's own. Out: tensors that fit it.
Does not know: files, configs.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_NEW = re.compile(
    r"tissue_head\.|encoder\.stem_blocks\.|pyramid\.blocks\.|encoder\.stages\.\d+\.layers\."
)
"""Parts that weights may lack: the head is for training alone, the others can do nothing."""

_LAYER_ADDS = re.compile(r"\.layers\.\d+\.(position|attention\.out|mlp\.2)\.(weight|bias)$")
"""What a layer of a stage adds to its input ends with these."""

_STEM, _READER = "encoder.stem.weight", "encoder.stages.0.reduce.weight"


def grown(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, with what the network has beyond them.

    Layers and blocks that it gains start without effect. Channels that the stem gains start as in
    a new network, and nothing reads them yet: their weights in the stage behind it are zero. Other
    differences of shape are left as they are.

    Args:
        tensors: of the checkpoint.
        own: the state of the new network, as it was drawn.

    Returns:
        a state with which the network computes what the checkpoint's does.
    """
    state = dict(tensors)
    for name in own.keys() - tensors.keys():
        if _NEW.match(name):
            adds = _LAYER_ADDS.search(name)
            state[name] = torch.zeros_like(own[name]) if adds else own[name]
    if _STEM in tensors and _READER in tensors:
        have = tensors[_STEM].shape[0]
        state[_STEM] = torch.cat((tensors[_STEM], own[_STEM][have:]))
        unread = torch.zeros_like(own[_READER][:, have:])
        state[_READER] = torch.cat((tensors[_READER], unread), dim=1)
    return state
