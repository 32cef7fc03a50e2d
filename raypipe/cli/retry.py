"""`raypipe retry`: do failed series again.

In: arguments. Out: progress and a summary. Does not know: how the job is done.
"""

from typing import Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides


def retry(
    output: Annotated[str, typer.Argument(help="Output folder or s3:// prefix of a run.")],
    reasons: Annotated[
        list[str] | None,
        typer.Option("--reason", help="Only series that failed for this; may be repeated."),
    ] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Do series again that ended as failed; quarantined ones get all their attempts again.

    Works with the config that lies in the output folder, unless --config gives one.

        raypipe retry results

        raypipe retry results --reason quarantined --reason decoder_timeout
    """
    from raypipe.batch.restart import check_hash_key, job_of, known_reasons, open_run
    from raypipe.cli.display import run_progress, show_run_summary

    wanted = known_reasons(reasons or ())
    results, settings = open_run(output, config, overrides or ())
    check_hash_key(settings)
    job = job_of(results, settings)
    typer.echo(f"{job.retry_failed(wanted)} failed series will be done again")
    with run_progress() as on_series:
        summary = job.run(on_series)
    show_run_summary(summary, output)
