"""`raypipe bench`: benchmarks that print ratios and write JSON.

In: sizes. Out: a table, and JSON where asked for. Does not know: how anything is measured.
"""

from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides

app = typer.Typer(no_args_is_help=True, help="Measure raypipe against a peer in the same run.")

Folder = Annotated[
    Path | None, typer.Option("--folder", help="Empty working folder; a temporary one by default.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Also write the result to this file.")]
Slices = Annotated[int, typer.Option(min=1, help="Slices of a phantom series.")]
Pixels = Annotated[int, typer.Option(min=16, help="Rows and columns of a slice.")]


@app.command()
def pipeline(
    series: Annotated[int, typer.Option(min=2, help="Phantom series.")] = 96,
    slices: Slices = 16,
    pixels: Pixels = 512,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions of loop and job.")] = 3,
    folder: Folder = None,
    json: Json = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """The job against a plain single-process loop over the same stages on the same cores."""
    from raypipe.bench.pipeline import bench_pipeline
    from raypipe.cli.display import show_pipeline_bench
    from raypipe.config import load_config

    result = bench_pipeline(
        _working(folder),
        load_config(config, overrides or ()),
        series=series,
        shape_zyx=(slices, pixels, pixels),
        runs=runs,
    )
    show_pipeline_bench(result)
    if json is not None:
        json.write_text(result.model_dump_json(indent=2) + "\n")


@app.command()
def memory(
    short: Annotated[int, typer.Option(min=2, help="Series of the short job.")] = 100,
    long: Annotated[int, typer.Option(min=4, help="Series of the long job.")] = 1000,
    slices: Slices = 16,
    pixels: Pixels = 256,
    folder: Folder = None,
    json: Json = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Memory of driver and object store over a long job, and its cost per series."""
    from raypipe.bench.memory import bench_memory
    from raypipe.cli.display import show_memory_bench
    from raypipe.config import load_config

    result = bench_memory(
        _working(folder),
        load_config(config, overrides or ()),
        sizes=(short, long),
        shape_zyx=(slices, pixels, pixels),
    )
    show_memory_bench(result)
    if json is not None:
        json.write_text(result.model_dump_json(indent=2) + "\n")


def _working(folder: Path | None) -> Path:
    return folder if folder is not None else Path(mkdtemp(prefix="raypipe-bench-"))
