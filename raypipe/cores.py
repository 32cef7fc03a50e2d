"""How many cores this process may use.

In: the scheduler's mask and the container's quota. Out: a number.
Does not know: what runs on them.
"""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Cores by affinity, fewer where a container's CPU quota is smaller; at least 1.

    Args:
        cgroup: the control group's folder, of version 2 (cpu.max) or 1 (cpu/cpu.cfs_quota_us).
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, int(quota + 0.5)))


def _quota(cgroup: Path) -> float | None:
    """Cores' worth of time that the container gets; None without a limit."""
    try:
        limit, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return int(limit) / int(period) if limit not in ("max", "-1") else None
