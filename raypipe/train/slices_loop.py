"""Train a classifier of slices: the loop of one worker, the same under Ray and in a plain process.

In: a config, a SliceFolder and its parts, a state to go on from. Out: calls of `report` with
metrics and a state to save. Does not know: Ray, storage, where slices come from.
"""

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.errors import ConfigError
from raypipe.knowledge.windows import NETWORK_WINDOWS
from raypipe.model.detector import window_channels
from raypipe.train.loop import Place, Report, one_ahead, open_curves
from raypipe.train.slices import Indices, SliceFolder, Split
from raypipe.train.slices_config import TrainSlicesConfig
from raypipe.train.slices_model import SliceClassifier, SlicePredictor, slice_info, start_classifier
from raypipe.train.slices_views import part_box, varied_views
from raypipe.train.step import (
    TrainState,
    averaged_weights,
    learning_rate,
    mean_over_workers,
    new_state,
    optimise,
    restore,
    state_to_save,
)

log = logging.getLogger(__name__)


def run(
    config: TrainSlicesConfig,
    folder: SliceFolder,
    parts: Split,
    place: Place,
    report: Report,
    saved: Mapping[str, Any] | None = None,
) -> TrainState:
    """Train to the last step.

    Args:
        config: the run.
        folder: the slices.
        parts: training learns, validation is measured at checkpoints; test is not looked at.
        place: this worker.
        report: called every checkpoint_every steps and after the last.
        saved: what report was given before, to go on from there.
    """
    torch.set_num_threads(config.threads)
    bare = start_classifier(config, len(folder.classes), folder.fingerprint).to(place.device)
    network = nn.parallel.DistributedDataParallel(bare) if place.world > 1 else bare
    state = new_state(network, config)
    if saved is not None:
        restore(state, saved)
    weight_k = _class_weights(config, folder.classes).to(place.device)
    context = bare.config.context_slices
    curves = open_curves(place)
    for hu_bzhw, target_bk in _batches(config, folder, parts.train, place, state.step):
        channels = window_channels(hu_bzhw.to(place.device), NETWORK_WINDOWS, context)
        loss = _step(state, channels, target_bk.to(place.device), weight_k, config)
        if state.step % config.log_every == 0:
            _log(curves, {"loss": float(mean_over_workers(loss))}, state.step, config)
        if state.step % config.checkpoint_every and state.step < config.steps:
            continue
        metrics = {"loss": float(mean_over_workers(loss))}
        metrics |= _validated(state, folder, parts, config, place)
        _log(curves, metrics, state.step, config)
        state.best = max(state.best, metrics.get("accuracy", -1.0))
        report({**metrics, "step": float(state.step)}, state_to_save(state))
    return state


def _step(
    state: TrainState,
    channels_bchw: Tensor,
    target_bk: Tensor,
    weight_k: Tensor,
    config: TrainSlicesConfig,
) -> Tensor:
    """One optimiser step on this worker's part of the batch; the loss, detached."""
    # dropout depends on seed and step alone, so that a run that was stopped goes on the same
    torch.manual_seed(hash((config.seed, state.step)) % 2**63)
    state.network.train()
    logits = state.network(channels_bchw.contiguous(memory_format=torch.channels_last))
    loss = F.cross_entropy(
        logits, target_bk, weight=weight_k, label_smoothing=config.label_smoothing
    )
    optimise(state, loss, config)
    return loss.detach()


def _batches(
    config: TrainSlicesConfig, folder: SliceFolder, own: Indices, place: Place, first_step: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """This worker's part of every global batch, made one step ahead in a thread."""
    weights = draw_weights(folder.label_s[own], config.balance)
    part = config.batch_slices // place.world
    mine = slice(place.rank * part, (place.rank + 1) * part)
    box_of = lru_cache(maxsize=None)(lambda i: part_box(folder.hu[i], config.view))

    def make(step: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([config.seed, step])
        indices = own[rng.choice(len(own), size=config.batch_slices, p=weights)]
        seeds = rng.integers(2**62, size=config.batch_slices)
        alpha = config.augment.mixup
        mix = float(rng.beta(alpha, alpha)) if alpha else 1.0
        chosen = indices[mine]
        # a slice that is its own neighbour is varied once and shown three times
        lone = bool((folder.below_above_s2[chosen] == chosen[:, None]).all())
        stacks = folder.hu[chosen][:, None] if lone else np.stack([folder.stack(i) for i in chosen])
        boxes = [box_of(int(i)) for i in chosen]
        hu = varied_views(stacks, boxes, config.view, config.augment, seeds[mine].tolist())
        hu = hu.expand(-1, 3, -1, -1)
        target = F.one_hot(torch.from_numpy(folder.label_s[chosen]), len(folder.classes)).float()
        if mix < 1.0:
            hu, target = (mix * x + (1.0 - mix) * x.flip(0) for x in (hu, target))
        return hu, target

    return one_ahead(make, first_step, config.steps)


def draw_weights(label_s: Indices, balance: float) -> NDArray[np.float64]:
    """How often each slice is drawn, from as it comes (0) to all classes alike (1)."""
    counts = np.bincount(label_s)
    weights = np.power(counts[label_s].astype(np.float64), -balance)
    return np.asarray(weights / weights.sum())


def _class_weights(config: TrainSlicesConfig, classes: tuple[str, ...]) -> Tensor:
    unknown = sorted(set(config.class_weights) - set(classes))
    if unknown:
        raise ConfigError(
            f"class_weights: {unknown[0]!r} is no class of the folder; classes are "
            f"{', '.join(classes)}"
        )
    return torch.tensor([config.class_weights.get(name, 1.0) for name in classes])


def averaged_predictor(
    state: TrainState, folder: SliceFolder, config: TrainSlicesConfig
) -> SlicePredictor:
    """A predictor on the CPU around the averaged weights of a run with one worker."""
    return _predictor(averaged_weights(state), folder, config, "cpu")


def _predictor(
    weights: Mapping[str, Tensor], folder: SliceFolder, config: TrainSlicesConfig, device: str
) -> SlicePredictor:
    info = slice_info(config, folder.classes, folder.fingerprint)
    classifier = SliceClassifier(info.network, len(folder.classes))
    classifier.load_state_dict(weights)
    classifier.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return SlicePredictor(classifier, info, device)


def _validated(
    state: TrainState,
    folder: SliceFolder,
    parts: Split,
    config: TrainSlicesConfig,
    place: Place,
) -> dict[str, float]:
    """Accuracy and macro recall of the averaged weights, measured by the first worker for all.

    Empty where nothing is kept for validation.
    """
    if not len(parts.validation):
        return {}
    weights = averaged_weights(state)  # asks every worker, answers the first
    metrics = {"accuracy": 0.0, "macro_recall": 0.0}
    if place.rank == 0:
        metrics = measure(
            _predictor(weights, folder, config, place.device), folder, parts.validation
        )
    return {
        key: float(mean_over_workers(torch.tensor(value, device=place.device))) * place.world
        for key, value in metrics.items()
    }


def measure(predictor: SlicePredictor, folder: SliceFolder, indices: Indices) -> dict[str, float]:
    """Accuracy, and recall averaged over the classes that are there."""
    truth, claimed = folder.label_s[indices], probabilities(predictor, folder, indices).argmax(1)
    recalls = [float((claimed[truth == k] == k).mean()) for k in np.unique(truth)]
    return {
        "accuracy": float((claimed == truth).mean()),
        "macro_recall": float(np.mean(recalls)),
    }


def probabilities(
    predictor: SlicePredictor, folder: SliceFolder, indices: Indices, shifts: int = 0
) -> NDArray[np.float32]:
    """(n, K) of slices of a folder."""
    parts = np.array_split(indices, max(1, len(indices) // 64))
    return np.concatenate(
        [
            predictor.predict(np.stack([folder.stack(int(i)) for i in part]), shifts=shifts)
            for part in parts
            if len(part)
        ]
    )


def _log(curves: Any, values: Mapping[str, float], step: int, config: TrainSlicesConfig) -> None:
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    log.info("step %d of %d: %s", step, config.steps, shown)
    if curves is None:
        return
    for name, value in values.items():
        curves.add_scalar(name, value, step)
    curves.add_scalar("learning_rate", learning_rate(step - 1, config), step)
    curves.flush()
