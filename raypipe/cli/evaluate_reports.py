"""`raypipe evaluate reports`: how good texts are, by their words and by their facts.

In: runs or tables of texts, references, known findings. Out: tables, figures, a summary.
Does not know: how a measure is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import ConfigFile, Overrides

if TYPE_CHECKING:
    from raypipe.evaluate.text import TextEvaluation


def reports(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RESULTS_OR_TABLE...",
            help="Output folders of runs, or .parquet/.csv with key, text (and system).",
        ),
    ],
    references: Annotated[
        str | None,
        typer.Option(help="Reference texts, .parquet/.csv: key, text. Without: no BLEU and such."),
    ] = None,
    findings: Annotated[
        str | None,
        typer.Option(
            help="What is true, .parquet/.csv: key, label (side, level, size_mm). Without it: what "
            "the references state, or else the findings of the first run."
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for tables and figures.")
    ] = Path("evaluation"),
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for intervals.")] = 1000,
    size_tolerance_mm: Annotated[
        float, typer.Option(min=0, help="Sizes that differ by no more agree.")
    ] = 1.0,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """BLEU, ROUGE-L, METEOR, CIDEr, and what texts invent, leave out and tell wrongly.

    Every system is measured on the same reports, with bootstrap intervals and its difference to
    the first one. Texts are read in the language of `report.language`: give the --config of a run
    that writes another than English.

        raypipe evaluate reports out/results others.csv --references radiologists.csv -o evaluation
    """
    from functools import partial

    from raypipe.batch.report_evaluation import load_reports
    from raypipe.config import load_config
    from raypipe.evaluate.facts import read_facts
    from raypipe.evaluate.text import TextEvaluationConfig, evaluate_texts
    from raypipe.evaluate.text_tables import write_text_evaluation
    from raypipe.knowledge.terminology import load_terminology

    settings = load_config(config, overrides or ())
    cohort = load_reports(sources, references, findings, settings.archive.storage)
    evaluation = evaluate_texts(
        cohort.reports,
        partial(read_facts, terminology=load_terminology(settings.report.language)),
        TextEvaluationConfig(bootstrap=bootstrap, size_tolerance_mm=size_tolerance_mm),
    )
    files = write_text_evaluation(evaluation, output)
    for name, number in cohort.left_out.items():
        typer.echo(f"left out: {number} reports of {name} that not every source has")
    show_text_evaluation(evaluation)
    typer.echo(f"wrote {', '.join(file.name for file in files)} into {output}")


def show_text_evaluation(evaluation: TextEvaluation) -> None:
    """The measures of every system as a table in the terminal."""
    from rich.console import Console
    from rich.table import Table

    from raypipe.evaluate.text_tables import TITLES

    table = Table("measure", *evaluation.systems)
    for name in evaluation.names:
        cells = (evaluation.measure(system, name).shown() for system in evaluation.systems)
        table.add_row(TITLES[name], *cells)
    console = Console()
    console.print(f"{evaluation.reports} reports; facts against {evaluation.truth}")
    console.print(table)
