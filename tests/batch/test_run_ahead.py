"""The rows of a long manifest do not all wait at once.

The operators are stand-ins: how far a real queue grows depends on how fast workers start.
"""

from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.batch.run_ahead import RunAhead


class _Operator:
    """What the policy asks an operator for."""

    def __init__(self, name: str, running: int = 0, reader: "_Operator | None" = None) -> None:
        self.name, self.output_dependencies = name, [reader]
        self.num_active_tasks = lambda: running
        self.metrics = SimpleNamespace(average_bytes_per_output=1000.0)


def _policy(waiting: int, running: int) -> tuple[RunAhead, _Operator]:
    loader = _Operator("MapBatches(load_and_prepare)", running)
    state = SimpleNamespace(total_enqueued_input_blocks=lambda: waiting)
    topology: Any = {loader: state}
    nothing: Any = None
    splitter = _Operator("StreamingRepartition[num_rows_per_block=1,strict=False]", 0, loader)
    return RunAhead(nothing, topology, nothing), splitter


@pytest.mark.parametrize(
    ("waiting", "running", "rows"),
    [(0, 0, 64), (60, 2, 4), (64, 2, 0), (200, 2, 0), (200, 100, 200)],
)
def test_as_many_rows_are_split_off_as_may_wait(waiting: int, running: int, rows: int) -> None:
    policy, splitter = _policy(waiting, running)
    assert policy.max_task_output_bytes_to_read(splitter) == rows * 1000


def test_other_operators_are_left_alone() -> None:
    policy, _ = _policy(1000, 0)
    assert policy.max_task_output_bytes_to_read(_Operator("MapBatches(load_and_prepare)")) is None
