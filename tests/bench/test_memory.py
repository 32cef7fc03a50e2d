"""The memory of a job: what its numbers are made of."""

import subprocess
import sys

import psutil
import pytest

from raypipe.bench.memory import MemoryRun, MemorySample, _own_bytes, highest_mib
from raypipe.errors import RaypipeError


def test_peaks_of_parts_of_a_run() -> None:
    samples = [
        MemorySample(at_s=float(i), driver_mib=10.0 * i, object_store_mib=5.0, all_mib=100.0 - i)
        for i in range(11)
    ]
    run = MemoryRun(series=20, seconds=10.0, samples=samples)
    assert run.seconds_per_series == 0.5
    assert run.peak("driver_mib", 0.0, 0.5) == 50.0 and run.peak("driver_mib", 0.8, 1.0) == 100.0
    assert run.peak("all_mib", 0.0, 1.0) == 100.0


def test_a_run_that_was_over_before_its_memory_was_read_is_refused() -> None:
    before = MemorySample(at_s=-1.0, driver_mib=1.0, object_store_mib=1.0, all_mib=1.0)
    run = MemoryRun(series=2, seconds=0.4, samples=[before])
    with pytest.raises(RaypipeError, match=r"2 series took 0\.4 s.* ask for more"):
        highest_mib(run)
    within = before.model_copy(update={"at_s": 0.2, "all_mib": 3.0})
    assert highest_mib(run.model_copy(update={"samples": [before, within]})) == 3.0


def test_own_memory_of_a_process_and_of_one_that_is_gone() -> None:
    code = "b = bytearray(64 << 20); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdout.readline()
        process = psutil.Process(child.pid)
        assert _own_bytes(process) == pytest.approx(70 << 20, rel=0.2)
        child.stdin.close()
    assert _own_bytes(process) == 0
