"""`raypipe inspect`: look at results in the terminal or the browser."""

from pathlib import Path
from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def inspect(
    output: Annotated[str, typer.Argument(help="Output folder or s3:// prefix of a run.")],
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a self-contained page per series into this folder."),
    ] = None,
    series: Annotated[
        list[str] | None,
        typer.Option("--series", help="Only series whose key begins so; may be repeated."),
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(help="Only rows with this status: ok, rejected or failed."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many series.")] = 50,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show the rows of a run: what was found, what was rejected and why.

    A single series (--series KEY) is shown with its findings and its report. Pages (--html) show
    the key slices with boxes; they read the pixels from the archive again, as the config that lies
    in the output folder says, unless --config gives one.

        raypipe inspect results

        raypipe inspect results --html pages --status ok
    """
    from raypipe.batch.output import open_output
    from raypipe.batch.restart import settings_of
    from raypipe.batch.review import load_volume, selected_rows
    from raypipe.cli.display import show_rows
    from raypipe.config import load_config
    from raypipe.sink.pages import write_pages

    given = load_config(config, overrides or ())
    results = open_output(output, given.archive.storage)
    rows = selected_rows(results, keys=series or (), status=status, limit=limit)
    show_rows(rows, detailed=bool(series))
    if html is not None:
        settings = given if config else settings_of(results, overrides or ())
        pages = write_pages(rows, lambda row: load_volume(results, row, settings), html)
        typer.echo(f"{len(pages)} pages: open {html / 'index.html'}")
