"""`raypipe bench openi` and `raypipe bench reports`: text by measure and by the second.

In: folders, sizes. Out: tables, JSON, figures. Does not know: how anything is written or measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raypipe.cli.options import (
    ConfigFile,
    FigureFile,
    JsonFile,
    Overrides,
    draw,
    save_json,
    working_folder,
)

if TYPE_CHECKING:
    from raypipe.bench.openi import OpeniResult
    from raypipe.bench.reports import ReportsBenchResult


def openi(
    data: Annotated[Path, typer.Option("--data", help="Folder with Open-I's reports.csv.")],
    folder: Annotated[
        Path,
        typer.Option("--folder", help="For adapter, texts, results; goes on where it stopped."),
    ],
    header: Annotated[
        bool,
        typer.Option(help="Show the header lines (image, comparison, indication) with the tags."),
    ] = True,
    train: Annotated[
        bool, typer.Option(help="Train the adapter; without it its systems are left out.")
    ] = True,
    epochs: Annotated[float, typer.Option(min=0.001, help="Of training.")] = 1.0,
    candidates: Annotated[int, typer.Option(min=1, help="Reports that a grammar admits.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, help="Test examinations; all if not.")] = None,
    json: JsonFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """BLEU-4, ROUGE-L, CIDEr, facts and invented findings on real chest radiograph reports.

    Index terms of experts in, the text of radiologists as reference. Parts are made by uid; the
    adapter stays in the folder.

        raypipe bench openi --data FOLDER --folder out/openi
    """
    from rich.console import Console

    from raypipe.batch.cluster import start_ray
    from raypipe.bench.openi import bench_openi
    from raypipe.bench.openi_training import OpeniConfig, is_trained
    from raypipe.config import load_config

    settings = load_config(config, overrides or ())
    wanted = OpeniConfig(
        header=header, train=train, epochs=epochs, candidates=candidates, limit=limit
    )
    if train and not is_trained(folder):
        start_ray(settings.run)
    with Console(stderr=True).status("reading") as status:
        result = bench_openi(data, folder, wanted, settings.report, status.update)
    _show_openi(result)
    save_json(result, json)


def _show_openi(result: OpeniResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from raypipe.evaluate.text_tables import TITLES

    console = Console()
    seen = "index terms and header lines" if result.config.header else "index terms"
    parts = ", ".join(f"{number} {name}" for name, number in result.studies.items())
    console.print(f"Open-I: {seen} -> findings and impression; {parts}")
    names = ("bleu_4", "rouge_l", "cider", "fact_f1")
    table = Table("", *(TITLES[name] for name in names))
    for system in result.evaluation.systems:
        table.add_row(system, *(result.evaluation.measure(system, n).shown() for n in names))
    table.add_row(
        "the paper", *(f"{result.paper[n]:.3f}" if n in result.paper else "" for n in names)
    )
    console.print(table)
    against = Table("", "invented of claimed", "the same by the CT terms", "index terms not told")
    for system, rates in result.against_tags.items():
        shown = (rates.invented, rates.invented_by_ct_terms, rates.omitted)
        against.add_row(system, *(rate.shown() for rate in shown))
    target = f"< {result.invented_target:.1%}"
    against.add_row("target", target, target, "")
    console.print(against)
    for system, number in result.unfinished.items():
        if number:
            console.print(f"{system}: {number} texts were cut off at the limit of tokens")


def reports(
    count: Annotated[int, typer.Option("--reports", min=1, help="Of one repetition.")] = 64,
    runs: Annotated[int, typer.Option(min=1, help="Repetitions, each with other reports.")] = 5,
    free_tokens: Annotated[
        int, typer.Option(min=1, help="Limit of an answer without a grammar.")
    ] = 64,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="vllm, transformers, ray.data.llm; repeat for several. All if none."),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--folder", help="For logs; a temporary one by default.")
    ] = None,
    json: JsonFile = None,
    figure: FigureFile = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Tokens per second beside bare vLLM, transformers and ray.data.llm on the same requests."""
    from rich.console import Console

    from raypipe.bench.figures import reports_figure
    from raypipe.bench.reports import bench_reports, peers_named
    from raypipe.config import load_config

    with working_folder(folder) as work, Console(stderr=True).status("starting") as status:
        result = bench_reports(
            work,
            load_config(config, overrides or ()).report,
            reports=count,
            repeats=runs,
            free_tokens=free_tokens,
            peers=peers_named(peer or ()),
            on_step=status.update,
        )
    _show_reports(result)
    save_json(result, json)
    draw(lambda: reports_figure(result), figure)


def _show_reports(result: ReportsBenchResult) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("requests", "engine", "tokens/s", "raypipe / it", "target", "equal texts")
    for speed in result.speeds:
        low, high = speed.spread
        ratio_low, ratio_high = speed.ratio_spread
        table.add_row(
            speed.kind,
            speed.peer,
            f"{speed.tokens_per_s:.1f} ({low:.1f} to {high:.1f})",
            f"{speed.ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})",
            "" if speed.target is None else f"{speed.target:.2f}",
            f"{speed.same_texts:.0%}",
        )
    console = Console()
    console.print(
        f"{result.model}: medians of {result.repeats} repetitions of {result.reports} reports"
    )
    console.print(table)
