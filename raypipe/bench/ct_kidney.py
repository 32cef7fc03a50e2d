"""Normal, cyst, stone or tumour: the network fine-tuned on a folder of kidney CT pictures.

In: a folder Cyst/ Normal/ Stone/ Tumor/ of numbered slices. Out: accuracy, macro F1, macro AUC and
confusion over seeds, beside what the paper states. Does not know: terminals.

The folder names no patients, and neighbouring numbers are neighbouring slices of one patient. Two
ways to part it, both by contiguous blocks with a gap, never slice by slice:
    blocks  every class is cut into 20 blocks of equal numbers of slices; a long series of one
            patient may stand on both sides, at other levels of the body
    runs    cut only where the numbering breaks, so that hardly any patient stands on both sides
Each seed draws other blocks, trains anew on the training part, and is measured once on its test
part. Nothing is chosen on a test part. The weights are for measuring; none are shipped.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from raypipe.bench.machine import machine
from raypipe.errors import ConfigError
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import DetectionEvaluation, evaluate_detection
from raypipe.evaluate.measures import MACRO, MICRO, Confusion
from raypipe.evaluate.plot_curves import draw_confusion
from raypipe.evaluate.plot_style import new_figure, save_figure
from raypipe.evaluate.records import ClaimSeries, TruthSeries
from raypipe.settings import Settings
from raypipe.train.loop import Place
from raypipe.train.slices import RUN_BREAK, Indices, SliceFolder, split
from raypipe.train.slices_config import (
    SliceAugmentConfig,
    SplitConfig,
    TrainSlicesConfig,
    ViewConfig,
)
from raypipe.train.slices_loop import averaged_predictor, probabilities, run
from raypipe.train.slices_train import open_slices

log = logging.getLogger(__name__)

CLASSES = ("Cyst", "Normal", "Stone", "Tumor")
PAPER_ACCURACY = 0.946
"""What the paper states; it does not say that its parts share no patient."""
SHIFTS = 4
"""Pixels of the four shifted views that a prediction averages beside the plain one."""
BOOTSTRAP = 1000
"""Resamples for the interval of one seed's accuracy."""

Parting = Literal["blocks", "runs"]
MEASURES = ("accuracy", "macro_f1", "macro_auc")


class KidneyRun(Settings):
    """One seed of one way of parting."""

    parting: Parting
    seed: int
    config: TrainSlicesConfig
    slices: dict[str, int] = Field(description="of training, validation and test")
    accuracy: float
    macro_f1: float
    macro_auc: float
    accuracy_interval: tuple[float, float] = Field(
        description="95 %, by drawing unbroken runs of slices again, not single slices"
    )
    validation_accuracy: float
    confusion: Confusion
    train_seconds: float


class KidneyResult(Settings):
    """All seeds of one way of parting."""

    parting: Parting
    runs: tuple[KidneyRun, ...]
    mean: dict[str, float] = Field(description="over seeds")
    spread: dict[str, float] = Field(description="standard deviation over seeds; 0 for one")
    paper_accuracy: float = PAPER_ACCURACY
    gap_to_paper: float = Field(description="mean accuracy minus the paper's")
    confusion: Confusion = Field(description="summed over seeds")
    machine: dict[str, str | int]


def kidney_config(data: str, folder: Path, parting: Parting, seed: int) -> TrainSlicesConfig:
    """The recipe; all of it but the seed is the same for every run."""
    return TrainSlicesConfig(
        name="ct_kidney",
        output=str(folder),
        data=data,
        store=str(folder / "data"),
        split=SplitConfig(whole_runs=parting == "runs", seed=seed),
        view=ViewConfig(size_yx=(256, 256), part_yx=(0.08, 1.0, 0.03, 0.97)),
        # few steps: what varies less is learned sooner; the side of the body says nothing here
        augment=SliceAugmentConfig(
            flip=True,
            shift=0.05,
            zoom=0.1,
            stretch=0.05,
            rotation_deg=6.0,
            gamma=0.25,
            gain=0.1,
            offset=0.05,
            noise=0.03,
        ),
        steps=400,
        batch_slices=24,
        learning_rate=1.5e-3,
        dropout=0.1,
        checkpoint_every=100,
        seed=seed,
    )


def bench_ct_kidney(
    data: str,
    folder: Path,
    *,
    parting: Parting = "blocks",
    seeds: int = 3,
    changes: dict[str, Any] | None = None,
    on_run: Callable[[KidneyRun], None] = lambda done: None,
) -> KidneyResult:
    """Train and measure every seed; what `folder` holds from before is not done again.

    Args:
        data: folder with the four classes.
        folder: for decoded slices, states, results and the figure.
        parting: how the folder is parted.
        seeds: runs.
        changes: settings of the recipe that differ, by name.
        on_run: called after every seed.

    Raises:
        ConfigError: the folder holds other classes.
    """
    done = []
    for seed in range(seeds):
        config = kidney_config(data, folder, parting, seed).model_copy(update=changes or {})
        done.append(_run(folder, parting, config))
        on_run(done[-1])
    values = {name: np.array([getattr(r, name) for r in done]) for name in MEASURES}
    counts = np.sum([r.confusion.counts for r in done], axis=0)
    confusion = Confusion(
        labels=done[0].confusion.labels, counts=tuple(tuple(int(n) for n in row) for row in counts)
    )
    mean = {name: float(v.mean()) for name, v in values.items()}
    result = KidneyResult(
        parting=parting,
        runs=tuple(done),
        mean=mean,
        spread={name: float(v.std(ddof=1)) if seeds > 1 else 0.0 for name, v in values.items()},
        gap_to_paper=mean["accuracy"] - PAPER_ACCURACY,
        confusion=confusion,
        machine=machine(),
    )
    figure = new_figure(height_mm=104.0, width_mm=110.0)
    draw_confusion(figure.subplots(), confusion)
    save_figure(figure, folder / f"confusion_{parting}.png")
    return result


def _run(folder: Path, parting: Parting, config: TrainSlicesConfig) -> KidneyRun:
    """One seed: read where it is there, else trained, from its last state, and measured."""
    stem = f"{parting}-{config.split.seed}"
    file, state_file = folder / f"{stem}.json", folder / f"{stem}.pt"
    if file.is_file():
        known = KidneyRun.model_validate_json(file.read_text())
        if known.config != config:
            raise ConfigError(f"ct-kidney: {file} was trained otherwise; name an empty folder")
        return known
    slices = open_slices(config)
    if slices.classes != CLASSES:
        raise ConfigError(
            f"ct-kidney: the folder holds {', '.join(slices.classes)}, not {', '.join(CLASSES)}; "
            "`raypipe train slices` takes any classes"
        )
    parts = split(slices, config.split)
    saved = torch.load(state_file, weights_only=True) if state_file.is_file() else None
    if saved is not None and saved.get("config") != config.model_dump_json():
        raise ConfigError(
            f"ct-kidney: {state_file} was begun otherwise; name an empty folder or remove it"
        )
    last: dict[str, float] = dict(saved["metrics"]) if saved else {}
    before = float(last.get("seconds", 0.0))
    started = time.perf_counter()

    def keep(metrics: dict[str, float], state: dict[str, Any]) -> None:
        last.update(metrics, seconds=before + time.perf_counter() - started)
        log.info("%s: %s", stem, ", ".join(f"{k} {v:.3f}" for k, v in metrics.items()))
        partial = state_file.with_suffix(".partial")
        torch.save({**state, "metrics": dict(last), "config": config.model_dump_json()}, partial)
        partial.replace(state_file)  # a run that was cut off leaves no half file

    place = Place(curves=folder / "curves" / stem)
    state = run(config, slices, parts, place, keep, saved)
    predictor = averaged_predictor(state, slices, config)
    found = probabilities(predictor, slices, parts.test, shifts=SHIFTS)
    evaluation = evaluate(slices, parts.test, found)
    accuracy = evaluation.measure("image", "exact_match", MICRO)
    assert evaluation.confusion is not None, "image_mode is single"
    done = KidneyRun(
        parting=parting,
        seed=config.split.seed,
        config=config,
        slices={name: len(getattr(parts, name)) for name in ("train", "validation", "test")},
        accuracy=accuracy.value or 0.0,
        accuracy_interval=(accuracy.low or 0.0, accuracy.high or 0.0),
        macro_f1=evaluation.measure("image", "f1", MACRO).value or 0.0,
        macro_auc=evaluation.measure("image", "auc_roc", MACRO).value or 0.0,
        validation_accuracy=last["accuracy"],
        confusion=evaluation.confusion,
        train_seconds=last["seconds"],
    )
    file.write_text(done.model_dump_json(indent=2) + "\n")
    state_file.unlink()
    return done


def evaluate(
    slices: SliceFolder, indices: Indices, probability: NDArray[np.float32]
) -> DetectionEvaluation:
    """Measures of pictures; those of an unbroken run belong together when they are drawn again."""
    truths, claims = [], []
    run_of = np.cumsum(np.abs(np.diff(slices.number_s, prepend=-10)) > RUN_BREAK)
    for i, scores in zip(indices, probability, strict=True):
        own = slices.classes[slices.label_s[i]]
        truths.append(
            TruthSeries(
                series_key=str(i),
                image_labels={name: name == own for name in slices.classes},
                cluster_key=f"{own} {run_of[i]}",
            )
        )
        of_class = {n: min(float(s), 1.0) for n, s in zip(slices.classes, scores, strict=True)}
        claims.append(ClaimSeries(series_key=str(i), image_scores=of_class))
    config = DetectionEvaluationConfig(
        labels=slices.classes, image_mode="single", bootstrap=BOOTSTRAP
    )
    return evaluate_detection(truths, claims, config)
