"""The stages under another engine give what the stages give."""

from pathlib import Path

import pytest

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.bench.pipeline import bench_pipeline
from raypipe.bench.pipeline_peers import Work, work
from raypipe.config import load_config
from raypipe.errors import ConfigError
from raypipe.phantom import write_bulk_archive
from raypipe.stages import Describe, Detect, Load, Prepare


def test_workers_of_torch_give_the_rows_of_a_plain_loop(tmp_path: Path) -> None:
    config = load_config(overrides=("report.engine=template", "detector.threads=1"))
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
