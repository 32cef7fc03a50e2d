"""Each benchmark's figure shows what was measured."""

import pytest
from matplotlib.figure import Figure

from raypipe.bench import figures
from raypipe.bench.ingest import OURS, OURS_FILE, PEERS, IngestResult, SeriesTimes, ToolTime
from raypipe.bench.memory import MemoryResult, MemoryRun, MemorySample
from raypipe.bench.pipeline import PeerTime, PipelineResult
from raypipe.bench.preprocess import PreprocessResult, ToolResult
from raypipe.bench.reports import ReportsBenchResult, Speed
from raypipe.bench.scale import NodeTimes, ScaleResult
from raypipe.bench.serve import ServeBenchResult
from raypipe.bench.serve_load import LoadResult
from raypipe.bench.start import StartResult, StartTime


def _bars(figure: Figure) -> dict[str, float]:
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    return dict(zip(names, (bar.get_width() for bar in axes.patches), strict=True))  # type: ignore[attr-defined]


def _curves(figure: Figure) -> dict[str, list[float]]:
    (axes,) = figure.axes
    return {str(line.get_label()): list(map(float, line.get_ydata())) for line in axes.lines}  # type: ignore[arg-type]


def _tool(name: str, seconds: float) -> ToolTime:
    return ToolTime(tool=name, warm_s=seconds, warm_runs_s=(seconds,), cold_s=seconds)


def test_bars() -> None:
    peer = PeerTime(name="daft", seconds=4.0, runs_s=[4.0], ratio=2.0, same_rows=1.0)
    pipeline = PipelineResult.model_construct(
        series=9,
        job_s=2.0,
        job_runs_s=[2.0],
        peers=[peer],
        loop_s=3.0,
        loop_runs_s=[3.0],
        ideal_s=1.5,
    )
    assert _bars(figures.pipeline_figure(pipeline)) == {
        "raypipe job": 2.0,
        "daft": 4.0,
        "plain loop, one core": 3.0,
    }
    series = SeriesTimes(
        name="a",
        slices=1,
        megabytes=1.0,
        times=(_tool(OURS, 1.0), _tool(OURS_FILE, 2.0), *(_tool(name, 4.0) for name in PEERS)),
        same_voxels=True,
    )
    ingest = IngestResult.model_construct(series=(series,), all_cores_s=dict.fromkeys(PEERS, 1.0))
    bars = _bars(figures.ingest_figure(ingest))
    assert bars["dcm2niix, one series at a time"] == 2.0
    assert bars["SimpleITK, one series at a time"] == bars["dicom2nifti, all cores"] == 4.0
    tools = tuple(
        ToolResult(name=n, seconds=s, runs_s=(s,), largest_hu_gap=0.0, mean_hu_gap=0.0)
        for n, s in (("raypipe", 1.0), ("MONAI", 3.0))
    )
    preprocess = PreprocessResult.model_construct(shape_zyx=(9, 8, 8), tools=tools)
    assert _bars(figures.preprocess_figure(preprocess)) == {"raypipe": 1.0, "MONAI": 3.0}
    speed = Speed.model_construct(kind="held", peer="vllm", ratio=1.5, ratio_spread=(1.0, 2.0))
    reports = ReportsBenchResult.model_construct(speeds=(speed,))
    assert _bars(figures.reports_figure(reports)) == {"vllm, held": 1.5}
    start = StartResult.model_construct(
        times=(StartTime(name="cold", first_s=9.0, runs_s=(8.0, 9.0, 10.0)),)
    )
    assert _bars(figures.start_figure(start)) == {"cold": 9.0}


def test_curves() -> None:
    samples = [
        MemorySample(at_s=float(i), driver_mib=1.0, object_store_mib=1.0, all_mib=10.0 + i)
        for i in range(3)
    ]
    run = MemoryRun(series=1000, seconds=2.0, samples=samples)
    memory = MemoryResult.model_construct(short=run.model_copy(update={"series": 10}), long=run)
    curves = _curves(figures.memory_figure(memory))
    assert curves["10 series"] == curves["1,000 series"] == [10.0, 11.0, 12.0]
    loads = [
        LoadResult.model_construct(clients=n, median_s=1.0 * n, p95_s=2.0 * n, p99_s=3.0 * n)
        for n in (1, 2)
    ]
    serve = ServeBenchResult.model_construct(loads=loads)
    assert _curves(figures.serve_figure(serve))["99 %"] == [3.0, 6.0]
    times = tuple(
        NodeTimes(
            nodes=n,
            seconds=8.0 / n,
            runs_s=(),
            speedup=0.9 * n,
            efficiency=0.9,
            head_busy=0.0,
        )
        for n in (1, 2, 4)
    )
    scale = ScaleResult.model_construct(cores_per_node=0.5, times=times)
    assert _curves(figures.scale_figure(scale)) == {
        "ideal": [1.0, 2.0, 4.0],
        "raypipe job": pytest.approx([0.9, 1.8, 3.6]),
    }
