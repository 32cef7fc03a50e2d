"""One optimiser step, and everything that changes from step to step.

In: a network, batches. Out: named losses; a state to save and restore.
Does not know: Ray, files, validation.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.knowledge_loss import KnowledgeRules
from raypipe.train.losses import Truth, detection_loss


class Schedule(Protocol):
    """The part of a run's config that the optimiser follows; see TrainDetectorConfig."""

    @property
    def steps(self) -> int: ...  # noqa: D102
    @property
    def learning_rate(self) -> float: ...  # noqa: D102
    @property
    def warmup_share(self) -> float: ...  # noqa: D102
    @property
    def weight_decay(self) -> float: ...  # noqa: D102
    @property
    def clip_norm(self) -> float: ...  # noqa: D102
    @property
    def ema(self) -> float: ...  # noqa: D102


def learning_rate(step: int, config: Schedule) -> float:
    """One cycle (Smith 2018): a cosine up to the peak, a cosine down to a thousandth."""
    rise = max(1, round(config.warmup_share * config.steps))
    if step < rise:
        low, high, part = config.learning_rate / 25.0, config.learning_rate, step / rise
    else:
        low, high = config.learning_rate, config.learning_rate / 1000.0
        part = min(1.0, (step - rise) / max(1, config.steps - rise))
    return high + (low - high) * 0.5 * (1.0 + math.cos(math.pi * part))


def make_optimizer(network: nn.Module, config: Schedule) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, not biases, norms, gates or embeddings."""
    decayed = [p for p in network.parameters() if p.ndim >= 2]
    plain = [p for p in network.parameters() if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.98),
        eps=1e-6,  # tiny gradients stay tiny: sums in another order barely matter
    )


@dataclass(kw_only=True, eq=False)
class TrainState:
    """What a run carries from step to step.

    Args:
        step: number of finished steps.
        scalars: parameters without an axis in a bare network; sharded ones have one of length 1.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    step: int = 0
    best: float = -1.0
    stale: int = 0
    scalars: frozenset[str] = frozenset()


def new_state(network: nn.Module, config: Schedule) -> TrainState:
    """A state before the first step."""
    average = {key: value.detach().clone() for key, value in network.named_parameters()}
    return TrainState(network=network, optimizer=make_optimizer(network, config), average=average)


def train_step(
    state: TrainState,
    channels_bchw: Tensor,
    truth: Truth,
    rules: KnowledgeRules,
    config: TrainDetectorConfig,
) -> dict[str, Tensor]:
    """One step on this worker's part of the batch; the terms of the loss, detached."""
    device = channels_bchw.device
    state.network.train()
    channels_bchw = channels_bchw.contiguous(memory_format=torch.channels_last)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
        output = state.network(channels_bchw)
    output = output.to(device, loss_dtype(config))
    terms = detection_loss(output, truth, rules, config.loss, mean_over_workers)
    optimise(state, terms["total"], config)
    return {name: value.detach() for name, value in terms.items()}


def loss_dtype(config: TrainDetectorConfig) -> torch.dtype:
    """Of weights, truth and losses."""
    return torch.float64 if config.precision == "float64" else torch.float32


def optimise(state: TrainState, loss: Tensor, config: Schedule) -> None:
    """Follow the gradient of a loss by one step of the schedule, and count it."""
    for group in state.optimizer.param_groups:
        group["lr"] = learning_rate(state.step, config)
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.network.parameters(), config.clip_norm)
    state.optimizer.step()
    state.step += 1
    _update_average(state, config)


def mean_over_workers(value: Tensor) -> Tensor:
    """The mean of a scalar over all workers; itself where there is one."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def _update_average(state: TrainState, config: Schedule) -> None:
    """Exponential average of the weights; young averages follow faster."""
    decay = min(config.ema, (1.0 + state.step) / (10.0 + state.step))
    with torch.no_grad():
        for key, value in state.network.named_parameters():
            state.average[key].lerp_(value, 1.0 - decay)


_FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)


def averaged_weights(state: TrainState) -> dict[str, Tensor]:
    """The averaged weights and the buffers, whole and on the CPU, named as in a bare network.

    Every worker has to call it where parameters are sharded.
    """
    own = {key: value.detach().clone() for key, value in state.network.named_parameters()}
    with torch.no_grad():
        for key, value in state.network.named_parameters():
            value.copy_(state.average[key])
        full = _whole(state)
        for key, value in state.network.named_parameters():
            value.copy_(own[key])
    return full


def _whole(state: TrainState) -> dict[str, Tensor]:
    """Copies of all weights and buffers; on a CPU the state dict is the live weights."""
    full = get_model_state_dict(state.network, options=_FULL)
    return {
        k: v.detach().clone().reshape(() if k in state.scalars else v.shape)
        for k, v in full.items()
        if isinstance(v, Tensor)
    }


def _load(state: TrainState, saved: Mapping[str, Tensor]) -> None:
    """Set all weights and buffers from copies that _whole made, sharded or not."""
    own: Mapping[str, Any] = get_model_state_dict(state.network)
    fitting: dict[str, Any] = {k: v.reshape(own[k].shape) for k, v in saved.items()}
    options = StateDictOptions(full_state_dict=True)
    set_model_state_dict(state.network, fitting, options=options)


def state_to_save(state: TrainState) -> dict[str, Any]:
    """Everything that a restart needs; every worker has to call it."""
    return {
        "model": _whole(state),
        "optimizer": copy.deepcopy(
            get_optimizer_state_dict(state.network, state.optimizer, options=_FULL)
        ),
        "average": averaged_weights(state),
        "step": state.step,
        "best": state.best,
        "stale": state.stale,
    }


def restore(state: TrainState, saved: Mapping[str, Any]) -> None:
    """Go on from what state_to_save returned."""
    full = StateDictOptions(full_state_dict=True)
    _load(state, saved["average"])
    with torch.no_grad():
        for key, value in state.network.named_parameters():
            state.average[key].copy_(value)
    _load(state, saved["model"])
    set_optimizer_state_dict(state.network, state.optimizer, dict(saved["optimizer"]), options=full)
    state.step, state.best, state.stale = saved["step"], saved["best"], saved["stale"]
