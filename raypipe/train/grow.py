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

_LEVEL = re.compile(r"(pyramid\.(?:laterals|smooth|blocks|attention)\.)(\d+)(\..+)")
"""Parts of which each level of the pyramid has its own, the finest first."""
_SCALE = "box_head.scale"

_STEM = "encoder.stem.weight"
_READERS = ("encoder.stages.0.reduce.weight", "pyramid.laterals.0.weight")
"""What reads the stem; the lateral does so where the finest level has the stem's grid."""


def grown(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint, with what the network has beyond them.

    Layers and blocks that it gains start without effect. Channels that the stem gains start as in
    a new network, and nothing reads them yet: their weights in the stage behind it are zero. Levels
    of the pyramid that it gains begin like the finest one, and claim boxes of their own from the
    first step on. Other differences of shape are left as they are.

    Args:
        tensors: of the checkpoint.
        own: the state of the new network, as it was drawn.

    Returns:
        a state with which the network computes what the checkpoint's does on the levels of both.
    """
    state = _with_levels(tensors, own)
    for name in own.keys() - state.keys():
        if _NEW.match(name):
            adds = _LAYER_ADDS.search(name)
            state[name] = torch.zeros_like(own[name]) if adds else own[name]
    if _STEM in tensors:
        have, wanted = len(tensors[_STEM]), len(own[_STEM])
        state[_STEM] = torch.cat((tensors[_STEM], own[_STEM][have:]))
        for reader in _READERS:
            if reader in state and state[reader].shape[1] == have < own[reader].shape[1] == wanted:
                unread = torch.zeros_like(own[reader][:, have:])
                state[reader] = torch.cat((state[reader], unread), dim=1)
    return state


def _with_levels(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Count levels from the new finest one, which starts as a copy; its lateral adds nothing."""
    if _SCALE not in tensors or (gained := len(own[_SCALE]) - len(tensors[_SCALE])) < 1:
        return dict(tensors)
    state = {}
    for name, value in tensors.items():
        if not (level := _LEVEL.fullmatch(name)):
            state[name] = value
            continue
        part, number, rest = level.groups()
        state[f"{part}{int(number) + gained}{rest}"] = value
        if number == "0" and ".laterals." not in part and ".blocks." not in part:
            state.update({f"{part}{new}{rest}": value.clone() for new in range(gained)})
    for new in range(gained):
        for kind in ("weight", "bias"):
            name = f"pyramid.laterals.{new}.{kind}"
            state[name] = torch.zeros_like(own[name])
    first = tensors[_SCALE][:1]
    state[_SCALE] = torch.cat((first.repeat(gained), tensors[_SCALE]))
    return state
