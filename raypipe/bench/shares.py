"""A share of this machine's CPU for what is started now: a small node of a cluster.

In: a name, cores. Out: a control group, whose processes get no more time than so many cores have.
Does not know: what is started.

By the kernel's control groups, version 2 (cpu.max) or 1 (cpu/cpu.cfs_quota_us), which needs root.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raypipe.errors import ConfigError

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US, _LEAST_US = 100_000, 1_000
_TRIES, _PAUSE_S = 50, 0.2


@contextmanager
def cpu_share(name: str, cores: float) -> Iterator[Path]:
    """A control group with a share of this machine's CPU; it goes at the end.

    Args:
        name: of the group; no other may have it.
        cores: a fraction maybe.

    Raises:
        ConfigError: the kernel does not let this process limit CPU time.
    """
    group, quota = _controller() / name, int(cores * _PERIOD_US)
    if quota < _LEAST_US:
        raise ConfigError(
            f"a share of {cores:g} cores is less than the {_LEAST_US / _PERIOD_US:g} that the "
            "kernel can give: ask for fewer nodes"
        )
    with _refused(group):
        if _is_version_2():
            (_ROOT / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
    try:
        with _refused(group):
            if _is_version_2():
                (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
            else:
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
        yield group
    finally:
        _remove(group)


@contextmanager
def started_in(group: Path) -> Iterator[None]:
    """Whatever this process starts meanwhile belongs to a group, and so does what that starts."""
    own = _own_group()
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (own / "cgroup.procs").write_text(str(os.getpid()))


@contextmanager
def _refused(group: Path) -> Iterator[None]:
    """What the kernel does not let this process do with a group, as ConfigError."""
    try:
        yield
    except OSError as error:
        # one that refuses what is written does not tell its name
        raise ConfigError(
            f"a share of the CPU needs control groups, and {error.filename or group} refuses "
            f"({error.strerror}): run as root, in a container with --privileged"
        ) from error


def _remove(group: Path) -> None:
    """Wait for processes that are slow to end; one that never does keeps the group."""
    for _ in range(_TRIES):
        with suppress(OSError):
            group.rmdir()
            return
        time.sleep(_PAUSE_S)


def _is_version_2() -> bool:
    return (_ROOT / "cgroup.controllers").exists()


def _controller() -> Path:
    return _ROOT if _is_version_2() else _ROOT / "cpu"


def _own_group() -> Path:
    """Where this process is now; a line of /proc/self/cgroup is number:controllers:path."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    wanted = "" if _is_version_2() else "cpu"
    path = next((path for _, names, path in lines if wanted in names.split(",")), "/")
    return _controller() / path.lstrip("/")
