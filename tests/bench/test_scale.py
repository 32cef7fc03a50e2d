"""More nodes, shares of the CPU, and the model of a large archive."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from raypipe.bench.scale import Imagined, ScaleRun, bench_scale, node_times, scale_model
from raypipe.bench.shares import cpu_share, started_in
from raypipe.config import load_config
from raypipe.errors import ConfigError
from tests.tiny_detector import fast_settings


def _run(nodes: int, seconds: float, head_cpu_s: float) -> ScaleRun:
    stages = {"load": 1.0, "prepare": 1.0, "detect": 5.0, "describe": 1.0}
    return ScaleRun(nodes=nodes, seconds=seconds, head_cpu_s=head_cpu_s, stage_s=stages)


# the driver: 2 s of CPU for ten series, and 8 % of a core by the clock
RUNS = [_run(n, s, 2.0 + 0.08 * s) for n, s in ((1, 100.0), (2, 50.0), (4, 31.25), (1, 100.0))]


def _may_share(name: str) -> bool:
    try:
        with cpu_share(name, 0.5):
            return True
    except ConfigError:
        return False


needs_shares = pytest.mark.skipif(
    not _may_share("raypipe-test-may"), reason="this process may not limit CPU time"
)


def test_speedup_and_efficiency_over_the_least_number_of_nodes() -> None:
    one, two, four = node_times(RUNS)
    assert (one.nodes, one.speedup, one.efficiency, len(one.runs_s)) == (1, 1.0, 1.0, 2)
    assert (two.speedup, two.efficiency) == (2.0, 1.0)
    assert (four.speedup, four.efficiency) == (3.2, 0.8)
    assert four.head_busy == pytest.approx((2.0 + 0.08 * 31.25) / 31.25)


def test_the_model_says_what_would_end_last() -> None:
    imagined = Imagined(series=36_000, gpus=3, gpu_speedup=2.0, cores_per_gpu=5.0)
    model = scale_model(RUNS, 10, 0.5, imagined)
    # 100 s on half a core: 5 core-seconds a series, parted as 1 : 1 : 5 : 1
    assert model.core_s_per_series["detect"] == pytest.approx(5.0 * 5 / 8)
    assert model.hours["networks"] == pytest.approx(10 * (5.0 * 6 / 8) / 2.0 / 3)
    assert model.hours["loaders"] == pytest.approx(10 * (5.0 * 2 / 8) / 5.0 / 3)
    assert (model.head_busy, model.head_s_per_series) == pytest.approx((0.08, 0.2))
    assert model.hours["driver"] == pytest.approx(10 * 0.2 / 0.92)
    assert model.limit == "networks"
    faster = scale_model(RUNS, 10, 0.5, imagined.model_copy(update={"gpu_speedup": 2e3}))
    assert faster.limit == "driver"


@needs_shares
def test_what_is_started_in_a_share_gets_no_more_than_that() -> None:
    code = (
        "import time; end = time.monotonic() + 2.0\n"
        "while time.monotonic() < end: pass\n"
        "print(time.process_time())"
    )
    busy = [sys.executable, "-c", code]
    own = psutil.Process().pid
    with cpu_share("raypipe-test-share", 0.2) as group:
        with started_in(group), subprocess.Popen(busy, stdout=subprocess.PIPE) as child:
            assert str(child.pid) in (group / "cgroup.procs").read_text().split()
            told = child.communicate()[0]
        assert str(own) not in (group / "cgroup.procs").read_text().split()
    # two seconds of a fifth of a core, the start of Python included, and a period or two
    assert 0.0 < float(told) < 1.0
    assert not group.exists()


@needs_shares
def test_a_share_that_the_kernel_refuses_is_named_and_leaves_no_group() -> None:
    name = "raypipe-test-refused"
    with pytest.raises(ConfigError, match=f"{name} refuses"), cpu_share(name, 1e12):
        pass
    with pytest.raises(ConfigError, match="fewer nodes"), cpu_share(name, 0.001):
        pass
    with cpu_share(name, 0.5) as group:  # the name is free
        assert group.exists()


@needs_shares
@pytest.mark.slow
def test_the_job_runs_on_nodes_by_shares(tmp_path: Path) -> None:
    steps: list[str] = []
    result = bench_scale(
        tmp_path,
        load_config(overrides=fast_settings()),
        nodes=(1, 2),
        series=8,
        shape_zyx=(4, 64, 64),
        runs=1,
        imagined=Imagined(),
        on_step=steps.append,
    )
    assert steps == ["1 nodes, 1 of 1", "2 nodes, 1 of 1"]
    assert [t.nodes for t in result.times] == [1, 2]
    assert all(t.seconds > 0 and t.head_busy > 0 for t in result.times)
    assert set(result.model.core_s_per_series) == {"load", "prepare", "detect", "describe"}
    assert result.model.hours[result.model.limit] == max(result.model.hours.values()) > 0
