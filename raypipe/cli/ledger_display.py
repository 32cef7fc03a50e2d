"""How the state of an output folder and its audit look in a terminal.

In: a RunStatus, an Audit. Out: rich tables. Does not know: how anything is found out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from datetime import datetime

    from raypipe.batch.status import RunStatus
    from raypipe.batch.verify import Audit

_SHOWN = 5
_EXPLAINED = {
    "missing": "series of the manifest without a row",
    "double": "series with more than one row",
    "orphan": "rows of series that the manifest lacks",
    "uncommitted": "rows that the checkpoint lacks",
    "lost": "series done by the checkpoint, but without a row",
    "damaged": "result files that cannot be read",
    "other_schema": "result files with other columns",
}


def show_status(status: RunStatus, output: str) -> None:
    """What is done, what is left, why series failed, how long it takes."""
    table = Table(title=f"Run {output}", title_justify="left", show_header=False)
    table.add_row("state", f"{status.state} {status.message}".strip())
    table.add_row("series", f"{status.done} of {status.total} done, {status.left} left")
    table.add_row("status", _counted(status.status_counts))
    for name, counts in (
        ("failed", status.failed_by_reason),
        ("rejected", status.rejected_by_reason),
    ):
        if counts:
            table.add_row(name, _counted(counts))
    table.add_row("attempts", f"{status.attempts} for {status.done} rows")
    table.add_row("in flight", f"{status.in_flight} series in a stage, or their worker died there")
    if status.series_per_hour is not None:
        table.add_row("speed", f"{status.series_per_hour:,.0f} series/h")
    if status.eta_s is not None:
        table.add_row("time left", _duration(status.eta_s))
    if status.paused_until is not None:
        table.add_row("paused until", f"{status.paused_until:%Y-%m-%d %H:%M %Z}")
    for stage, share in status.busy.items():
        table.add_row(f"{stage} actors", f"{share:.0%} busy")
    if status.advice:
        table.add_row("advice", f"[yellow]{status.advice}[/]")
    table.add_row("last activity", _moment(status.last_activity))
    Console().print(table)


def show_audit(audit: Audit, output: str) -> None:
    """Every kind of fault with how many, and the first few of each."""
    console = Console()
    table = Table(title=f"Audit {output}", title_justify="left", show_header=False)
    table.add_row("series in the manifest", str(audit.series_in_manifest))
    table.add_row("rows", f"{audit.rows} in {audit.files} files")
    for kind, meaning in _EXPLAINED.items():
        found: Iterable[str] = getattr(audit, kind)
        listed = [f"{k}: {v}" for k, v in found.items()] if isinstance(found, Mapping) else [*found]
        more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
        text = f"[red]{len(listed)}[/] {', '.join(listed[:_SHOWN])}{more}" if listed else "0"
        table.add_row(meaning, text)
    if audit.in_flight:
        table.add_row("files of a run at work, or killed", str(len(audit.in_flight)))
    console.print(table)
    if audit.problems:
        console.print("[red]Not every series is there once and whole.[/]")
        console.print("The same `raypipe run` command does again what is missing.")
    else:
        console.print("[green]Every series is there once; every file is as it was written.[/]")


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in counts.items()) or "none"


def _moment(moment: datetime | None) -> str:
    return "no run has told" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S %Z}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60.0)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{max(1, minutes)} min"
