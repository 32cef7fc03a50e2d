"""`raypipe verify`: audit the results of a run.

In: arguments. Out: a table or JSON, and exit code 1 where anything is wrong.
Does not know: how the audit is done.
"""

from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def verify(
    output: Annotated[str, typer.Argument(help="Output folder or s3:// prefix of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Prove that every series of the manifest has one row, and that every file is as written.

    Finds missing and double rows, rows of series that are not in the manifest, rows and checkpoint
    that disagree, damaged files (every page has a checksum) and other columns. Upon any of these
    the exit code is 1.

        raypipe verify results
    """
    from raypipe.batch.output import open_output
    from raypipe.batch.verify import verify as audit_of
    from raypipe.cli.ledger_display import show_audit
    from raypipe.config import load_config

    storage = load_config(config, overrides or ()).archive.storage
    audit = audit_of(open_output(output, storage), storage)
    if as_json:
        typer.echo(audit.model_dump_json(indent=2))
    else:
        show_audit(audit, output)
    if audit.problems:
        raise typer.Exit(1)
