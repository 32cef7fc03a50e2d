"""How many rows of the manifest may wait for a loader.

In: the executor's queues. Out: how much more Ray Data may split off.
Does not know: what a row is.

Ray Data holds rows back by their bytes alone. Those of a manifest are so small that all of a long
one would wait at once, and each costs the driver some kilobytes.
"""

from typing import Any

from ray.data._internal.execution.backpressure_policy import ENABLED_BACKPRESSURE_POLICIES
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy

_SPLITTER = "StreamingRepartition"
_AT_LEAST = 64
_PER_TASK = 4
"""Rows that may wait: for each loading task that runs, and never fewer than _AT_LEAST."""


class RunAhead(BackpressurePolicy):
    """Ray Data splits off no more rows while more wait than the loaders soon begin."""

    def max_task_output_bytes_to_read(self, op: Any) -> int | None:
        """Bytes of about as many rows as may still wait: 0 holds it back, None is no limit."""
        if not op.name.startswith(_SPLITTER):
            return None
        (loader,) = op.output_dependencies
        waiting = self._topology[loader].total_enqueued_input_blocks()
        room = max(_AT_LEAST, _PER_TASK * loader.num_active_tasks()) - waiting
        return int(max(0, room) * (op.metrics.average_bytes_per_output or 1))


POLICIES = (*ENABLED_BACKPRESSURE_POLICIES, RunAhead)
"""Ray's own, and this one."""
