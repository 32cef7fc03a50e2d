"""The Ray Data graph of the job: stages plus resources.

    read manifest -> [Load, Prepare] tasks -> Detect actors -> Describe actors -> write Parquet

In: the files of a manifest and a config. Out: a lazy Dataset that ends in result rows.
Does not know: what a stage decides, where results are written, how a run resumes.
"""

from typing import Any

import pyarrow as pa
import ray

from raypipe.batch.wire import decode_prepared, encode_prepared
from raypipe.config import ActorPool, RaypipeConfig, TaskPool
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import Describe, Detect, Load, Prepare

_GIB = 1024**3


class _LoadAndPrepare:
    """Load and Prepare in one task, so that the full volume never leaves its process."""

    def __init__(self, config: RaypipeConfig) -> None:
        self._load, self._prepare = Load(config), Prepare(config)

    def __call__(self, table: pa.Table) -> pa.Table:
        return encode_prepared(self._prepare(self._load(row)) for row in table.to_pylist())


class _DetectActor:
    """One network per actor."""

    def __init__(self, config: RaypipeConfig) -> None:
        self._detect = Detect(config)

    def __call__(self, table: pa.Table) -> pa.Table:
        return to_table([self._detect(row) for row in decode_prepared(table)], RESULT_SCHEMA)


class _DescribeActor:
    """One engine per actor."""

    def __init__(self, config: RaypipeConfig) -> None:
        self._describe = Describe(config)

    def __call__(self, table: pa.Table) -> pa.Table:
        return to_table(self._describe(table.to_pylist()), RESULT_SCHEMA)


def build_graph(manifest: list[str], filesystem: Any, config: RaypipeConfig) -> ray.data.Dataset:
    """The job as a lazy Dataset of result rows.

    Args:
        manifest: the manifest's Parquet files, without a protocol.
        filesystem: the pyarrow filesystem that holds them.
        config: the resolved config.
    """
    run = config.run
    series = ray.data.read_parquet(manifest, filesystem=filesystem)
    # read_parquet merges small files into one block, which would leave one task to do all the work
    series = series.repartition(target_num_rows_per_block=run.load.series_per_task)
    load_and_prepare = _LoadAndPrepare(config)
    prepared = series.map_batches(
        lambda table: load_and_prepare(table),
        batch_size=1,
        batch_format="pyarrow",
        **_task_resources(run.load),
    )
    detected = prepared.map_batches(
        _DetectActor,
        fn_constructor_args=(config,),
        batch_size=run.detect.batch_series,
        batch_format="pyarrow",
        **_actor_resources(run.detect),
    )
    return detected.map_batches(
        _DescribeActor,
        fn_constructor_args=(config,),
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
