"""Cores by affinity and by a container's quota."""

import os
from pathlib import Path

import pytest

from raypipe.cores import usable_cores

ALLOWED = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000\n", ALLOWED),
        ("100000 100000\n", 1),
        ("20000 100000\n", 1),
        (f"{100000 * (ALLOWED + 3)} 100000\n", ALLOWED),
    ],
)
def test_the_quota_of_version_2_limits_the_cores(tmp_path: Path, text: str, cores: int) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert usable_cores(tmp_path) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", ALLOWED), ("50000\n", 1)])
def test_the_quota_of_version_1_limits_the_cores(tmp_path: Path, quota: str, cores: int) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert usable_cores(tmp_path) == cores


def test_no_control_group_leaves_the_affinity(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == ALLOWED
