"""Freed memory is kept, heaps are few; each case in its own process, as the setting is its."""

import os
import subprocess
import sys

import pytest

_FAULTS = """
import resource
import torch
from raypipe.allocator import keep_freed_memory
if {told}:
    keep_freed_memory()
for _ in range(16):  # until the heap has found its size
    torch.ones(1 << 24).sum()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):
    torch.ones(1 << 24).sum()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

_HEAPS = """
import ctypes
import threading
from raypipe.allocator import share_heaps
if {told}:
    share_heaps()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(8)
def take():
    together.wait()
    libc.malloc(ctypes.c_size_t(1000))
    together.wait()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


_ARROW = """
import subprocess, sys
import pyarrow as pa
from raypipe.allocator import share_heaps
if {told}:
    share_heaps()
print(pa.default_memory_pool().backend_name, flush=True)
code = "import pyarrow as pa; print(pa.default_memory_pool().backend_name)"
subprocess.run([sys.executable, "-c", code], check=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_freed_block_is_not_fetched_again() -> None:
    faults = {told: _faults(told) for told in (False, True)}
    assert faults[True] < faults[False] / 4


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_threads_share_two_heaps() -> None:
    assert _heaps(told=False) > 2
    assert _heaps(told=True) == 2


def test_arrow_takes_from_the_same_heaps_here_and_in_children() -> None:
    assert _arrow_pools(told=True) == ["system", "system"]
    assert "system" not in _arrow_pools(told=False)
    assert _arrow_pools(told=True, ARROW_DEFAULT_MEMORY_POOL="mimalloc") == ["mimalloc"] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_who_set_the_number_of_heaps_keeps_it() -> None:
    assert _heaps(told=True, MALLOC_ARENA_MAX="3") == 3


def _arrow_pools(told: bool, **variables: str) -> list[str]:
    """Of a process and of one that it starts."""
    name = "ARROW_DEFAULT_MEMORY_POOL"
    inherited = {key: value for key, value in os.environ.items() if key != name}
    command = [sys.executable, "-c", _ARROW.format(told=told)]
    ran = subprocess.run(
        command, check=True, capture_output=True, text=True, env=inherited | variables
    )
    return ran.stdout.split()


def _heaps(told: bool, **variables: str) -> int:
    command = [sys.executable, "-c", _HEAPS.format(told=told)]
    inherited = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    ran = subprocess.run(
        command, check=True, capture_output=True, text=True, env=inherited | variables
    )
    return ran.stdout.count("<heap nr=")


def _faults(told: bool) -> int:
    command = [sys.executable, "-c", _FAULTS.format(told=told)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
