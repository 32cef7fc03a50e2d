"""The Ray Data graph of the job: stages plus resources.

    read manifest -> [Load, Prepare] tasks -> Detect actors -> Describe actors -> write Parquet

In: the files of a manifest, a config, the ledger of attempts, a gate. Out: a lazy Dataset that ends
in result rows.
Does not know: what a stage decides, where results are written, how a run resumes.
"""

from typing import Any

import pyarrow as pa
import ray

from raypipe.batch.attempts import Attempts
from raypipe.batch.guard import Guard
from raypipe.batch.metrics import observe_rows
from raypipe.batch.wire import DETECTED_SCHEMA, Row, decode_prepared, encode_prepared
from raypipe.config import ActorPool, RaypipeConfig, TaskPool
from raypipe.errors import Status
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import Describe, Detect, Load, Prepare

_GIB = 1024**3


class _LoadAndPrepare:
    """Load and Prepare in one task, so that the full volume never leaves its process."""

    def __init__(self, config: RaypipeConfig, guard: Guard, gate: Any | None) -> None:
        self._load, self._prepare = Load(config), Prepare(config)
        self._guard, self._gate = guard, gate

    def __call__(self, table: pa.Table) -> pa.Table:
        return encode_prepared(self._done(row) for row in table.to_pylist())

    def _done(self, row: Row) -> Row:
        if self._gate is not None and row["status"] == Status.OK:
            ray.get(self._gate.enter.remote(sum(i["byte_size"] for i in row["instances"])))
        return self._guard.one(row, self._work)

    def _work(self, row: Row) -> Row:
        return self._prepare(self._load(row))


class _DetectActor:
    """One network per actor."""

    def __init__(self, config: RaypipeConfig, guard: Guard) -> None:
        self._detect, self._guard = Detect(config), guard

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [self._guard.one(row, self._detect) for row in decode_prepared(table)]
        return to_table(rows, DETECTED_SCHEMA)


class _DescribeActor:
    """One engine per actor."""

    def __init__(self, config: RaypipeConfig, guard: Guard) -> None:
        self._describe, self._guard = Describe(config), guard

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = self._guard.batch(table.to_pylist(), self._describe)
        observe_rows(rows)
        return to_table(rows, RESULT_SCHEMA)


def build_graph(
    manifest: list[str],
    filesystem: Any,
    config: RaypipeConfig,
    attempts: Attempts,
    gate: Any | None = None,
) -> ray.data.Dataset:
    """The job as a lazy Dataset of result rows.

    Args:
        manifest: the manifest's Parquet files, without a protocol.
        filesystem: the pyarrow filesystem that holds them.
        config: the resolved config.
        attempts: where work is written down before it begins.
        gate: an actor that every series passes before it is read; None for none.
    """
    run = config.run
    load, detect, describe = (
        Guard(attempts, stage, run.quarantine_after) for stage in ("load", "detect", "describe")
    )
    series = ray.data.read_parquet(manifest, filesystem=filesystem)
    # read_parquet merges small files into one block, which would leave one task to do all the work
    series = series.repartition(target_num_rows_per_block=run.load.series_per_task)
    loader = _LoadAndPrepare(config, load, gate)

    def load_and_prepare(table: pa.Table) -> pa.Table:
        return loader(table)

    prepared = series.map_batches(
        load_and_prepare,
        batch_size=1,
        batch_format="pyarrow",
        **_task_resources(run.load),
    )
    detected = prepared.map_batches(
        _DetectActor,
        fn_constructor_args=(config, detect),
        batch_size=run.detect.batch_series,
        batch_format="pyarrow",
        **_actor_resources(run.detect),
    )
    return detected.map_batches(
        _DescribeActor,
        fn_constructor_args=(config, describe),
        batch_size=run.describe.batch_series,
        batch_format="pyarrow",
        **_actor_resources(run.describe),
    )


def _task_resources(pool: TaskPool) -> dict[str, Any]:
    memory = {} if pool.memory_gib is None else {"memory": pool.memory_gib * _GIB}
    return {"num_cpus": pool.cpus, **memory}


def _actor_resources(pool: ActorPool) -> dict[str, Any]:
    memory = {} if pool.memory_gib is None else {"memory": pool.memory_gib * _GIB}
    # without initial_size an autoscaling pool starts slowly and can starve
    compute = ray.data.ActorPoolStrategy(
        min_size=pool.min_size,
        max_size=pool.max_size,
        initial_size=pool.min_size,
        max_concurrent_calls_per_actor=pool.concurrent_batches,
        enable_true_multi_threading=pool.concurrent_batches > 1,
    )
    return {"compute": compute, "num_cpus": pool.cpus, "num_gpus": pool.gpus, **memory}
