"""`raypipe bench prefix`: does the language model tell what only the image shows?

In: a folder and a budget. Out: tables, and files in the folder. Does not know: how anything is
trained or measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raypipe.bench.prefix_records import PrefixRun


def prefix(
    folder: Annotated[
        Path, typer.Option("--folder", help="For cases, runs, results; goes on where it stopped.")
    ],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of a run.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each arm.")] = 3,
    cases: Annotated[int | None, typer.Option(min=8, help="Generated series to train on.")] = None,
    held_out: Annotated[int | None, typer.Option(min=2, help="Series to measure on.")] = None,
) -> None:
    """Attributes named in texts by vLLM, with and without the visual prefix, at equal budgets."""
    from rich.console import Console
    from rich.markdown import Markdown
    from transformers.utils.logging import disable_progress_bar

    from raypipe.bench.prefix import bench_prefix
    from raypipe.bench.prefix_records import PrefixBenchConfig
    from raypipe.bench.prefix_results import markdown

    told = PrefixBenchConfig()
    changes: dict[str, object] = {"seeds": tuple(range(seeds)), "steps": steps or told.steps}
    if cases is not None:
        changes["train"] = told.train.model_copy(update={"cases": cases})
    if held_out is not None:
        changes["held_out"] = told.held_out.model_copy(update={"cases": held_out})
    disable_progress_bar()  # the status line tells more
    console = Console(stderr=True)
    with console.status("beginning") as status:
        result = bench_prefix(folder, told.model_copy(update=changes), status.update, _show_run)
    Console().print(Markdown(markdown(result)))


def _show_run(done: PrefixRun) -> None:
    asked = [(a.truth[name], a.said.get(name)) for a in done.answers for name in a.truth]
    right = sum(truth == said for truth, said in asked) / max(len(asked), 1)
    typer.echo(
        f"{done.arm}, seed {done.seed}: accuracy {right:.3f} of {len(asked)} attributes, loss "
        f"{done.loss:.3f}, {done.seconds:.0f} s of training"
    )
