"""`raypipe demo`: the whole job on an archive of phantoms."""

from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the archive, results and pages.")
    ] = Path("raypipe-demo"),
    series: Annotated[int, typer.Option(min=12, help="Series in the phantom archive.")] = 17,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Write an archive of synthetic CT and run the whole job on it, with the real engines.

    The archive holds DICOM of several geometries, NIfTI, a 2D image and broken files; its lesions
    are known, so the pages can be compared with the truth beside the archive.
    """
    from raypipe.batch.job import Job
    from raypipe.batch.review import load_volume, selected_rows
    from raypipe.cli.display import index_progress, run_progress, show_rows, show_run_summary
    from raypipe.config import load_config
    from raypipe.phantom import write_archive
    from raypipe.sink.pages import write_pages

    settings = load_config(config, overrides or ())
    archive, results, pages = output / "archive", output / "results", output / "pages"
    if not archive.exists():
        typer.echo(f"writing {series} phantom series into {archive}")
        write_archive(archive, n_series=series, seed=0, truth_path=output / "truth.json")
    job = Job(str(archive), str(results), settings)
    with index_progress() as on_files:
        job.index(on_files)
    with run_progress() as on_series:
        summary = job.run(on_series)
    rows = selected_rows(job.output)
    show_rows(rows)
    show_run_summary(summary, str(results))
    write_pages(rows, lambda row: load_volume(job.output, row, settings), pages)
    typer.echo(f"\nLook at {pages / 'index.html'}, or: raypipe inspect {results} --series KEY")
