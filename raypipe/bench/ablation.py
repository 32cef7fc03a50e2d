"""What knowledge and fine-grained supervision add to the detector: four arms, equal budgets.

In: a budget. Out: measures of every arm on held-out lesions, differences to the base with paired
intervals, as JSON, Markdown and a figure. Does not know: how a step is made, how boxes are scored.

A run (arm and seed) whose file lies in the folder is not trained again.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from raypipe.bench.ablation_arms import (
    ARMS,
    AblationConfig,
    AblationResult,
    Arm,
    ArmRun,
    StoredClaim,
)
from raypipe.bench.ablation_results import ablation_markdown, figure_arms, measure
from raypipe.errors import ConfigError
from raypipe.evaluate.plot_ablation import ablation_figure
from raypipe.evaluate.plot_style import save_figure
from raypipe.findings.decode import FindingsConfig, decode
from raypipe.model.checkpoint import (
    check_fingerprint,
    check_state,
    load_checkpoint,
    save_checkpoint,
)
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector, build_network
from raypipe.train.batches import AugmentConfig
from raypipe.train.dataset import SampleStore
from raypipe.train.detector_config import TrainDetectorConfig
from raypipe.train.loop import Place, checkpoint_info, network_config, run
from raypipe.train.synthesis import SynthesisConfig, make_store

ENCODER = "encoder."
"""How the names of the encoder's tensors begin."""
Done = Callable[[ArmRun], None]


def bench_ablation(folder: Path, config: AblationConfig, on_run: Done) -> AblationResult:
    """Train every arm with every seed, measure, and write JSON, Markdown and a figure.

    Args:
        folder: for data, runs and results; a second call goes on where the first one stopped.
        config: the budget.
        on_run: called after each run, also one that was already there.

    Raises:
        ConfigError: the folder holds runs of another budget.
    """
    train = _store(folder / "data", config.data)
    held_out = _store(folder / "held_out", config.held_out)
    runs: dict[str, list[ArmRun]] = {arm.slug: [] for arm in ARMS}
    for seed in config.seeds:  # seed by seed, so that what is there can be compared at any time
        for arm in ARMS:
            done = _run(folder, config, arm, seed, (train, held_out))
            runs[arm.slug].append(done)
            on_run(done)
    result = measure(held_out, runs, config)
    (folder / "ablation.json").write_text(result.model_dump_json(indent=1) + "\n")
    (folder / "ablation.md").write_text(ablation_markdown(result))
    save_figure(ablation_figure(figure_arms(result)), folder / "ablation.png")
    return result


def _store(folder: Path, data: SynthesisConfig) -> SampleStore:
    """The data set in a folder, made now where there is none."""
    told = folder / "synthesis.json"
    if not told.is_file():
        make_store(folder, data)
        told.write_text(data.model_dump_json())
    if told.read_text() != data.model_dump_json():
        raise ConfigError(f"ablation: {folder} holds other data than asked for; empty it")
    return SampleStore(folder)


def train_config(arm: Arm, seed: int, config: AblationConfig) -> TrainDetectorConfig:
    """The training run of an arm."""
    return TrainDetectorConfig(
        output="",  # nothing is written by the loop
        strategy=arm.strategy,
        loss=config.loss.model_copy(update=dict.fromkeys(arm.without, 0.0)),
        augment=AugmentConfig(patch_pixels=128),
        steps=config.steps,
        batch_slices=config.batch_slices,
        learning_rate=config.learning_rate,
        ema=config.ema,
        threads=config.threads,
        checkpoint_every=config.steps,  # the last step's weights count; none are chosen
        validation_slices=1,
        seed=seed,
    )


def start_weights(told: TrainDetectorConfig, start: str, fingerprint: str, file: Path) -> None:
    """Write what a run begins with: a fresh network of its seed around the encoder of `start`.

    Raises:
        CheckpointError: the encoder of `start` does not fit the arm's network.
    """
    info = checkpoint_info(told, network_config(told), fingerprint, {})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(told.seed)
        fresh = build_network(info).state_dict()
    tensors, known, _ = load_checkpoint(start)
    check_fingerprint(known, fingerprint)
    trained = {key: value for key, value in tensors.items() if key.startswith(ENCODER)}
    check_state(trained, {key: value for key, value in fresh.items() if key.startswith(ENCODER)})
    save_checkpoint(file, {**fresh, **trained}, info)


def _run(
    folder: Path,
    config: AblationConfig,
    arm: Arm,
    seed: int,
    stores: tuple[SampleStore, SampleStore],
) -> ArmRun:
    """The run of an arm and a seed: read where it is there, else trained and written."""
    file = folder / "runs" / f"{arm.slug}-{seed}.json"
    if file.is_file():
        known = ArmRun.model_validate_json(file.read_text())
        if known.arm != arm or known.budget.training() != config.training():
            raise ConfigError(f"ablation: {file} was trained with another budget; empty {folder}")
        return known
    told = train_config(arm, seed, config)
    if config.start:
        begin = folder / "start" / f"{file.stem}.safetensors"
        start_weights(told, config.start, stores[0].fingerprint, begin)
        told = told.model_copy(update={"init": str(begin)})
    saved: list[tuple[dict[str, float], dict[str, Any]]] = []
    started = time.perf_counter()
    place = Place(curves=folder / "curves" / file.stem)
    run(told, stores, place, lambda metrics, state: saved.append((metrics, state)))
    seconds = time.perf_counter() - started
    metrics, state = saved[-1]
    info = checkpoint_info(told, network_config(told), stores[0].fingerprint, {})
    network = build_network(info, state["average"])
    done = ArmRun(
        arm=arm,
        seed=seed,
        budget=config,
        parameters=sum(p.numel() for p in network.parameters()),
        loss=metrics["loss"],
        seconds=seconds,
        claims=claims_of(Detector.of(network, info, DetectorConfig()), stores[1]),
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(done.model_dump_json())
    partial.replace(file)  # a run that was cut off leaves no half file
    return done


def claims_of(detector: Detector, store: SampleStore) -> tuple[StoredClaim, ...]:
    """Boxes on every slice of a store, after suppression."""
    prediction = detector.predict_stacks(store.hu)
    kept = decode(prediction.detections, FindingsConfig(slice_floor=detector.config.score_floor))
    return tuple(
        StoredClaim(
            slice=z,
            label=d.label,
            score=d.score,
            lower_yx=d.box_zyx.lower_zyx[1:],
            upper_yx=d.box_zyx.upper_zyx[1:],
        )
        for z, detections in kept.items()
        for d in detections
    )
