"""The stages of the archive job under another engine, in a process of its own.

    python -m raypipe.bench.pipeline_peers WORK.pickle DONE.parquet

In: a Work: engine, manifest, config. Out: the finished rows as Parquet, whose timings say how long
it took. Does not know: what is compared with what.

Each engine is used as its documentation shows it, with one worker a core. Networks are loaded and
every worker that loads has read a series before the first one counts, as where raypipe's job is
measured. Where a worker runs all stages, its networks and its language model get one thread.

    dataloader  workers of torch load and prepare, the main process detects and describes
    daft        a class of all four stages, one process a core
    spark       all four stages in mapPartitions(), the networks kept in its Python workers
"""

import math
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.archive.manifest import first_row, read_manifest
from raypipe.config import RaypipeConfig
from raypipe.cores import usable_cores
from raypipe.settings import Settings
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import Describe, Detect, Load, Prepare, Row

Peer = Literal["dataloader", "daft", "spark"]


class Work(Settings):
    """What one process does."""

    peer: Peer
    manifest: str
    config: RaypipeConfig


def one_thread(config: RaypipeConfig) -> RaypipeConfig:
    """The config for a process that fills one core and no more."""
    detector = config.detector.model_copy(update={"threads": 1})
    vllm = config.report.vllm.model_copy(update={"threads": 1})
    report = config.report.model_copy(update={"vllm": vllm})
    return config.model_copy(update={"detector": detector, "report": report})


def work(told: Work) -> list[Row]:
    """Every row of the manifest, finished."""
    rows = read_manifest(told.manifest, told.config.archive.storage).to_pylist()
    by: dict[Peer, Callable[[list[Row], Work], list[Row]]] = {
        "dataloader": _by_dataloader,
        "daft": _by_daft,
        "spark": _by_spark,
    }
    return by[told.peer](rows, told)


def _warm(told: Work, worker: int = 0) -> None:
    """Read the first series for nothing: imports and decoders are start-up."""
    Prepare(told.config)(Load(told.config)(first_row(told.manifest, told.config.archive.storage)))


class _Loaded:
    """A data set of torch: a row of the manifest, loaded and prepared."""

    def __init__(self, rows: list[Row], config: RaypipeConfig) -> None:
        self._rows, self._load, self._prepare = rows, Load(config), Prepare(config)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        return self._prepare(self._load(self._rows[index]))


def _by_dataloader(rows: list[Row], told: Work) -> list[Row]:
    from torch.utils.data import DataLoader

    config = told.config
    detect, describe = Detect(config), Describe(config)
    loader: Any = DataLoader(
        _Loaded(rows, config),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=usable_cores(),
        multiprocessing_context=multiprocessing.get_context("spawn"),
        worker_init_fn=partial(_warm, told),
    )
    done: list[Row] = []
    batch: list[Row] = []
    for row in loader:
        batch.append(detect(row))
        if len(batch) == config.run.describe.batch_series:
            done += describe(batch)
            batch = []
    done += describe(batch)
    describe.close()
    return done


def _rows_a_call(config: RaypipeConfig) -> int:
    """A language model decodes several series at a time; without one, single rows spread best."""
    return 1 if config.report.engine == "template" else config.run.describe.batch_series


@cache
def _every_stage(told: bytes) -> Callable[[list[Row]], list[Row]]:
    """All four stages of a pickled Work, loaded once in a process, which reads a series first."""
    of: Work = pickle.loads(told)
    settings = one_thread(of.config)
    _warm(of)
    load, prepare = Load(settings), Prepare(settings)
    detect, describe = Detect(settings), Describe(settings)
    return lambda rows: describe([detect(prepare(load(row))) for row in rows])


def _by_daft(rows: list[Row], told: Work) -> list[Row]:
    import daft

    @daft.cls(max_concurrency=usable_cores(), use_process=True)
    class Stages:
        def __init__(self, told: bytes) -> None:
            self._finish = _every_stage(told)

        @daft.method.batch(return_dtype=daft.DataType.python())  # type: ignore[untyped-decorator]
        def finish(self, rows: daft.Series) -> daft.Series:
            return column(self._finish(rows.to_pylist()))

    def column(values: list[Row]) -> daft.Series:
        return daft.Series.from_pylist(values, dtype=daft.DataType.python())

    stages = Stages(pickle.dumps(told))
    # small batches: else a worker would take all of so few rows
    frame = daft.from_pydict({"row": column(rows)}).into_batches(_rows_a_call(told.config))
    return list(frame.select(stages.finish(frame["row"]).alias("row")).to_pydict()["row"])


def _by_spark(rows: list[Row], told: Work) -> list[Row]:
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master(f"local[{usable_cores()}]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    pickled = pickle.dumps(told)

    def warm(_: int) -> Iterator[int]:
        _every_stage(pickled)
        return iter(())

    def finish(part: Iterator[Row]) -> list[Row]:
        return _every_stage(pickled)(list(part))

    context = session.sparkContext
    context.parallelize(range(usable_cores()), usable_cores()).foreach(warm)
    parts = math.ceil(len(rows) / _rows_a_call(told.config))
    done: list[Row] = context.parallelize(rows, parts).mapPartitions(finish).collect()
    session.stop()
    return done


def main(told: str, done: str) -> None:
    """Do what a pickled Work tells, write the rows."""
    table: pa.Table = to_table(work(pickle.loads(Path(told).read_bytes())), RESULT_SCHEMA)
    pq.write_table(table, done)


if __name__ == "__main__":
    # by the module's own name: workers cannot find what is defined in __main__
    from raypipe.bench import pipeline_peers

    pipeline_peers.main(*sys.argv[1:3])
