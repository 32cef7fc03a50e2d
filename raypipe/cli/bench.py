"""`raypipe bench`: benchmarks that print ratios and write JSON.

In: sizes. Out: a table, and JSON and a figure where asked for.
Does not know: how anything is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli import (
    bench_ingest,
    bench_model,
    bench_prefix,
    bench_reports,
    bench_scale,
    bench_serve,
    bench_training,
)
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
    from raypipe.bench.lesions import LesionBenchResult

app = typer.Typer(no_args_is_help=True, help="Measure raypipe against a peer in the same run.")

app.command("ingest")(bench_ingest.ingest)
app.command("preprocess")(bench_ingest.preprocess)
app.command("encoder")(bench_model.encoder)
app.command("ablation")(bench_model.ablation)
app.command("ct-kidney")(bench_training.ct_kidney)
app.command("openi")(bench_reports.openi)
app.command("reports")(bench_reports.reports)
app.command("serve")(bench_serve.serve)
app.command("scale")(bench_scale.scale)
app.command("start")(bench_scale.start)
app.command("prefix")(bench_prefix.prefix)


@app.command()
def pipeline(
    series: Annotated[int, typer.Option(min=2, help="Phantom series.")] = 96,
    slices: Slices = 16,
    pixels: Pixels = 512,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions of loop and job.")] = 3,
    peers: Annotated[
        list[str] | None,
        typer.Option("--peer", help="dataloader (of torch), daft or spark; repeatable."),
    ] = None,
    folder: Folder = None,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """The job against a plain single-process loop over the same stages on the same cores.

    The peers daft and spark need their packages (and Java) on the Python path:

        pip install --no-deps --target out/peers daft==0.7.26 pyspark==4.3.0 py4j==0.10.9.9
        PYTHONPATH=out/peers raypipe bench pipeline --series 48 --set report.engine=template
            --set run.detect.min_size=2 --peer dataloader --peer daft --peer spark
    """
    from raypipe.bench.figures import pipeline_figure
    from raypipe.bench.pipeline import bench_pipeline
    from raypipe.cli.display import show_pipeline_bench
    from raypipe.config import load_config

    with working_folder(folder) as work:
        result = bench_pipeline(
            work,
            load_config(config, overrides or ()),
            series=series,
            shape_zyx=(slices, pixels, pixels),
            runs=runs,
            peers=peers or (),
        )
    show_pipeline_bench(result)
    save_json(result, json)
    draw(lambda: pipeline_figure(result), figure)


@app.command()
def memory(
    short: Annotated[int, typer.Option(min=2, help="Series of the short job.")] = 100,
    long: Annotated[int, typer.Option(min=4, help="Series of the long job.")] = 1000,
    slices: Slices = 16,
    pixels: Pixels = 256,
    folder: Folder = None,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Memory of a long job beside that of a short one, and the cost per series of both."""
    from raypipe.bench.figures import memory_figure
    from raypipe.bench.memory import bench_memory
    from raypipe.cli.display import show_memory_bench
    from raypipe.config import load_config

    with working_folder(folder) as work:
        result = bench_memory(
            work,
            load_config(config, overrides or ()),
            sizes=(short, long),
            shape_zyx=(slices, pixels, pixels),
        )
    show_memory_bench(result)
    save_json(result, json)
    draw(lambda: memory_figure(result), figure)


@app.command()
def plan(
    calibration: Annotated[int, typer.Option(min=8, help="Series of the calibration run.")] = 64,
    slices: Slices = 8,
    pixels: Pixels = 256,
    folder: Folder = None,
    json: JsonFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """The forecast of `raypipe plan` against the real run of an archive ten times as large."""
    from rich.console import Console

    from raypipe.bench.plan import bench_plan
    from raypipe.config import load_config

    with working_folder(folder) as work:
        result = bench_plan(
            work,
            load_config(config, overrides or ()),
            calibration=calibration,
            shape_zyx=(slices, pixels, pixels),
        )
    told_s = result.forecast.hours * 3600
    console = Console()
    console.print(f"forecast {told_s:.1f} s from {calibration} series, start-up included")
    console.print(f"measured {result.measured_s:.1f} s over {result.forecast.series} series")
    console.print(f"[bold]forecast over measured: {result.ratio:.3f}[/]")
    save_json(result, json)


@app.command()
def lesions(
    series: Annotated[int, typer.Option(min=0, help="Phantoms, each another body.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of the first one; far from training's.")] = (
        970_000
    ),
    backgrounds: Annotated[
        list[str] | None,
        typer.Option(help="Folder or s3:// of real CT to insert lesions in; may be repeated."),
    ] = None,
    insertions: Annotated[int, typer.Option(min=1, help="Fillings of each real CT.")] = 4,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """How well lesions are found in bodies that training never saw, the subtle ones apart.

    Lesions of known truth are inserted into phantoms and, where --backgrounds names some, into
    real CT. The main number is the mean AP at IoU 0.5 on single slices.
    """
    from rich.console import Console

    from raypipe.bench.lesions import LesionBenchConfig, bench_lesions
    from raypipe.config import load_config
    from raypipe.evaluate.plot_lesions import lesions_figure

    budget = LesionBenchConfig(
        series=series, seed=seed, backgrounds=tuple(backgrounds or ()), insertions=insertions
    )
    console = Console(stderr=True)
    with console.status("filling the first series") as status:
        result = bench_lesions(
            load_config(config, overrides or ()),
            budget,
            lambda done, what: status.update(f"{done} series done, the last: {what}"),
        )
    _show_lesions(result)
    save_json(result, json)
    draw(lambda: lesions_figure(result.slices, result.findings, result.target_map), figure)


def _show_lesions(result: LesionBenchResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from raypipe.bench.lesions import SLICE_IOU
    from raypipe.evaluate.measures import MACRO

    console, slices, findings = Console(), result.slices, result.findings
    console.print(
        f"{result.series} series ({result.real_series} fillings of real CT), {slices.series} "
        f"slices, {findings.lesions} lesions with {slices.lesions} boxes, {result.seconds:.0f} s"
    )
    table = Table("label", "boxes", "AP", "subtle", "AP of subtle", title="Slices, IoU 0.5")
    for label in (*slices.labels, MACRO):
        ap = slices.measure("box", "ap", label, iou=SLICE_IOU)
        if not ap.support:
            continue
        try:
            subtle = slices.measure("box", "ap", label, iou=SLICE_IOU, group="subtle")
        except KeyError:
            subtle = None
        table.add_row(
            "mean over labels" if label == MACRO else label.replace("_", " "),
            *(str(ap.support), ap.shown()),
            *(("", "") if subtle is None else (str(subtle.support), subtle.shown())),
            style="bold" if label == MACRO else None,
        )
    console.print(table)
    console.print(f"mAP at IoU 0.5: {result.map50.shown()}")
    console.print(f"target {result.target_map:g}; the paper states {result.paper_map:g}")
    console.print(
        f"findings in three dimensions: {result.sensitivity_at_1.shown()} found with one false "
        "finding a series"
    )
