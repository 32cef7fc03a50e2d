"""`raypipe plan`: what an archive will take.

In: arguments. Out: a forecast. Does not know: how it is made.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import ConfigFile, JsonFile, Overrides, save_json, working_folder

if TYPE_CHECKING:
    from raypipe.batch.forecast import Forecast


def plan(
    manifest: Annotated[
        str, typer.Option("--manifest", "-m", help="Folder or s3:// prefix of a manifest.")
    ],
    config: ConfigFile = None,
    overrides: Overrides = None,
    series: Annotated[int, typer.Option(min=8, help="Series of the calibration run.")] = 64,
    folder: Annotated[
        Path | None, typer.Option(help="Empty folder for the calibration's rows; else a new one.")
    ] = None,
    json: JsonFile = None,
) -> None:
    """Forecast hours, device-hours and cost of an archive, and propose pool sizes.

    Runs the real job on a sample of the archive, small and large series in proportion, and
    extrapolates. The more series, the closer the forecast.

        raypipe index /archive/ct manifest

        raypipe plan -c configs/chest_ct.yaml -m manifest --set run.price_per_hour=3.2
    """
    from raypipe.batch.forecast import forecast
    from raypipe.cli.display import run_progress
    from raypipe.config import load_config

    with working_folder(folder) as work, run_progress() as on_series:
        result = forecast(
            manifest,
            work,
            load_config(config, overrides or ()),
            series=series,
            on_progress=on_series,
        )
    _show(result)
    save_json(result, json)


def _show(result: "Forecast") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("stage", "s a series", "busy workers", "pool")
    for name, stage in result.stages.items():
        table.add_row(
            name,
            f"{stage.seconds_per_series:.3f}",
            f"{stage.workers:.2f}",
            "CPU tasks" if stage.pool is None else str(stage.pool),
        )
    console.print(table)
    console.print(
        f"{result.series:,} series ({result.rejected:,} more are rejected), calibrated on "
        f"{result.calibrated_on}"
    )
    console.print(
        f"[bold]{_time(result.hours)}[/] ({_time(result.hours_low)} to "
        f"{_time(result.hours_high)}), {result.series_per_hour:,.0f} series an hour"
    )
    cost = "" if result.cost is None else f", {result.cost:,.2f} {result.currency}"
    console.print(f"{result.gpu_hours:,.1f} GPU-hours, {result.cpu_hours:,.1f} CPU-hours{cost}")
    for line in result.advice:
        console.print(line)


def _time(hours: float) -> str:
    if hours < 0.1:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 3 else f"{hours:,.1f} h"
