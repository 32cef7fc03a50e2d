"""What a benchmark ran on: without it a number means nothing.

In: nothing. Out: a plain dict for the result's JSON.
Does not know: the benchmarks.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from raypipe.cores import usable_cores

_PACKAGES = ("raypipe", "ray", "torch", "pyarrow", "pydicom", "numpy")


def machine() -> dict[str, str | int]:
    """Processor, cores, memory in GiB and versions."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_gib": round(pages / 1024**3),
        "python": platform.python_version(),
        **{name: version(name) for name in _PACKAGES},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
