"""`raypipe status`: how a run stands.

In: arguments. Out: a table, or JSON. Does not know: how it is found out.
"""

from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def status(
    output: Annotated[str, typer.Argument(help="Output folder or s3:// prefix of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Show what is done, left and failed, and how long the rest takes; also while a run works.

    raypipe status results

    raypipe status s3://bucket/results --json
    """
    from raypipe.batch.output import open_output
    from raypipe.batch.status import run_status
    from raypipe.cli.ledger_display import show_status
    from raypipe.config import load_config

    storage = load_config(config, overrides or ()).archive.storage
    found = run_status(open_output(output, storage), storage)
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        show_status(found, output)
