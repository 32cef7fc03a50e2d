"""The memory of a job: what its numbers are made of."""

import subprocess
import sys

import psutil
import pytest

from raypipe.bench.memory import MemoryRun, MemorySample, _own_bytes


def test_peaks_of_parts_of_a_run() -> None:
    samples = [
        MemorySample(at_s=float(i), driver_mib=10.0 * i, object_store_mib=5.0, all_mib=100.0 - i)
        for i in range(11)
    ]
    run = MemoryRun(series=20, seconds=10.0, samples=samples)
    assert run.seconds_per_series == 0.5
    assert run.peak("driver_mib", 0.0, 0.5) == 50.0 and run.peak("driver_mib", 0.8, 1.0) == 100.0
    assert run.peak("all_mib", 0.0, 1.0) == 100.0


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
