"""`raypipe bench serve`: the service under load.

In: sizes. Out: tables, and JSON where asked for. Does not know: how anything is measured.
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
    from raypipe.bench.serve import ServeBenchResult


def serve(
    series: Annotated[int, typer.Option(min=1, help="Phantom series that are sent.")] = 6,
    slices: Slices = 16,
    pixels: Pixels = 512,
    runs: Annotated[int, typer.Option(min=1, help="Calls for the overhead.")] = 8,
    clients: Annotated[str, typer.Option(help="Callers at a time, parted by commas.")] = (
        "1,2,4,8,16,32"
    ),
    requests: Annotated[int, typer.Option(min=1, help="Requests at each number of callers.")] = 24,
    folder: Folder = None,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Latency and throughput on loopback, overhead over the stages, what happens when it is full.

    raypipe bench serve --set pipeline.report.engine=template
    """
    from rich.console import Console

    from raypipe.bench.figures import serve_figure
    from raypipe.bench.serve import ServeBenchConfig, bench_serve
    from raypipe.config import load_settings
    from raypipe.serve.config import ServeConfig

    sizes = ServeBenchConfig(
        series=series,
        shape_zyx=(slices, pixels, pixels),
        runs=runs,
        clients=tuple(int(number) for number in clients.split(",")),
        requests=requests,
    )
    console = Console(stderr=True)
    with working_folder(folder) as working:
        result = bench_serve(
            working,
            load_settings(ServeConfig, config, overrides or ()),
            sizes,
            lambda what: console.print(what, style="dim"),
        )
    _show(result)
    save_json(result, json)
    draw(lambda: serve_figure(result), figure)


def _show(result: ServeBenchResult) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"a series of {result.slices} slices ({result.upload_mib:.1f} MiB) on {result.cores} cores"
    )
    console.print(
        f"stages {result.direct_s:.3f} s, request {result.request_s:.3f} s: "
        f"[bold]overhead {result.overhead:+.1%}[/] at the median"
    )
    table = Table(title="Requests that wait for their result", title_justify="left")
    for name in ("callers", "requests", "series/h", "median s", "95 % s", "99 % s", "longest s"):
        table.add_column(name, justify="right")
    table.add_column("told to come back", justify="right")
    for load in result.loads:
        times = (load.median_s, load.p95_s, load.p99_s, load.longest_s)
        table.add_row(
            str(load.clients),
            str(load.requests),
            f"{load.per_hour:,.0f}",
            *(f"{seconds:.2f}" for seconds in times),
            str(load.refused),
        )
    console.print(table)
    full = result.burst
    console.print(
        f"{full.sent} jobs at once: {full.accepted} accepted, {full.refused} got 503 with "
        f"Retry-After {full.retry_after_s}, {full.other} anything else; {full.done} done, "
        f"[bold]{full.lost} lost[/]"
    )
    for name, most in sorted(result.replicas_most.items()):
        least, after = result.replicas_least[name], result.replicas_after[name]
        console.print(f"{name}: {least} to {most} replicas, {after} afterwards")
