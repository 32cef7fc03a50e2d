"""`raypipe run`: the archive job.

In: arguments. Out: progress and a summary. Does not know: how the job is done.
"""

from functools import partial
from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def run(
    source: Annotated[
        str | None,
        typer.Option("--input", "-i", help="Archive or manifest: a folder or s3:// prefix."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", help="Folder or s3:// prefix of the results."),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Work on the first so many series of the manifest only."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Index, say what would be done, and stop.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Do series again that ended as failed.")
    ] = False,
    log_json: Annotated[
        bool,
        typer.Option(
            "--log-json", help="Write the log to stderr too, as JSON lines, without bars."
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved config and stop.")
    ] = False,
) -> None:
    """Stream an archive to Parquet: read, detect, describe; one row per series.

    The same command goes on where an earlier one stopped, however it stopped. Every series of the
    archive ends as a row: ok, rejected (with a reason) or failed (with a reason; --retry-failed).
    `raypipe status`, `raypipe verify` and `raypipe retry` tell of the results and mend them.

        raypipe run --input /archive/ct --output results --limit 10

        raypipe run -c configs/chest_ct.yaml -i s3://bucket/ct -o s3://bucket/results
    """
    from raypipe.batch.job import Job
    from raypipe.cli.display import index_progress, run_progress, show_plan, show_run_summary
    from raypipe.config import load_config

    settings = load_config(config, overrides or ())
    if print_config:
        typer.echo(settings.to_yaml(), nl=False)
        return
    if source is None or output is None:
        raise typer.BadParameter("both --input and --output are needed")
    on_log = partial(typer.echo, err=True) if log_json else None
    job = Job(source, output, settings, limit=limit, on_log=on_log)
    with index_progress(shown=not log_json) as on_files:
        job.index(on_files)
    if dry_run:
        if retry_failed:
            typer.echo(f"{job.count_failed()} failed series would be done again")
        show_plan(job.plan(), settings)
        return
    if retry_failed:
        typer.echo(f"{job.retry_failed()} failed series will be done again")
    with run_progress(shown=not log_json) as on_series:
        summary = job.run(on_series)
    show_run_summary(summary, output)
