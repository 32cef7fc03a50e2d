"""The figure of each benchmark's result.

In: a result. Out: a figure. Does not know: how anything was measured, how figures look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raypipe.bench.plots import Bar, bar_figure, curve_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from raypipe.bench.ingest import IngestResult
    from raypipe.bench.memory import MemoryResult
    from raypipe.bench.pipeline import PipelineResult
    from raypipe.bench.preprocess import PreprocessResult
    from raypipe.bench.reports import ReportsBenchResult
    from raypipe.bench.scale import ScaleResult
    from raypipe.bench.serve import ServeBenchResult
    from raypipe.bench.start import StartResult


def pipeline_figure(result: PipelineResult) -> Figure:
    """Job, loop and peers beside the ideal."""
    bars = [
        Bar("raypipe job", result.job_s, result.job_runs_s),
        *(Bar(peer.name, peer.seconds, peer.runs_s) for peer in result.peers),
        Bar("plain loop, one core", result.loop_s, result.loop_runs_s),
    ]
    return bar_figure(bars, x=f"seconds, {result.series} series", mark=("ideal", result.ideal_s))


def memory_figure(result: MemoryResult) -> Figure:
    """Memory of all processes over the run, short and long."""
    curves = {
        f"{run.series:,} series": (
            [sample.at_s / run.seconds for sample in run.samples],
            [sample.all_mib for sample in run.samples],
        )
        for run in (result.short, result.long)
    }
    return curve_figure(curves, x="share of the run", y="memory of all processes, MiB")


def ingest_figure(result: IngestResult) -> Figure:
    """Every peer's time over raypipe's to the same end, one series at a time and on all cores."""
    bars = []
    for peer, together_s in result.all_cores_s.items():
        theirs, ours = result.total_s(peer)
        bars.append(Bar(f"{peer}, one series at a time", theirs / ours))
        bars.append(Bar(f"{peer}, all cores", theirs / together_s))
    return bar_figure(bars, x="time over raypipe's", mark=("raypipe", 1.0))


def preprocess_figure(result: PreprocessResult) -> Figure:
    """Seconds of each tool."""
    bars = [Bar(tool.name, tool.seconds, tool.runs_s) for tool in result.tools]
    return bar_figure(bars, x=f"seconds, {result.shape_zyx[0]} slices")


def reports_figure(result: ReportsBenchResult) -> Figure:
    """raypipe's tokens a second over those of each engine."""
    bars = [
        Bar(f"{speed.peer}, {speed.kind}", speed.ratio, speed.ratio_spread)
        for speed in result.speeds
    ]
    return bar_figure(bars, x="raypipe's tokens/s over its own", mark=("equal", 1.0))


def serve_figure(result: ServeBenchResult) -> Figure:
    """Time to the result over the number of callers."""
    clients = [float(load.clients) for load in result.loads]
    curves = {
        "median": (clients, [load.median_s for load in result.loads]),
        "95 %": (clients, [load.p95_s for load in result.loads]),
        "99 %": (clients, [load.p99_s for load in result.loads]),
    }
    return curve_figure(curves, x="callers at a time", y="seconds to the result")


def scale_figure(result: ScaleResult) -> Figure:
    """Speedup over the number of nodes."""
    nodes = [float(t.nodes) for t in result.times]
    return curve_figure(
        {"raypipe job": (nodes, [t.speedup for t in result.times])},
        x=f"nodes of {result.cores_per_node:g} cores",
        y=f"speedup over {result.times[0].nodes}",
        ideal=(nodes, [n / nodes[0] for n in nodes]),
    )


def start_figure(result: StartResult) -> Figure:
    """Seconds to the first finished series."""
    bars = [Bar(t.name, t.first_s, t.runs_s) for t in result.times]
    return bar_figure(bars, x="seconds to the first finished series")
