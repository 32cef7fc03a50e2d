"""The training loop of one worker, the same under Ray and in a plain process.

In: a config, the worker's place among the others, a state to go on from. Out: calls of `report`
with metrics and a state to save. Does not know: Ray, storage.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.windows import NETWORK_WINDOWS
from raypipe.model.checkpoint import CheckpointInfo, check_state, load_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector, build_network, window_channels
from raypipe.model.network import Network, NetworkConfig, config_for
from raypipe.train.batches import make_batch, make_vocabulary, sample_weights
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.grow import grown
from raypipe.train.knowledge_loss import make_rules
from raypipe.train.losses import Truth
from raypipe.train.step import (
    TrainState,
    averaged_weights,
    learning_rate,
    loss_dtype,
    mean_over_workers,
    new_state,
    restore,
    state_to_save,
    train_step,
)
from raypipe.train.targets import Grid, make_grid
from raypipe.train.tissues import TISSUES
from raypipe.train.validate import validate

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")

Report = Callable[[dict[str, float], dict[str, Any]], None]
"""Takes metrics and a state to save; every worker calls it at the same steps."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a worker stands.

    Args:
        rank: from 0.
        world: how many workers there are.
        device: of this worker.
        curves: folder for TensorBoard curves; None writes none.
    """

    rank: int = 0
    world: int = 1
    device: str = "cpu"
    curves: Path | None = None


def network_config(config: TrainDetectorConfig) -> NetworkConfig:
    """The network that a run trains."""
    sizes = config_for(load_graph(), size=config.size)
    told: dict[str, Any] = {"strategy": config.strategy}
    if config.loss.tissue > 0:
        told["tissues"] = TISSUES
    if config.checkpoint_activations:
        saving = {"checkpoint_activations": True}
        told["encoder"] = sizes.encoder.model_copy(update=saving)
    return sizes.model_copy(update=told)


def run(
    config: TrainDetectorConfig,
    stores: tuple[SampleStore, SampleStore],
    place: Place,
    report: Report,
    saved: Mapping[str, Any] | None = None,
) -> TrainState:
    """Train until the last step or until validation stops getting better.

    Args:
        config: the run.
        stores: training and validation slices, behind one preprocessing.
        place: this worker.
        report: called every checkpoint_every steps and after the last.
        saved: what report was given before, to go on from there.
    """
    store, validation = stores
    if store.fingerprint != validation.fingerprint:
        raise ConfigError("train: both data sets must come from one preprocessing config")
    torch.set_num_threads(config.threads)
    network = _start_network(config)
    sizes, strides = network.config, network.strides
    scalars = frozenset(name for name, p in network.named_parameters() if p.ndim == 0)
    dtype = loss_dtype(config)
    state = new_state(_wrapped(network.to(place.device, dtype), config, place), config)
    state.scalars = scalars
    if saved is not None:
        restore(state, saved)
    rules = _to(make_rules(load_graph(), sizes), place.device, dtype)
    grid = make_grid(strides, config.augment.patch_pixels)
    curves = open_curves(place)
    for hu_bzhw, truth in _batches(config, store, sizes, grid, place, state.step):
        hu_bzhw, truth = hu_bzhw.to(place.device), _to(truth, place.device, dtype)
        channels_bchw = window_channels(hu_bzhw, NETWORK_WINDOWS, sizes.context_slices).to(dtype)
        terms = train_step(state, channels_bchw, truth, rules, config)
        if state.step % config.log_every == 0:
            _log(curves, terms, state.step, config)
        if state.step % config.checkpoint_every and state.step < config.steps:
            continue
        metrics = _validated(state, validation, sizes, config, place)
        metrics["loss"] = float(mean_over_workers(terms["total"]))
        _log(curves, {k: torch.tensor(v) for k, v in metrics.items()}, state.step, config)
        improved = metrics["map50"] > state.best
        state.best = max(state.best, metrics["map50"])
        state.stale = 0 if improved else state.stale + 1
        report(
            {**metrics, "step": float(state.step), "improved": float(improved)},
            state_to_save(state),
        )
        if state.stale >= config.patience:
            log.info("stopped early at step %d", state.step)
            break
    return state


def _start_network(config: TrainDetectorConfig) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = Network(network_config(config), load_graph())
    if config.init:
        tensors, _, _ = load_checkpoint(config.init)
        own = network.state_dict()
        tensors = grown(tensors, own)
        check_state(tensors, own)
        network.load_state_dict(tensors)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def _wrapped(network: Network, config: TrainDetectorConfig, place: Place) -> nn.Module:
    if place.world == 1:
        return network
    if config.parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        # what is sharded is contiguous and has an axis; maps stay channels-last all the same
        network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
        for module in network.modules():
            for name, value in list(module.named_parameters(recurse=False)):
                if value.ndim == 0:
                    setattr(module, name, nn.Parameter(value.detach().reshape(1)))
        mesh = init_device_mesh(torch.device(place.device).type, (place.world,))
        for stage in network.encoder.stages:
            fully_shard(stage, mesh=mesh)
        fully_shard(network, mesh=mesh)
        return network
    unused = any(weight == 0 for weight in config.loss.weights.values())
    return nn.parallel.DistributedDataParallel(network, find_unused_parameters=unused)


def _batches(
    config: TrainDetectorConfig,
    store: SampleStore,
    sizes: NetworkConfig,
    grid: Grid,
    place: Place,
    first_step: int,
) -> Iterator[tuple[Tensor, Truth]]:
    """This worker's part of every global batch, made one step ahead in a thread."""
    vocabulary = make_vocabulary(load_graph(), sizes)
    weights = sample_weights(store, vocabulary, config.empty_share, config.label_weights)
    part = config.batch_slices // place.world

    def make(step: int) -> tuple[Tensor, Truth]:
        indices, seeds = draw(config, weights, step)
        mine = slice(place.rank * part, (place.rank + 1) * part)
        return make_batch(
            store, indices[mine].tolist(), seeds[mine].tolist(), vocabulary, grid, config.augment
        )

    return one_ahead(make, first_step, config.steps)


def one_ahead(make: Callable[[int], Batch], first_step: int, steps: int) -> Iterator[Batch]:
    """make(step) of every step left, each made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, first_step)
        for step in range(first_step, steps):
            ready = coming.result()
            if step + 1 < steps:
                coming = pool.submit(make, step + 1)
            yield ready


def draw(
    config: TrainDetectorConfig, weights: NDArray[np.float64], step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices and seeds of one global batch; they depend on the seed and the step alone."""
    rng = np.random.default_rng([config.seed, step])
    indices = rng.choice(len(weights), size=config.batch_slices, p=weights)
    return indices, rng.integers(2**62, size=config.batch_slices)


def checkpoint_info(
    config: TrainDetectorConfig, sizes: NetworkConfig, fingerprint: str, metrics: dict[str, float]
) -> CheckpointInfo:
    """What the weights of a run say of themselves: no path, since paths may name people."""
    told = config.model_dump(mode="json", exclude={"output", "store", "validation_store"})
    told["init"] = PurePath(told["init"]).name
    for part in ("data", "validation", "calibration"):
        told[part]["backgrounds"] = [PurePath(path).name for path in told[part]["backgrounds"]]
    training = {
        "config": told,
        "metrics": {key: round(value, 4) for key, value in metrics.items()},
    }
    return CheckpointInfo(
        network=sizes, fingerprint=fingerprint, windows=NETWORK_WINDOWS, training=training
    )


def _validated(
    state: TrainState,
    store: SampleStore,
    sizes: NetworkConfig,
    config: TrainDetectorConfig,
    place: Place,
) -> dict[str, float]:
    """Metrics of the averaged weights; measured by the first worker, the same on all."""
    weights = averaged_weights(state)
    metrics = {"map50": 0.0}
    if place.rank == 0:
        info = checkpoint_info(config, sizes, store.fingerprint, {})
        settings = DetectorConfig(device=place.device)
        detector = Detector.of(build_network(info, weights), info, settings)
        count = min(config.validation_slices, len(store))
        indices = np.linspace(0, len(store) - 1, count).astype(int).tolist()
        metrics = validate(detector, store, sorted(set(indices)))
    # the first worker's number reaches all, so that all stop at the same step
    map50 = torch.tensor(metrics["map50"], device=place.device)
    metrics["map50"] = float(mean_over_workers(map50)) * place.world
    return metrics


def _to(batch: Any, device: str, dtype: torch.dtype) -> Any:
    """A dataclass of tensors on a device; those of float32 as dtype."""

    def put(value: Tensor) -> Tensor:
        return value.to(device, dtype if value.dtype == torch.float32 else value.dtype)

    moved = {}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            value = put(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], Tensor):
            value = tuple(put(v) for v in value)
        moved[field.name] = value
    return type(batch)(**moved)


def open_curves(place: Place) -> Any:
    """The first worker's TensorBoard writer; None for the others or without a folder."""
    if place.curves is None or place.rank != 0:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(place.curves))


def _log(curves: Any, terms: Mapping[str, Tensor], step: int, config: TrainDetectorConfig) -> None:
    if curves is None:
        return
    for name, value in terms.items():
        curves.add_scalar(name, float(value), step)
    curves.add_scalar("learning_rate", learning_rate(step - 1, config), step)
    curves.flush()
    shown = ", ".join(f"{k} {float(v):.3f}" for k, v in terms.items() if "/" not in k)
    log.info("step %d of %d: %s", step, config.steps, shown)
