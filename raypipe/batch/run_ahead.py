"""How far a stage may run ahead of the next: rows that wait for a loader, series for a network.

In: the executor's queues. Out: how much more Ray Data may split off, whether it may load more.
Does not know: what a row is.

Ray Data holds work back by its bytes alone, and only when the object store is half full. Rows of a
manifest are so small that all of a long one would wait at once, and each costs the driver some
kilobytes; prepared series would fill gigabytes, and a long job would need more memory than a short
one.
"""

from typing import Any

from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy

_SPLITTER, _LOADER = "StreamingRepartition", "load_and_prepare"
_AT_LEAST = {_SPLITTER: 64, _LOADER: 16}
_PER_TASK = 4
"""Blocks that may wait: for each task that works on them, and never fewer than _AT_LEAST."""


class RunAhead(BackpressurePolicy):
    """A stage is held back while more wait after it than the next soon begins."""

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Bytes of about as many rows as may still wait: 0 holds it back, None is no limit."""
        if _SPLITTER not in op.name:
            return None
        room = self._room(op, _AT_LEAST[_SPLITTER])
        return int(max(0, room) * (op.metrics.average_bytes_per_output or 1))

    def can_add_input(self, op: Any) -> bool:
        """Whether a task may begin."""
        return _LOADER not in op.name or self._room(op, _AT_LEAST[_LOADER]) > 0

    def _room(self, op: Any, at_least: int) -> int:
        """How many more blocks may wait after a stage."""
        (reader,) = op.output_dependencies
        waiting = self._topology[reader].total_enqueued_input_blocks()
        return max(at_least, _PER_TASK * int(reader.num_active_tasks())) - int(waiting)


POLICIES = (*ENABLED_BACKPRESSURE_POLICIES, RunAhead)
"""Ray's own, and this one."""
