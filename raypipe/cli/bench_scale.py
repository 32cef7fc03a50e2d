"""`raypipe bench scale` and `raypipe bench start`: more nodes, and the wait for the first result.

In: sizes. Out: tables, and JSON and a figure where asked for.
Does not know: how anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import (
    ConfigFile,
    FigureFile,
    Folder,
    JsonFile,
    Overrides,
    Pixels,
    Slices,
    draw,
    save_json,
    working_folder,
)

if TYPE_CHECKING:
    from raypipe.bench.scale import ScaleModel, ScaleResult


def scale(
    nodes: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of nodes; may be repeated. 1, 2 and 4 if none."),
    ] = None,
    series: Annotated[int, typer.Option(min=8, help="Phantom series of a job.")] = 64,
    slices: Slices = 16,
    pixels: Pixels = 256,
    runs: Annotated[int, typer.Option(min=1, help="Jobs on each number of nodes.")] = 5,
    archive_series: Annotated[
        int, typer.Option(min=1, help="Series of the archive of the model.")
    ] = 1_000_000,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of the cluster of the model.")] = 64,
    gpu_speedup: Annotated[
        float, typer.Option(min=0.1, help="Assumed: a GPU over a core of this machine.")
    ] = 30.0,
    cores_per_gpu: Annotated[
        float, typer.Option(min=0.1, help="Cores beside each GPU, for loading and preparing.")
    ] = 8.0,
    folder: Folder = None,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """The same job on 1, 2 and 4 nodes, and a model of a large archive on many GPUs.

    Nodes are Ray nodes on this machine, each with an equal share of its CPU by control groups,
    which needs root. Without the language model (four of them need 8 GiB):

        raypipe bench scale --set report.engine=template
    """
    from rich.console import Console

    from raypipe.bench.figures import scale_figure
    from raypipe.bench.scale import Imagined, bench_scale
    from raypipe.config import load_config

    with working_folder(folder) as work, Console(stderr=True).status("writing") as status:
        result = bench_scale(
            work,
            load_config(config, overrides or ()),
            nodes=sorted(set(nodes or (1, 2, 4))),
            series=series,
            shape_zyx=(slices, pixels, pixels),
            runs=runs,
            imagined=Imagined(
                series=archive_series,
                gpus=gpus,
                gpu_speedup=gpu_speedup,
                cores_per_gpu=cores_per_gpu,
            ),
            on_step=status.update,
        )
    _show_scale(result)
    save_json(result, json)
    draw(lambda: scale_figure(result), figure)


def _show_scale(result: ScaleResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(
        *("nodes", "s", "repetitions", "speedup", "efficiency", "driver, cores"),
        title=f"{result.series} series, nodes of {result.cores_per_node:g} cores each",
        title_justify="left",
    )
    for t in result.times:
        table.add_row(
            str(t.nodes),
            f"{t.seconds:.1f}",
            f"{min(t.runs_s):.1f} to {max(t.runs_s):.1f}",
            f"{t.speedup:.2f}",
            f"{t.efficiency:.0%}",
            f"{t.head_busy:.2f}",
        )
    console.print(table)
    _show_model(result.model)


def _show_model(model: ScaleModel) -> None:
    from rich.console import Console

    console, told = Console(), model.imagined
    work = ", ".join(f"{stage} {s:.3f}" for stage, s in model.core_s_per_series.items())
    console.print(
        f"core-seconds a series: {work}; driver {model.head_s_per_series:.4f} "
        f"and {model.head_busy:.2f} cores while it waits"
    )
    console.print(
        f"[bold]{told.series:,} such series on {told.gpus} GPUs: "
        f"{model.hours[model.limit]:,.1f} h, set by the {model.limit}[/]"
    )
    alone = ", ".join(f"{part} {hours:,.1f} h" for part, hours in model.hours.items())
    console.print(f"each alone: {alone}")
    console.print(
        f"assumed: a GPU does the networks' work of {told.gpu_speedup:g} cores of this machine; "
        f"{told.cores_per_gpu:g} cores beside each load and prepare; the storage keeps up; the "
        "driver spends on a series what it spends here; start-up and tail left out"
    )


def start(
    slices: Slices = 16,
    pixels: Pixels = 512,
    runs: Annotated[int, typer.Option(min=1, help="Starts of each.")] = 5,
    folder: Folder = None,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Time to the first finished series: a new process, the next job in it, a plain loop.

    A job hands its first series on in a batch (run.describe.batch_series), a loop one by one.
    """
    from rich.console import Console
    from rich.table import Table

    from raypipe.bench.figures import start_figure
    from raypipe.bench.start import bench_start
    from raypipe.config import load_config

    with working_folder(folder) as work, Console(stderr=True).status("writing") as status:
        result = bench_start(
            work,
            load_config(config, overrides or ()),
            shape_zyx=(slices, pixels, pixels),
            runs=runs,
            on_step=status.update,
        )
    table = Table("", "s to the first series", "repetitions")
    for t in result.times:
        table.add_row(t.name, f"{t.first_s:.1f}", f"{min(t.runs_s):.1f} to {max(t.runs_s):.1f}")
    Console().print(table)
    save_json(result, json)
    draw(lambda: start_figure(result), figure)
