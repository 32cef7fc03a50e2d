"""A call that crashes, hangs or swells costs itself alone, and says so."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from raypipe.archive.index import build_index
from raypipe.archive.isolation import IsolationConfig, end_idle, isolated
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.config import load_config
from raypipe.errors import Reason, SeriesError, Status
from raypipe.phantom import write_bulk_archive
from tests.archive import misbehaving


def call(function: Callable[..., Any], *args: Any, seconds: float = 60.0, gib: float = 4.0) -> Any:
    return isolated(function, *args, seconds=seconds, memory_gib=gib)


def fault(function: Callable[..., Any], *args: Any, **limits: float) -> SeriesError:
    with pytest.raises(SeriesError) as caught:
        call(function, *args, **limits)
    assert caught.value.status is Status.FAILED
    return caught.value


def test_arrays_come_back_equal_aligned_and_writable() -> None:
    got = call(misbehaving.volumes, 3_000_001)
    wanted = misbehaving.volumes(3_000_001)
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype
    assert got["big"].flags.writeable and got["small"].ctypes.data % 64 == 0
    got["big"] += 1
    kept = got["big"].copy()
    call(misbehaving.volumes, 3_000_001)  # the next result does not lie where this one does
    np.testing.assert_array_equal(got["big"], kept)


def test_one_child_serves_call_after_call_and_several_serve_threads() -> None:
    first = call(misbehaving.process_id)
    assert first != os.getpid()
    assert {call(misbehaving.process_id) for _ in range(5)} == {first}
    with ThreadPoolExecutor(2) as pool:
        values = list(pool.map(lambda n: call(misbehaving.volumes, n)["big"].size, range(1, 20)))
    assert values == list(range(1, 20))


def test_a_crash_is_told_by_its_signal() -> None:
    error = fault(misbehaving.crash)
    assert (error.reason, error.message) == (
        Reason.DECODER_CRASHED,
        "the decoder process ended with SIGSEGV",
    )
    assert fault(misbehaving.end_with, signal.SIGABRT).message.endswith("SIGABRT")
    assert call(misbehaving.process_id), "another child works on"


def test_a_hang_is_cut_off_also_in_native_code() -> None:
    started = time.monotonic()
    error = fault(misbehaving.hang, seconds=0.5)
    assert error.reason is Reason.DECODER_TIMEOUT
    assert 0.5 <= time.monotonic() - started < 5.0
    assert fault(misbehaving.end_with, signal.SIGALRM).reason is Reason.DECODER_TIMEOUT


def test_runaway_memory_is_cut_off() -> None:
    error = fault(misbehaving.eat, gib=0.6)
    assert error.reason is Reason.DECODER_MEMORY
    assert "0.60 GiB" in error.message
    assert fault(misbehaving.no_memory).reason is Reason.DECODER_MEMORY
    # the kernel ends the largest process with this when the machine runs out of memory
    assert fault(misbehaving.end_with, signal.SIGKILL).reason is Reason.DECODER_MEMORY


@pytest.mark.parametrize("end", ["kills", "fails"])
def test_memory_that_runs_out_while_a_volume_is_handed_over(end: str) -> None:
    error = fault(misbehaving.volume_whose_handing_over, end)
    assert error.reason is Reason.DECODER_MEMORY
    end_idle()  # the child is spoiled


def test_a_child_that_kept_much_memory_is_replaced() -> None:
    first = call(misbehaving.process_id)
    held = psutil.Process(first).memory_info().rss / 2**30
    assert call(misbehaving.process_id, gib=held * 1.5) == first
    assert call(misbehaving.process_id) != first


def test_errors_of_the_function_arrive_as_they_are() -> None:
    with pytest.raises(SeriesError) as caught:
        call(misbehaving.refuse)
    assert (caught.value.reason, caught.value.message) == (Reason.SLICE_GAP, "3 slices are missing")
    with pytest.raises(ZeroDivisionError):
        call(misbehaving.divide)
    with pytest.raises(RuntimeError, match="OddError"):
        call(misbehaving.odd)


def test_no_child_outlives_its_parent() -> None:
    """Neither an idle one, nor one that hangs in native code while the parent is killed."""
    code = (
        "from raypipe.archive.isolation import isolated\n"
        "from tests.archive import misbehaving as m\n"
        "print(isolated(m.process_id, seconds=9, memory_gib=4), flush=True)\n"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    code += "isolated(m.kill_parent_then_hang, seconds=0.1, memory_gib=4)"
    killed = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL
    children = [int(run.stdout) for run in (ended, killed)]
    deadline = time.monotonic() + 30
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(_runs(child) for child in children)


def _runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_series_read_apart_is_the_series_read_here(tmp_path: Path) -> None:
    write_bulk_archive(tmp_path / "a", n_series=1, seed=2, shape_zyx=(4, 64, 64))
    config = load_config()
    build_index(str(tmp_path / "a"), str(tmp_path / "m"), config.index, lambda *_: None)
    ref = series_ref(read_manifest(str(tmp_path / "m"), config.archive.storage).to_pylist()[0])
    apart, here = (
        read_series(ref, ArchiveConfig(isolation=IsolationConfig(mode=mode)))
        for mode in ("process", "none")
    )
    np.testing.assert_array_equal(apart.hu, here.hu)
    assert (apart.flags, apart.instance_uids) == (here.flags, here.instance_uids)


def test_limits_do_not_change_what_results_are_compared_by() -> None:
    strict = load_config(overrides=["archive.isolation.time_limit_s=5"])
    assert strict.result_hash == load_config().result_hash
    assert strict.archive.isolation.seconds(2_000_000) == 7.0


def test_a_child_sees_the_environment_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPIPE_TEST_COLOUR", "red")
    assert isolated(os.getenv, "RAYPIPE_TEST_COLOUR", seconds=60, memory_gib=2) == "red"
    monkeypatch.setenv("RAYPIPE_TEST_COLOUR", "blue")
    assert isolated(os.getenv, "RAYPIPE_TEST_COLOUR", seconds=60, memory_gib=2) == "blue"
