"""How progress, plans, summaries and rows look in a terminal.

In: what batch and archive report. Out: rich tables and progress bars on the terminal.
Does not know: how anything is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from raypipe.archive.index import IndexSummary
    from raypipe.batch.job import Plan
    from raypipe.batch.progress import Progress as RunProgress
    from raypipe.batch.summary import RunSummary
    from raypipe.bench.memory import MemoryResult
    from raypipe.bench.pipeline import PipelineResult
    from raypipe.config import RaypipeConfig

_STATUS_STYLE = {"ok": "green", "rejected": "yellow", "failed": "red"}


@contextmanager
def index_progress(*, shown: bool = True) -> Iterator[Callable[[int, int, int], None]]:
    """A progress bar over files; yields the callback (done, total, bytes)."""
    with Progress(
        TextColumn("index"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not shown,
    ) as bar:
        task = bar.add_task("index", total=None)

        def update(done: int, total: int, _bytes: int) -> None:
            bar.update(task, completed=done, total=total)

        yield update


@contextmanager
def run_progress(*, shown: bool = True) -> Iterator[Callable[[RunProgress], None]]:
    """A progress bar over committed series; yields the callback."""
    with Progress(
        SpinnerColumn(),
        TextColumn("run"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("series"),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not shown,
    ) as bar:
        task = bar.add_task("run", total=None, counts="starting Ray and the engines")

        def update(progress: RunProgress) -> None:
            bar.update(
                task,
                completed=progress.done,
                total=progress.total,
                counts=_progress_text(progress),
            )

        yield update


def _progress_text(progress: RunProgress) -> str:
    if progress.paused_until is not None:
        return f"[yellow]paused until {progress.paused_until:%a %H:%M %Z}[/]"
    new = progress.done - progress.done_before
    if not new:
        return "starting Ray and the engines"
    per_hour = new / progress.elapsed_s * 3600 if progress.elapsed_s else 0.0
    counts = " ".join(
        f"[{_STATUS_STYLE[status]}]{number} {status}[/]"
        for status, number in progress.status_counts.items()
    )
    text = f"{counts}  {per_hour:,.0f}/h"
    return f"{text}\n[yellow]{progress.advice}[/]" if progress.advice else text


def show_index_summary(summary: IndexSummary, out: str) -> None:
    """What a scan found."""
    console = Console()
    table = Table(title=f"Manifest {out}", title_justify="left", show_header=False)
    for name, value in summary.model_dump().items():
        if isinstance(value, Mapping):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none"
        elif isinstance(value, float):
            value = f"{value:,.1f}"
        table.add_row(name.replace("_", " "), str(value))
    console.print(table)


def show_plan(plan: Plan, config: RaypipeConfig) -> None:
    """What a run would do."""
    console = Console()
    table = Table(title="Dry run: nothing was done", title_justify="left", show_header=False)
    table.add_row("manifest", plan.manifest)
    table.add_row("output", plan.output)
    table.add_row("series", f"{plan.total}: {_counted(plan.status_counts)} by their headers")
    table.add_row("committed before", str(plan.done))
    table.add_row("to read", f"{plan.source_bytes / 1e6:,.1f} MB")
    for name in ("detect", "describe"):
        pool = getattr(config.run, name)
        table.add_row(
            name, f"{pool.min_size} to {pool.max_size} actors, {pool.cpus:g} CPU, {pool.gpus:g} GPU"
        )
    console.print(table)


def show_run_summary(summary: RunSummary, output: str) -> None:
    """The end of a run: counts, speed, how busy each stage was, what a series costs."""
    console = Console()
    table = Table(title=f"Results {output}", title_justify="left", show_header=False)
    done = f"{summary.series_done} in {summary.wall_s:,.1f} s"
    if summary.series_done_before:
        done += f", {summary.series_done_before} before"
    table.add_row("series", done)
    table.add_row("status", _counted(summary.status_counts))
    if summary.reason_counts:
        table.add_row("reasons", _counted(summary.reason_counts))
    if summary.flag_counts:
        table.add_row("flags", _counted(summary.flag_counts))
    if summary.begun_again:
        table.add_row("begun again", f"{summary.begun_again} series whose worker died")
    table.add_row("findings", f"{summary.findings}, {summary.needs_review} reports need review")
    table.add_row("speed", f"{summary.series_per_hour:,.0f} series/h")
    table.add_row("language model", f"{summary.tokens} tokens, {summary.tokens_per_s:,.0f} per s")
    for name, use in summary.stages.items():
        share = "" if use.busy_share is None else f", pool busy {use.busy_share:.0%}"
        text = f"{use.seconds:,.1f} s, {use.busy_workers:.2f} workers busy{share}"
        table.add_row(f"stage {name}", text)
    if summary.cost_per_series is not None:
        table.add_row("cost per series", f"{summary.cost_per_series:.6f} {summary.currency}")
    if summary.advice is not None:
        table.add_row("advice", f"[yellow]{summary.advice}[/]")
    if summary.series_left:
        table.add_row("left", f"[red]{summary.series_left} series have no row[/]")
    console.print(table)


def show_rows(rows: Sequence[Mapping[str, Any]], *, detailed: bool = False) -> None:
    """Result rows as a table, or one panel each with findings and report."""
    console = Console()
    if detailed:
        for row in rows:
            _show_row(console, row)
        return
    table = Table(title=f"{len(rows)} series", title_justify="left")
    for name in ("series", "status", "kind", "voxels z y x", "findings", "flags or reason"):
        table.add_column(name, justify="right" if name == "findings" else "left")
    for row in rows:
        style = _STATUS_STYLE[row["status"]]
        found = row["findings"]
        table.add_row(
            row["series_key"][:12],
            f"[{style}]{row['status']}[/]",
            row["kind"] or "",
            " ".join(map(str, row["shape_zyx"] or ())),
            "" if found is None else str(len(found)),
            row["reason"] or ", ".join(row["flags"] or ()),
        )
    console.print(table)


def _show_row(console: Console, row: Mapping[str, Any]) -> None:
    from raypipe.sink.schema import has_scale

    lines = [f"status {row['status']}"]
    if row["reason"]:
        stage = f" (stage {row['stage']})" if row.get("stage") else ""
        lines.append(f"{row['reason']}{stage}: {row['message']}")
    if (row.get("attempts") or 1) > 1:
        lines.append(f"begun {row['attempts']} times")
    if row["spacing_zyx_mm"]:
        spacing = " x ".join("?" if s is None else f"{s:.3f}" for s in row["spacing_zyx_mm"])
        lines.append(f"voxels {' x '.join(map(str, row['shape_zyx']))}, spacing {spacing} mm")
    if row["flags"]:
        lines.append("flags " + ", ".join(row["flags"]))
    console.print(Panel("\n".join(lines), title=row["series_key"], title_align="left"))
    if row["findings"]:
        console.print(_findings_table(row["findings"], has_scale=has_scale(row)))
    report = row["report"]
    if report:
        text = f"[bold]Technique[/]\n{report['technique']}\n"
        for section in ("findings", "impression"):
            text += f"\n[bold]{section.capitalize()}[/]\n"
            text += "\n".join(_escape(s["text"]) for s in report[section]) + "\n"
        if report["needs_review"]:
            text += f"\n[red]Needs review: {', '.join(report['review_reasons'])}[/]\n"
        console.print(Panel(text.rstrip(), title="report", subtitle=report["model"]))


def _findings_table(findings: Sequence[Mapping[str, Any]], *, has_scale: bool) -> Table:
    """One line a finding; without a scale no size is told."""
    table = Table()
    for name in ("id", "label", "side", "level", "mm", "mean HU", "score", "slice from 1"):
        table.add_column(name)
    for f in findings:
        table.add_row(
            f["finding_id"],
            f["label"],
            f["side"] or "",
            f["level"] or "",
            f"{f['diameter_mm']:.1f}" if has_scale else "",
            "" if f["mean_hu"] is None else f"{f['mean_hu']:.0f}",
            f"{f['score']:.2f}",
            str(f["key_slice"] + 1),
        )
    return table


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def show_pipeline_bench(result: PipelineResult) -> None:
    """The job against the ideal of a plain loop."""
    console = Console()
    table = Table(title=f"{result.series} series on {result.cores} cores", title_justify="left")
    for name in ("", "seconds", "repetitions"):
        table.add_column(name, justify="left")
    table.add_row("plain loop, one process", f"{result.loop_s:.2f}", _times(result.loop_runs_s))
    for stage, seconds in result.loop_stage_s.items():
        table.add_row(f"  {stage}", f"{seconds:.2f}", "")
    table.add_row("ideal: loop over the cores", f"{result.ideal_s:.2f}", "")
    table.add_row("raypipe job", f"{result.job_s:.2f}", _times(result.job_runs_s))
    table.add_row("[bold]job over ideal[/]", f"[bold]{result.ratio_to_ideal:.3f}[/]", "")
    for peer in result.peers:
        table.add_row(
            f"the same stages under {peer.name}", f"{peer.seconds:.2f}", _times(peer.runs_s)
        )
        table.add_row("  over the job", f"{peer.ratio:.3f}", f"rows equal: {peer.same_rows:.0%}")
    console.print(table)


def show_memory_bench(result: MemoryResult) -> None:
    """Memory over time of a short and a long job."""
    console = Console()
    table = Table(title="Memory, highest in each fifth of the run, MiB", title_justify="left")
    for name in ("series", "of", *(f"{i * 20}-{i * 20 + 20} %" for i in range(5))):
        table.add_column(name, justify="right")
    for run in (result.short, result.long):
        for field in ("driver_mib", "object_store_mib", "all_mib"):
            fifths = [f"{run.peak(field, i / 5, (i + 1) / 5):,.0f}" for i in range(5)]
            table.add_row(str(run.series), field.removesuffix("_mib").replace("_", " "), *fifths)
    console.print(table)
    for run in (result.short, result.long):
        console.print(f"{run.series} series: {run.seconds_per_series:.4f} s per series")
    console.print(f"[bold]peak of all memory, long over short: {result.peak_ratio:.3f}[/]")
    console.print(f"[bold]cost per series, long over short: {result.cost_ratio:.3f}[/]")


def _times(seconds: Sequence[float]) -> str:
    return " ".join(f"{s:.2f}" for s in seconds)
