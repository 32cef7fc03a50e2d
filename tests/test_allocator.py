"""Freed memory is kept; each case in its own process, as the setting is the process's."""

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


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_freed_block_is_not_fetched_again() -> None:
    faults = {told: _faults(told) for told in (False, True)}
    assert faults[True] < faults[False] / 4


def _faults(told: bool) -> int:
    command = [sys.executable, "-c", _FAULTS.format(told=told)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
