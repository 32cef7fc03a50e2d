"""Look into Ray Data's executor while it runs, and end it when the run has to stop.

In: the executor, at every step of its loop. Out: queues and busy shares of the pools.
Does not know: what is done with them.

Ray Data makes the callback itself, from its class, in the process of the driver; the class is told
beforehand whom to call. What `on_step` raises ends the run like any other fault of the executor.

Every operator of Ray Data remembers size and times of each block it ever gave out, for a summary
that nobody reads here: some kilobytes a series, without end. Only the last few are kept.

Ray Data only asks the tasks of a run that ended early to stop: one that is writing may commit its
rows later. `wait_for_writers` waits until it has.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.exceptions import RayError

_STAGE_OF = {"load_and_prepare": "load", "_DetectActor": "detect", "_DescribeActor": "describe"}
_WRITER = "Write"  # the end of the operator's name, whatever it was fused with
_WRITERS_S = 60.0
_REMEMBERED_BLOCKS = 64


@dataclass(frozen=True)
class PoolState:
    """One stage at one moment.

    Args:
        queue: blocks that wait for it.
        busy: share of its actors that have work; None for tasks.
    """

    queue: int
    busy: float | None


class ExecutorWatch(ExecutionCallback):
    """Calls `on_step` with the state of every stage."""

    on_step: ClassVar[Callable[[Callable[[], dict[str, PoolState]]], None] | None] = None
    writing: ClassVar[list[Any]] = []
    """For each task that writes rows, what is ready as soon as it has ended."""

    def on_execution_step(self, executor: Any) -> None:
        """Called by Ray Data after every step; the state is only computed when it is asked for."""
        type(self).writing = [
            task.get_waitable()._generator_ref
            for operator in executor._topology
            if operator.name.endswith(_WRITER)
            for task in operator.get_active_tasks()
        ]
        for operator in executor._topology:
            del getattr(operator, "_output_blocks_stats", [])[:-_REMEMBERED_BLOCKS]
        called = type(self).on_step
        if called is not None:
            called(lambda: pool_states(executor))


def wait_for_writers() -> None:
    """After a run that ended early: wait for what it was writing, as long as that may take."""
    writing, ExecutorWatch.writing = ExecutorWatch.writing, []
    if writing and ray.is_initialized():
        with contextlib.suppress(RayError):  # a cluster that went away writes no more
            ray.wait(writing, num_returns=len(writing), timeout=_WRITERS_S)


def pool_states(executor: Any) -> dict[str, PoolState]:
    """The stages of the job in this executor; none of them in one that reads a checkpoint."""
    states = {}
    for operator, state in executor._topology.items():
        stage = next((s for name, s in _STAGE_OF.items() if name in operator.name), None)
        if stage is not None:
            states[stage] = PoolState(state.total_enqueued_input_blocks(), _busy(operator))
    return states


def _busy(operator: Any) -> float | None:
    pool = getattr(operator, "_actor_pool", None)
    if pool is None:
        return None
    return float(pool.num_active_actors() / max(1, pool.num_running_actors()))
