"""`raypipe bench ingest` and `raypipe bench preprocess`: reading and preparing against other tools.

In: a folder; sizes. Out: tables, and JSON where asked for. Does not know: how anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import (
    FigureFile,
    Folder,
    JsonFile,
    Pixels,
    draw,
    save_json,
    working_folder,
)

if TYPE_CHECKING:
    from raypipe.bench.ingest import IngestResult


def ingest(
    data: Annotated[str, typer.Option(help="Folder of DICOM series, one a folder.")],
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of each tool.")] = 5,
    files: Annotated[int, typer.Option(min=0, help="Small files for the index; 0: none.")] = (
        100_000
    ),
    folder: Folder = None,
    json: JsonFile = None,
    figure: FigureFile = None,
) -> None:
    """Read DICOM series against dcm2niix, SimpleITK and dicom2nifti; index many small files."""
    from rich.console import Console

    from raypipe.bench.figures import ingest_figure
    from raypipe.bench.ingest import bench_ingest

    with working_folder(folder) as work, Console(stderr=True).status("indexing") as status:
        result = bench_ingest(data, work, repeats=repeats, files=files, on_step=status.update)
    _show(result)
    save_json(result, json)
    draw(lambda: ingest_figure(result), figure)


def _show(result: IngestResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from raypipe.bench.ingest import OURS, PEERS, what_it_ends_with

    console = Console()
    for series in result.series:
        same = {True: "the same", False: "OTHER", None: "not compared"}[series.same_voxels]
        table = Table(
            *("tool", "s", "cold, s"),
            title=f"{series.name}: {series.slices} slices, {series.megabytes:.1f} MB; voxels of "
            f"raypipe and dcm2niix are {same}",
            title_justify="left",
        )
        for t in series.times:
            seconds = (
                (t.problem, "") if t.warm_s is None else (f"{t.warm_s:.3f}", f"{t.cold_s:.3f}")
            )
            table.add_row(t.tool, *seconds)
        if series.name in result.s3_warm_s:
            table.add_row("raypipe, from S3 to memory", f"{result.s3_warm_s[series.name]:.3f}", "")
        console.print(table)
    read = [s for s in result.series if s.warm_s(OURS) is not None]
    megabytes = sum(s.megabytes for s in read)
    ours, _ = result.total_s(OURS)
    console.print(f"raypipe reads {len(read) / ours:.1f} series/s, {megabytes / ours:.0f} MB/s")
    for peer in PEERS:
        if peer not in result.all_cores_s:
            console.print(f"{peer} refused every series that raypipe reads")
            continue
        theirs, own = result.total_s(peer)
        together = theirs / result.all_cores_s[peer]
        console.print(
            f"[bold]{peer} takes {theirs / own:.2f} times as long as {what_it_ends_with(peer)}, "
            f"one series at a time; {together:.2f} times with {result.machine['cores']} loaders[/]"
        )
    if result.index is not None:
        i = result.index
        console.print(
            f"index: {i.files:,} files in {i.seconds:.1f} s, {i.files / i.seconds:,.0f} a second, "
            f"{i.speedup:.2f} times a plain loop; again with nothing new {i.again_s:.1f} s"
        )


def preprocess(
    slices: Annotated[int, typer.Option(min=1, help="Slices of the volume.")] = 60,
    pixels: Pixels = 512,
    repeats: Annotated[int, typer.Option(min=1, help="Timed passes of each tool.")] = 7,
    json: JsonFile = None,
    figure: FigureFile = None,
) -> None:
    """THE preprocessing against MONAI and SimpleITK: same grid, three HU windows, one thread."""
    from rich.console import Console
    from rich.table import Table

    from raypipe.bench.figures import preprocess_figure
    from raypipe.bench.preprocess import bench_preprocess

    result = bench_preprocess((slices, pixels, pixels), repeats)
    table = Table(
        *("tool", "s", "time over raypipe's", "largest HU gap", "mean HU gap"),
        title=f"{slices} slices of {pixels} x {pixels} to {' x '.join(map(str, result.size_yx))}",
        title_justify="left",
    )
    for tool in result.tools:
        table.add_row(
            *(tool.name, f"{tool.seconds:.3f}", f"{result.ratio(tool.name):.2f}"),
            *(f"{tool.largest_hu_gap:.2f}", f"{tool.mean_hu_gap:.3f}"),
        )
    Console().print(table)
    save_json(result, json)
    draw(lambda: preprocess_figure(result), figure)
