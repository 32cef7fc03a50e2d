"""`raypipe bench ct-kidney`: fine-tuning on a folder of labelled slices.

In: a folder. Out: tables, JSON, a figure. Does not know: how anything is trained or measured.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import JsonFile, save_json

if TYPE_CHECKING:
    from raypipe.bench.ct_kidney import KidneyResult, KidneyRun


def ct_kidney(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with Cyst/, Normal/, Stone/ and Tumor/.")
    ],
    folder: Annotated[
        Path,
        typer.Option("--folder", help="For states, results, figures; goes on where it stopped."),
    ],
    seeds: Annotated[int, typer.Option(min=1, help="Runs, each with other parts.")] = 3,
    whole_runs: Annotated[
        bool,
        typer.Option("--whole-runs", help="Cut only where numbers break: nearly new patients."),
    ] = False,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of a run.")] = None,
    init: Annotated[
        str | None, typer.Option(help="Detector weights to start from; '' for none.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Accuracy, F1 and AUC on kidney CT pictures, parted by contiguous blocks of their numbers.

    The folder's pictures name no patients; neighbouring numbers are neighbouring slices, so blocks
    of numbers are kept apart, with a gap between them. --whole-runs is the harder way.
    """
    from rich.console import Console
    from rich.logging import RichHandler

    from raypipe.bench.ct_kidney import bench_ct_kidney

    handler = RichHandler(console=Console(stderr=True), show_path=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    changes = {k: v for k, v in (("steps", steps), ("init", init)) if v is not None}
    result = bench_ct_kidney(
        str(data),
        folder,
        parting="runs" if whole_runs else "blocks",
        seeds=seeds,
        changes=changes,
        on_run=_show_run,
    )
    _show(result, folder)
    save_json(result, json)


def _show_run(done: KidneyRun) -> None:
    typer.echo(
        f"seed {done.seed}: accuracy {done.accuracy:.3f}, macro F1 {done.macro_f1:.3f}, "
        f"macro AUC {done.macro_auc:.3f} on {done.slices['test']} slices; "
        f"{done.train_seconds:.0f} s of training"
    )


def _show(result: KidneyResult, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"ct-kidney, parted by {result.parting}", title_justify="left")
    for name in ("seed", "test slices", "accuracy", "95 % interval", "macro F1", "macro AUC"):
        table.add_column(name, justify="right")
    for run in result.runs:
        low, high = run.accuracy_interval
        values = (run.accuracy, run.macro_f1, run.macro_auc)
        accuracy, f1, auc = (f"{value:.3f}" for value in values)
        test = str(run.slices["test"])
        table.add_row(str(run.seed), test, accuracy, f"{low:.3f} to {high:.3f}", f1, auc)
    names = ("accuracy", "macro_f1", "macro_auc")
    accuracy, f1, auc = (f"{result.mean[n]:.3f} ± {result.spread[n]:.3f}" for n in names)
    table.add_row("mean ± sd", "", accuracy, "", f1, auc)
    console.print(table)
    counts = Table(title="Truth (rows) and claims, all seeds", title_justify="left")
    for name in ("", *result.confusion.labels):
        counts.add_column(name, justify="right")
    for label, row in zip(result.confusion.labels, result.confusion.counts, strict=True):
        counts.add_row(label, *(str(n) for n in row))
    console.print(counts)
    console.print(
        f"the paper states {result.paper_accuracy:.1%}; "
        f"this is {100 * result.gap_to_paper:+.1f} points from it"
    )
    console.print(f"figure: {folder / f'confusion_{result.parting}.png'}")
