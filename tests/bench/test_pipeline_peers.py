"""The stages under another engine give what the stages give."""

import pickle
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.bench import pipeline, pipeline_peers
from raypipe.bench.empty import need_empty
from raypipe.bench.pipeline import bench_pipeline
from raypipe.bench.pipeline_peers import Work, work
from raypipe.bench.steady import seconds_of, span
from raypipe.config import load_config
from raypipe.errors import ConfigError, RaypipeError
from raypipe.phantom import write_bulk_archive
from raypipe.stages import Describe, Detect, Load, Prepare, Row, start_row
from tests.tiny_detector import fast_settings


def test_workers_of_torch_give_the_rows_of_a_plain_loop(tmp_path: Path) -> None:
    config = load_config(overrides=fast_settings())
    write_bulk_archive(tmp_path / "a", n_series=3, seed=4, shape_zyx=(4, 128, 128))
    manifest = str(tmp_path / "manifest")
    build_index(str(tmp_path / "a"), manifest, config.index)
    rows = read_manifest(manifest, config.archive.storage).to_pylist()
    load, prepare, detect = Load(config), Prepare(config), Detect(config)
    plain = Describe(config)([detect(prepare(load(row))) for row in rows])
    peer = work(Work(peer="dataloader", manifest=manifest, config=config))
    assert [row["status"] for row in peer] == ["ok"] * 3
    for mine, theirs in zip(plain, peer, strict=True):
        assert mine["findings"] == theirs["findings"] and mine["report"] == theirs["report"]


def test_a_worker_has_read_a_series_before_the_first_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(overrides=("report.engine=template", "detector.weights=random"))
    write_bulk_archive(tmp_path / "a", n_series=1, shape_zyx=(2, 64, 64))
    manifest = str(tmp_path / "manifest")
    build_index(str(tmp_path / "a"), manifest, config.index)
    read: list[str] = []

    def load(self: Load, row: Row) -> Row:
        read.append(row["series_key"])
        return start_row(row) | {"status": "rejected"}

    monkeypatch.setattr(Load, "__call__", load)
    told = Work(peer="spark", manifest=manifest, config=config)
    pipeline_peers._every_stage(pickle.dumps(told))
    assert len(read) == 1


def test_a_series_that_is_not_ok_is_no_time_of_the_work() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    timings = {"started_at": at, "finished_at": at + timedelta(seconds=5)}
    done: Row = {"status": "ok", "reason": None, "timings": timings}
    assert seconds_of(span([done, done])) == 5.0
    failed = done | {"status": "failed", "reason": "engine_failed"}
    with pytest.raises(RaypipeError, match=r"2 of 3 series were not ok \(2 engine_failed\)"):
        span([done, failed, failed])


def test_loop_job_and_peers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loop, job and peers are stand-ins: Daft and Spark are not part of the environment."""
    turns: list[str] = []
    at = datetime(2026, 1, 1, tzinfo=UTC)
    row: Row = {"series_key": "a", "status": "ok", "reason": None, "findings": [], "report": None}

    class FakeOutput:
        def iterate_rows(self) -> list[Row]:
            return [row]

    class FakeJob:
        output = FakeOutput()

        def __init__(self, *told: object) -> None:
            turns.append("job")

    def peer(stem: Path, name: str, *told: object) -> pipeline._PeerRun:
        turns.append(stem.name)
        return pipeline._PeerRun(4.0, {"a": pipeline._lasting(row)} if name == "daft" else {})

    def loop(*told: object) -> tuple[float, dict[str, float]]:
        turns.append("loop")
        return 6.0, dict.fromkeys(pipeline.STAGES, 1.0)

    monkeypatch.setattr(pipeline, "ray", SimpleNamespace(shutdown=lambda: None))  # not the suite's
    monkeypatch.setattr(pipeline, "Job", FakeJob)
    monkeypatch.setattr(pipeline, "run_steady", lambda *told: (at, at + timedelta(seconds=2)))
    monkeypatch.setattr(pipeline, "_time_loop", loop)
    monkeypatch.setattr(pipeline, "_run_peer", peer)
    result = bench_pipeline(
        tmp_path,
        load_config(),
        series=1,
        shape_zyx=(2, 32, 32),
        runs=2,
        peers=["daft", "spark"],
    )
    each = ["loop", "job", "daft-{}", "spark-{}"]
    assert turns == [name.format(i) for i in (0, 1) for name in each]
    daft, spark = result.peers
    assert (daft.ratio, daft.runs_s, daft.same_rows) == (2.0, [4.0, 4.0], 1.0)
    assert spark.same_rows == 0.0  # a series that is not there is none that is the same


def test_an_unknown_peer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no peer 'dask'; there are dataloader, daft, spark"):
        bench_pipeline(
            tmp_path,
            load_config(),
            series=1,
            shape_zyx=(4, 64, 64),
            runs=1,
            peers=["dask"],
        )


def test_what_an_earlier_run_left_is_not_measured_again(tmp_path: Path) -> None:
    (tmp_path / "job-0").mkdir()
    with pytest.raises(ConfigError, match=r"is not empty \(job-0\); name an empty --folder"):
        bench_pipeline(tmp_path, load_config(), series=2, shape_zyx=(4, 64, 64), runs=1)
    need_empty(tmp_path / "made" / "here")
    assert (tmp_path / "made" / "here").is_dir()
