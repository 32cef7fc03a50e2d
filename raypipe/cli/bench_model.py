"""`raypipe bench encoder` and `raypipe bench ablation`: the network by itself.

In: sizes. Out: a table, and files where asked for. Does not know: how anything is measured.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raypipe.cli.options import JsonFile, save_json

if TYPE_CHECKING:
    from raypipe.bench.ablation_arms import AblationResult, ArmRun
    from raypipe.bench.encoder import EncoderResult

Size = Literal["small", "paper"]


def encoder(
    size: Annotated[Size, typer.Option(help="Preset of the encoder.")] = "paper",
    threads: Annotated[list[int] | None, typer.Option(min=1, help="CPU threads.")] = None,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Slices at once.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of each.")] = 7,
    compiled: Annotated[bool, typer.Option("--compile", help="Through torch.compile.")] = False,
    json: JsonFile = None,
) -> None:
    """The encoder's throughput as a share of the machine's own matrix-product peak."""
    from raypipe.bench.encoder import bench_encoder
    from raypipe.cores import usable_cores

    result = bench_encoder(
        size,
        threads=threads or sorted({1, usable_cores()}),
        batches=batch or (1, 4),
        repeats=repeats,
        compiled=compiled,
    )
    _show_encoder(result)
    save_json(result, json)


def _show_encoder(result: EncoderResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from raypipe.bench.encoder import TARGET_SHARE

    console = Console()
    paper = f"; the paper states {result.paper_gflop:g}" if result.paper_gflop else ""
    console.print(
        f"encoder {result.size!r}: {result.parameters:,} parameters, "
        f"{result.gflop_per_slice:.1f} GFLOP a slice{paper}"
    )
    table = Table("threads", "slices", "s", "slices/s", "GFLOP/s", "peak GFLOP/s", "share of peak")
    for run in result.runs:
        table.add_row(
            *(str(run.threads), str(run.batch), f"{run.seconds:.3f}"),
            *(f"{run.slices_per_second:.2f}", f"{run.gflops:.1f}", f"{run.peak_gflops:.1f}"),
            f"{run.peak_share:.1%}",
        )
    console.print(table)
    console.print(f"target: {TARGET_SHARE:.0%} of the peak")
    best = max(result.runs, key=lambda run: run.peak_share)
    parts = Table(
        *("part", "GFLOP", "share of FLOPs", "share of time", "share of peak"),
        title=f"by part: threads {best.threads}, slices {best.batch}",
    )
    for part in best.parts:
        shares = (part.flop_share, part.time_share, part.peak_share)
        parts.add_row(part.name, f"{part.gflop:.2f}", *(f"{share:.1%}" for share in shares))
    console.print(parts)


def ablation(
    folder: Annotated[
        Path, typer.Option("--folder", help="For data, runs and results; goes on where it stopped.")
    ],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of a run.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm.")] = 3,
    series: Annotated[int | None, typer.Option(min=1, help="Training series.")] = None,
    start: Annotated[
        str, typer.Option(help="Weights whose encoder all arms start from; '' for none.")
    ] = "default",
    held_out: Annotated[int | None, typer.Option(min=2, help="Series to measure on.")] = None,
) -> None:
    """What knowledge and fine-grained supervision add: four arms, equal budgets."""
    from rich.logging import RichHandler

    from raypipe.bench.ablation import bench_ablation
    from raypipe.bench.ablation_arms import AblationConfig

    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[RichHandler()])
    told = AblationConfig()
    if series is not None:
        told = told.model_copy(
            update={"data": told.data.model_copy(update={"phantom_series": series})}
        )
    if held_out is not None:
        told = told.model_copy(
            update={"held_out": told.held_out.model_copy(update={"phantom_series": held_out})}
        )
    budget = {"seeds": tuple(range(seeds)), "steps": steps or told.steps, "start": start}
    told = told.model_copy(update=budget)
    _show_ablation(bench_ablation(folder, told, _show_run))


def _show_run(done: ArmRun) -> None:
    typer.echo(f"{done.arm.name}, seed {done.seed}: {done.seconds:.0f} s, loss {done.loss:.3f}")


def _show_ablation(result: AblationResult) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    from raypipe.bench.ablation_results import ablation_markdown

    Console().print(Markdown(ablation_markdown(result)))
