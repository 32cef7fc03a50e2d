"""`raypipe export`: results as DICOM SR, DICOM SEG and FHIR.

In: arguments. Out: files, progress and a summary. Does not know: how the objects are made.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides

if TYPE_CHECKING:
    from raypipe.batch.export import ExportSummary

_SHOWN = 20


def export(
    results: Annotated[str, typer.Argument(help="Output folder or s3:// prefix of a run.")],
    out: Annotated[str, typer.Argument(help="Folder or s3:// prefix to write into.")],
    formats: Annotated[
        str,
        typer.Option("--format", help="sr, seg, fhir, or several of them parted by commas."),
    ] = "sr,seg,fhir",
    series: Annotated[
        list[str] | None,
        typer.Option("--series", help="Only series whose key begins so; may be repeated."),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(
            help="keyed: UIDs and ids are keyed hashes, nothing names a patient (the default). "
            "source: as in the archive, for a PACS. Short for --set export.identity=..."
        ),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Write results as DICOM structured reports, segmentations and FHIR bundles.

    One folder a series. SR and SEG refer to the source's DICOM instances, whose headers are read
    again; a series from NIfTI or pictures gets FHIR alone. Research use only: the objects say so.

    Works with the config that lies in the output folder, unless --config gives one.

        raypipe export results exported

        raypipe export results exported --format sr,seg --identity source --series 3f2a
    """
    from raypipe.batch.export import Exporter, parse_formats
    from raypipe.batch.restart import check_hash_key, open_run

    chosen = (*(overrides or ()), *([f"export.identity={identity}"] if identity else ()))
    run, settings = open_run(results, config, chosen)
    if settings.export.identity == "keyed":
        check_hash_key(settings)
    exporter = Exporter(run, out, parse_formats(formats), settings)
    with _progress() as on_progress:
        summary = exporter.run(series or (), on_progress)
    _show(summary, out)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar over series; yields the callback (done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("export"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("series"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("export", total=None)

        def update(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update


def _show(summary: "ExportSummary", out: str) -> None:
    """What was written, and what was not and why."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title=f"Export {out}", title_justify="left", show_header=False)
    table.add_row("series", str(summary.series))
    for name, number in summary.written.items():
        table.add_row(f"{name} written", str(number))
    table.add_row("not written", str(sum(len(s.formats) for s in summary.skipped)))
    console.print(table)
    for skipped in summary.skipped[:_SHOWN]:
        formats = ", ".join(skipped.formats)
        console.print(f"{skipped.series_key[:12]}: no {formats}: {skipped.reason}", markup=False)
    if len(summary.skipped) > _SHOWN:
        console.print(f"... {len(summary.skipped) - _SHOWN} more in {out}/export.json")
    if summary.key_is_random:
        console.print(
            "No index.hash_key is set: a random key was drawn, so the UIDs and ids of this export "
            "match those of no other."
        )
