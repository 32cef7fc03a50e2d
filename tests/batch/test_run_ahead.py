"""The rows of a long manifest do not all wait at once, nor do prepared series.

The operators are stand-ins: how far a real queue grows depends on how fast workers start.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.batch.run_ahead import RunAhead

SPLITTER = "StreamingRepartition[num_rows_per_block=1,strict=False]"
LOADER = "MapBatches(load_and_prepare)"
DETECTOR = "MapBatches(_DetectActor)"


class _Operator:
    """What the policy asks an operator for."""

    def __init__(self, name: str, running: int = 0, reader: "_Operator | None" = None) -> None:
        self.name, self.output_dependencies = name, [reader]
        self.num_active_tasks = lambda: running
        self.metrics = SimpleNamespace(average_bytes_per_output=1000.0)


def _policy(name: str, reader_name: str, waiting: int, running: int) -> tuple[RunAhead, _Operator]:
    """An operator before one that runs so many tasks, for which so many blocks wait."""
    reader = _Operator(reader_name, running)
    state = SimpleNamespace(total_enqueued_input_blocks=lambda: waiting)
    topology: Any = {reader: state}
    nothing: Any = None
    return RunAhead(nothing, topology, nothing), _Operator(name, 0, reader)


@pytest.mark.parametrize(
    ("waiting", "running", "rows"),
    [(0, 0, 64), (60, 2, 4), (64, 2, 0), (200, 2, 0), (200, 100, 200)],
)
def test_as_many_rows_are_split_off_as_may_wait(waiting: int, running: int, rows: int) -> None:
    policy, splitter = _policy(SPLITTER, LOADER, waiting, running)
    assert policy.max_task_output_bytes_to_read(splitter) == rows * 1000
    assert policy.can_add_input(splitter)


@pytest.mark.parametrize(
    ("waiting", "running", "may"),
    [(0, 0, True), (15, 4, True), (16, 4, False), (16, 5, True), (100, 25, False)],
)
def test_no_series_is_loaded_while_enough_wait_for_networks(
    waiting: int, running: int, may: bool
) -> None:
    policy, loader = _policy(LOADER, DETECTOR, waiting, running)
    assert policy.can_add_input(loader) is may
    assert policy.max_task_output_bytes_to_read(loader) is None


def test_other_operators_are_left_alone() -> None:
    policy, detector = _policy(DETECTOR, "MapBatches(_DescribeActor)", 1000, 0)
    assert policy.max_task_output_bytes_to_read(detector) is None
    assert policy.can_add_input(detector)
