"""`raypipe train`: the detector, a data set from annotations, a classifier of slices, reports.

In: arguments. Out: progress, a table. Does not know: how anything is trained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from raypipe.cli.options import Overrides, setting

if TYPE_CHECKING:
    from raypipe.settings import Settings

    S = TypeVar("S", bound=Settings)

app = typer.Typer(
    no_args_is_help=True,
    help="Train on Ray: several workers, restarts, checkpoints. The same command goes on from the "
    "last checkpoint in OUTPUT/NAME; another --output or name starts anew. (`prefix` trains in one "
    "process and starts anew each time; only its cases are kept.)",
)

Yaml = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML file; every key left out has its default."),
]
Output = Annotated[
    str | None,
    typer.Option("--output", "-o", help="Folder or s3:// prefix of checkpoints and weights."),
]
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print the resolved config and stop.")
]


@app.command()
def detector(
    config: Yaml = None,
    output: Output = None,
    overrides: Overrides = None,
    print_config: PrintConfig = False,
) -> None:
    """Train or fine-tune the detector.

    Training slices are made where `store` holds none: synthetic lesions in phantoms and, with
    data.backgrounds, in real CT. To fine-tune on lesions of your own, prepare a data set with
    `raypipe train annotations` first.

        raypipe train detector -c configs/train/detector_small.yaml -o out/train

        raypipe train detector -o out/mine --set init=default --set store=mine/train
        --set validation_store=mine/validation --set calibration.phantom_series=0
    """
    from raypipe.train.detector_config import TrainDetectorConfig

    told = _settings(TrainDetectorConfig, config, output, overrides)
    if print_config:
        _print(told)
        return
    from raypipe.train.detector_loop import train_detector

    with _training(told.output, told.name, told.steps):
        result = train_detector(told)
    _table(f"weights: {result.weights}", result.metrics)


@app.command()
def average(
    weights: Annotated[
        list[str], typer.Argument(help="Two or more: safetensors files, s3://, or 'default'.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of weights to write.")],
    series: Annotated[
        int, typer.Option(min=0, help="Phantoms to fit thresholds and probabilities on; 0: none.")
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of the first phantom.")] = 950_000,
) -> None:
    """Make one detector out of several: the mean of their weights, calibrated anew.

    It is often better than each where trainings went on from the same weights, and as fast as one.

        raypipe train average out/train/first/weights.safetensors
        out/train/second/weights.safetensors -o mean.safetensors
    """
    from rich.console import Console

    from raypipe.train.average import average as mean_of
    from raypipe.train.synthesis import SynthesisConfig

    with Console(stderr=True).status(f"fitting thresholds on {series} series"):
        metrics = mean_of(weights, output, SynthesisConfig(phantom_series=series, seed=seed))
    _table(f"weights: {output}", metrics)


@app.command()
def rescoring(
    weights: Annotated[str, typer.Argument(help="A safetensors file, s3://, or 'default'.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="File of weights to write.")],
    series: Annotated[int, typer.Option(min=1, help="Phantoms to fit the second stage on.")] = 1200,
    seed: Annotated[int, typer.Option(min=0, help="Of the first of them.")] = 810_000,
    calibration_series: Annotated[
        int, typer.Option(min=0, help="Phantoms to fit thresholds and probabilities on; 0: none.")
    ] = 60,
    calibration_seed: Annotated[int, typer.Option(min=0, help="Of the first of those.")] = 950_000,
    workers: Annotated[int, typer.Option(min=1, help="Processes, each with a core.")] = 2,
) -> None:
    """Fit the second stage of a detector anew: which of the lesions that it claims are there.

    The first stage looks at slices. The second goes by what their boxes form together: how long a
    thing is for its width, whether it goes on beyond, what lies about. Do this after the detector
    itself was trained; weights that training starts from hand their second stage on until then.

        raypipe train rescoring out/train/mine/weights.safetensors -o mine.safetensors
    """
    from rich.console import Console

    from raypipe.train.rescore import add_rescoring
    from raypipe.train.synthesis import SynthesisConfig

    with Console(stderr=True).status("making the first series") as status:

        def on_series(done: int) -> None:
            then = "; fitting, then thresholds" if done == series else ""
            status.update(f"candidates of {done} of {series} series{then}")

        metrics = add_rescoring(
            weights,
            output,
            SynthesisConfig(phantom_series=series, seed=seed, workers=workers),
            SynthesisConfig(phantom_series=calibration_series, seed=calibration_seed),
            on_series,
        )
    _table(f"weights: {output}", metrics)


@app.command()
def slices(
    data: Annotated[
        str | None, typer.Option("--data", help="FOLDER with FOLDER/CLASS/ of pictures or DICOM.")
    ] = None,
    config: Yaml = None,
    output: Output = None,
    overrides: Overrides = None,
    print_config: PrintConfig = False,
) -> None:
    """Train the network to tell the class of a slice from a folder of labelled slices.

    Every class is a folder. Pictures are numbered in their names, and neighbouring numbers are
    taken for neighbouring slices of one patient: parts are contiguous blocks with a gap between.

        raypipe train slices --data FOLDER -o out/slices --set steps=400
    """
    from raypipe.train.slices_config import TrainSlicesConfig

    given = [*(overrides or ()), *([setting("data", data)] if data is not None else [])]
    told = _settings(TrainSlicesConfig, config, output, given)
    if print_config:
        _print(told)
        return
    from raypipe.train.slices_train import train_slices

    with _training(told.output, told.name, told.steps):
        result = train_slices(told)
    counts = ", ".join(f"{count} of {name}" for name, count in result.counts.items())
    typer.echo(f"classes: {', '.join(result.classes)}; slices: {counts}")
    _table(f"weights: {result.weights}", result.metrics)


@app.command()
def prefix(
    config: Yaml = None,
    output: Output = None,
    overrides: Overrides = None,
    print_config: PrintConfig = False,
) -> None:
    """Train a visual prefix: a projector of what the detector sees, and an adapter beside it.

    It learns from generated CT cases, behind the detector that data.detector names.

        raypipe train prefix -o out/train --set name=seeing
        raypipe run -i ARCHIVE -o RESULTS --set report.adapter=out/train/seeing/adapter
        --set report.prefix=out/train/seeing/projector.safetensors
    """
    from raypipe.train.prefix_train import TrainPrefixConfig

    told = _settings(TrainPrefixConfig, config, output, overrides)
    if print_config:
        _print(told)
        return
    from raypipe.train.prefix_train import train_prefix_on_cases

    result = train_prefix_on_cases(told)
    _table(f"adapter: {result.adapter}, projector: {result.projector}", result.metrics)


@app.command()
def reporter(
    config: Yaml = None,
    output: Output = None,
    overrides: Overrides = None,
    print_config: PrintConfig = False,
) -> None:
    """Fine-tune the language model of the reports: a LoRA adapter in peft's format.

    It learns from reports on random findings, or from a table of prompts and texts of your own.

        raypipe train reporter -c configs/train/reporter_small.yaml -o out/train

        raypipe train reporter -o out/mine --set source.kind=pairs --set source.train=mine.parquet
        --set source.validation=held_out.parquet
    """
    from raypipe.train.reporter_config import TrainReporterConfig

    told = _settings(TrainReporterConfig, config, output, overrides)
    if print_config:
        _print(told)
        return
    from raypipe.train.reporter_loop import train_reporter

    with _training(told.output, told.name, told.steps):
        result = train_reporter(told)
    _table(f"adapter: {result.adapter} ({result.weights_hash})", result.metrics)
    typer.echo(
        f"--set '{setting('report.adapter', result.adapter_id)}' --set 'report.adapters="
        f"{json.dumps({result.adapter_id: result.adapter}, ensure_ascii=False)}'"
    )


@app.command("annotations")
def annotated(
    archive: Annotated[str, typer.Argument(help="Folder or s3:// prefix of the annotated CT.")],
    truth: Annotated[Path, typer.Argument(help="Lesions: .parquet, or COCO .json for pictures.")],
    store: Annotated[Path, typer.Argument(help="Folder for the training data set.")],
    validation: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of the studies kept for validation.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Which studies are kept aside.")] = 0,
    overrides: Overrides = None,
) -> None:
    """Make a training data set from an archive and boxes drawn in it.

    Parquet has one row a lesion: series_key (or file), label, box_lower_zyx and box_upper_zyx in
    voxels (or box_lower_lps_mm and box_upper_lps_mm), attributes; a row without a label says that
    a series is normal. Within an annotated series, what has no box counts as normal.

        raypipe train annotations /archive/ct lesions.parquet mine
    """
    from raypipe.config import load_config
    from raypipe.knowledge.graph import load_graph
    from raypipe.train.annotated_store import AnnotatedStoreConfig, annotated_store
    from raypipe.train.annotations import read_annotations

    found = read_annotations(truth, load_graph())
    made = AnnotatedStoreConfig(validation=validation, seed=seed)
    summary = annotated_store(archive, found, store, made, load_config(None, overrides or ()))
    _table(f"data set {store}", summary.model_dump())
    validated = summary.validation_store or summary.train_store
    typer.echo(
        "fine-tune on it: raypipe train detector -o OUTPUT --set init=default "
        f"--set store={summary.train_store} --set validation_store={validated} "
        "--set calibration.phantom_series=0"
    )


def _settings(
    kind: type[S], path: Path | None, output: str | None, overrides: Sequence[str] | None
) -> S:
    """The config of a run from a file, --output and --set.

    Raises:
        ConfigError: naming file, key and rule.
    """
    from raypipe.config import load_settings

    given = [*(overrides or ()), *([setting("output", output)] if output is not None else [])]
    return load_settings(kind, path, given)


def _print(told: Settings) -> None:
    import yaml

    typer.echo(yaml.safe_dump(told.model_dump(mode="json"), sort_keys=False), nl=False)


@contextmanager
def _training(output: str, name: str, steps: int) -> Iterator[None]:
    """Ray, and live progress where the curves lie on this machine's disk."""
    from raypipe.batch.cluster import start_ray
    from raypipe.config import RunConfig
    from raypipe.train.curves import following

    start_ray(RunConfig())
    if "://" in output:
        yield
        return
    with _progress(steps) as on_point, following(Path(output) / name / "curves", on_point):
        yield


@contextmanager
def _progress(steps: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """A bar over optimiser steps, and a line for every point of the curves."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("train", total=steps)

        def update(step: int, values: dict[str, float]) -> None:
            bar.update(task, completed=step)
            shown = "  ".join(f"{k} {v:.4g}" for k, v in values.items() if "/" not in k)
            bar.console.print(f"step {step}: {shown}", highlight=False)

        yield update


def _table(title: str, values: dict[str, object] | dict[str, float]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    Console().print(table)
