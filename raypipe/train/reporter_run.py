"""The training loop of one worker of a report model, the same under Ray and in a plain process.

In: a config, a loaded model, examples, the worker's place, a state to go on from. Out: calls of
`report` with metrics and a state to save. Does not know: Ray, storage, where examples come from.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raypipe.train.loop import Place, open_curves
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_model import LoadedModel, Scored, trained_parts, with_values
from raypipe.train.reporter_rows import Example, Row, RowPlan
from raypipe.train.reporter_validate import Validation, validate
from raypipe.train.step import (
    TrainState,
    learning_rate,
    mean_over_workers,
    new_state,
    optimise,
    restore,
    state_to_save,
)

log = logging.getLogger(__name__)

Report = Callable[[dict[str, float], dict[str, Any]], None]
"""Takes metrics and a state to save; the model holds the averaged weights meanwhile."""


def run(
    config: TrainReporterConfig,
    loaded: LoadedModel,
    examples: tuple[Sequence[Example], Validation],
    place: Place,
    report: Report,
    saved: Mapping[str, Any] | None = None,
) -> TrainState:
    """Train until the last step.

    Args:
        config: the run.
        loaded: the model, with a projector where examples have features.
        examples: to train on, and to measure on.
        place: this worker.
        report: called every checkpoint_every steps and after the last.
        saved: what report was given before, to go on from there.
    """
    train, validation = examples
    torch.set_num_threads(config.threads)
    model = loaded.model.to(place.device)
    parts = trained_parts(model)
    parts.zero_grad()  # of an earlier run: a restored optimiser wants none
    state = new_state(parts, config)
    if saved is not None:
        restore(state, saved)
    network: nn.Module = model
    if place.world > 1:
        network = nn.parallel.DistributedDataParallel(model)
    plan = RowPlan(train, config.rows, config.row_tokens, config.seed)
    curves = open_curves(place)
    while state.step < config.steps:
        rows = [r.to(place.device) for r in plan.rows(state.step)[place.rank :: place.world]]
        terms = _step(state, network, rows, config, place)
        if state.step % config.log_every == 0:
            _log(curves, {k: float(mean_over_workers(v)) for k, v in terms.items()}, state, config)
        if state.step % config.checkpoint_every and state.step < config.steps:
            continue
        with with_values(parts, state.average):
            metrics = validate(loaded, validation, config, place)
        metrics["train_loss"] = float(mean_over_workers(terms["train_loss"]))
        _log(curves, metrics, state, config)
        saving = state_to_save(state)
        with with_values(parts, state.average):
            report({**metrics, "step": float(state.step)}, saving)
    return state


def _step(
    state: TrainState,
    network: nn.Module,
    rows: Sequence[Row],
    config: TrainReporterConfig,
    place: Place,
) -> dict[str, Tensor]:
    """One step on this worker's rows; the terms of the loss, detached."""
    if config.dropout:
        torch.manual_seed(hash((config.seed, state.step, place.rank)) % 2**62)
    network.train()
    scored: Scored = network(rows)
    loss = weighted_loss(scored)
    optimise(state, loss, config)
    count = mean_over_workers(torch.tensor(float(len(scored.loss_n)), device=place.device))
    plain = scored.loss_n.detach().sum() / count
    return {"train_loss": plain, "train_weighted_loss": loss.detach()}


def weighted_loss(scored: Scored) -> Tensor:
    """The mean loss of learnt tokens by their weights, over the rows of all workers.

    The mean of this over workers is that of all tokens together, however these are shared out.
    """
    return (scored.loss_n * scored.weights_n).sum() / mean_over_workers(scored.weights_n.sum())


def _log(
    curves: Any, metrics: Mapping[str, float], state: TrainState, config: TrainReporterConfig
) -> None:
    if curves is None:
        return
    for name, value in metrics.items():
        curves.add_scalar(name, value, state.step)
    curves.add_scalar("learning_rate", learning_rate(state.step - 1, config), state.step)
    curves.flush()
    shown = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
    log.info("step %d of %d: %s", state.step, config.steps, shown)
