"""The command `raypipe`: its subcommands and how errors reach a person.

Heavy packages are imported inside the commands, so that `raypipe --help` answers at once.
Does not know: what a command does.
"""

import sys
from typing import Annotated

import typer

from raypipe import __version__
from raypipe.cli import (
    bench,
    demo,
    evaluate,
    export,
    index,
    inspect,
    plan,
    retry,
    run,
    serve,
    status,
    train,
    verify,
)
from raypipe.errors import RaypipeError

INTERRUPTED = 130
"""What typer makes of Ctrl-C."""

app = typer.Typer(
    name="raypipe",
    help="Detect and describe abnormalities in CT archives, on Ray and vLLM.\n\n"
    "Start with `raypipe demo`. On an archive of your own: `raypipe run --input ARCHIVE "
    "--output RESULTS`, then `raypipe inspect RESULTS`.\n\n"
    "Research use only. Not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"raypipe {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


app.command("index")(index.index)
app.command("run")(run.run)
app.command("plan")(plan.plan)
app.command("status")(status.status)
app.command("retry")(retry.retry)
app.command("verify")(verify.verify)
app.command("inspect")(inspect.inspect)
app.command("export")(export.export)
app.command("demo")(demo.demo)
app.add_typer(serve.app, name="serve")
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line; what raypipe raises on purpose is shown without a trace."""
    try:
        app()
    except RaypipeError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            typer.secho("interrupted; the same command goes on where it stopped", err=True)
        raise
