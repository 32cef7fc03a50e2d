"""The whole job on Ray: resume after SIGKILL, retry, S3 against disk, limit, refusals."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from raypipe.batch.job import Job
from raypipe.batch.output import Output, open_output
from raypipe.batch.progress import Progress
from raypipe.config import RaypipeConfig, load_config
from raypipe.errors import ConfigError, RaypipeError
from raypipe.phantom import write_archive, write_bulk_archive
from tests.tiny_detector import fast_settings


def _ignore(*_: object) -> None:
    pass


def _run(source: Path | str, output: Path | str, config: RaypipeConfig, **options: Any) -> Job:
    job = Job(str(source), str(output), config, **options)
    job.index(_ignore)
    job.run(_ignore)
    return job


def _rows(job: Job) -> dict[str, dict[str, Any]]:
    """Rows by key without what differs from run to run."""
    rows = list(job.output.iterate_rows())
    by_key = {row["series_key"]: {k: v for k, v in row.items() if k != "timings"} for row in rows}
    assert len(by_key) == len(rows), "a series has two rows"
    return by_key


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder / "a", n_series=17, seed=3, shape_zyx=(8, 40, 40))
    return folder / "a"


@pytest.mark.usefixtures("ray_cluster")
class TestOneRay:
    def test_disk_and_s3_give_identical_rows(
        self, archive: Path, tmp_path: Path, s3_endpoint: str
    ) -> None:
        local = _rows(_run(archive, tmp_path / "out", load_config(overrides=fast_settings())))
        s3 = s3fs.S3FileSystem(endpoint_url=s3_endpoint)
        s3.mkdir("archive-bucket")
        s3.put(str(archive), "archive-bucket/ct", recursive=True)
        endpoint = f"archive.storage.s3_endpoint={s3_endpoint}"
        config = load_config(overrides=(*fast_settings(), endpoint))
        remote = _rows(_run("s3://archive-bucket/ct", "s3://archive-bucket/out", config))
        assert {row["status"] for row in local.values()} == {"ok", "rejected"}
        assert remote == local

    def test_limit_then_all(self, archive: Path, tmp_path: Path) -> None:
        config = load_config(overrides=fast_settings())
        first = _rows(_run(archive, tmp_path / "out", config, limit=3))
        assert not (tmp_path / "out" / "selection").exists()  # it may name a patient
        assert len(first) == 3
        everything = _rows(_run(archive, tmp_path / "out", config))
        assert len(everything) > 3
        assert {key: everything[key] for key in first} == first

    def test_failed_series_are_done_again_on_request(self, tmp_path: Path) -> None:
        config = load_config(overrides=fast_settings())
        write_bulk_archive(tmp_path / "a", n_series=3, seed=1, shape_zyx=(4, 64, 64))
        hidden = sorted((tmp_path / "a").rglob("*"))
        hidden = [path for path in hidden if path.is_file()][-4:]
        job = Job(str(tmp_path / "a"), str(tmp_path / "out"), config)
        job.index(_ignore)
        for path in hidden:
            path.rename(path.with_name(f".{path.name}.gone"))
        job.run(_ignore)
        reasons = [row["reason"] for row in _rows(job).values()]
        assert reasons.count("source_missing") == 1
        for path in hidden:
            path.with_name(f".{path.name}.gone").rename(path)
        assert Job(str(tmp_path / "a"), str(tmp_path / "out"), config).retry_failed() == 1
        summary = job.run(_ignore)
        assert (summary.series_done_before, summary.series_done) == (2, 1)
        assert {row["status"] for row in _rows(job).values()} == {"ok"}

    def test_progress_ends_with_every_series(self, tmp_path: Path) -> None:
        write_bulk_archive(tmp_path / "a", n_series=3, seed=2, shape_zyx=(4, 64, 64))
        job = Job(
            str(tmp_path / "a"), str(tmp_path / "out"), load_config(overrides=fast_settings())
        )
        job.index(_ignore)
        seen: list[Progress] = []
        job.run(seen.append)
        assert (seen[-1].done, seen[-1].total, seen[-1].status_counts) == (3, 3, {"ok": 3})

    def test_rows_of_another_config_are_not_mixed_in(self, tmp_path: Path) -> None:
        write_bulk_archive(tmp_path / "a", n_series=1, seed=2, shape_zyx=(4, 64, 64))
        _run(tmp_path / "a", tmp_path / "out", load_config(overrides=fast_settings()))
        other = load_config(overrides=(*fast_settings(), "volume.max_voxels=123456"))
        with pytest.raises(ConfigError, match="results of another config"):
            Job(str(tmp_path / "a"), str(tmp_path / "out"), other)

    def test_a_pool_that_does_not_fit_is_refused(self, tmp_path: Path) -> None:
        write_bulk_archive(tmp_path / "a", n_series=1, seed=2, shape_zyx=(4, 64, 64))
        config = load_config(overrides=(*fast_settings(), "run.detect.gpus=8"))
        with pytest.raises(ConfigError, match="8 logical GPUs"):
            _run(tmp_path / "a", tmp_path / "out", config)

    def test_what_a_worker_cannot_load_is_told_in_one_line(self, tmp_path: Path) -> None:
        write_bulk_archive(tmp_path / "a", n_series=1, seed=2, shape_zyx=(4, 64, 64))
        config = load_config(
            overrides=(*fast_settings(), f"detector.weights={tmp_path}/none.safetensors")
        )
        with pytest.raises(RaypipeError, match=r"^weights: cannot read .+ name a safetensors"):
            _run(tmp_path / "a", tmp_path / "out", config)


@pytest.mark.slow
def test_driver_killed_half_way_then_started_again(tmp_path: Path) -> None:
    """40 series: after SIGKILL and a second start each has one row; committed ones stay as is."""
    write_bulk_archive(tmp_path / "a", n_series=40, seed=5, shape_zyx=(6, 96, 96))
    command = [sys.executable, "-m", "raypipe", "run"]
    command += ["-i", str(tmp_path / "a"), "-o", str(tmp_path / "out")]
    for setting in (*fast_settings(), "run.describe.batch_series=2"):
        command += ["--set", setting]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    output = open_output(str(tmp_path / "out"), load_config().archive.storage)
    driver = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while len(output.result_files()) < 8 and time.monotonic() < deadline:
            assert driver.poll() is None, "the run ended before it could be killed"
            time.sleep(0.05)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    time.sleep(5)  # Ray's processes notice and go
    before = _committed_rows(output)
    assert 8 <= len(before) < 40
    subprocess.run(command, env=environment, check=True)
    after = list(output.iterate_rows())
    assert len(after) == len({row["series_key"] for row in after}) == 40
    again = {row["series_key"]: row for row in after}
    for key, row in before.items():
        assert again[key] == row, "a finished series was done a second time"


def _committed_rows(output: Output) -> dict[str, dict[str, Any]]:
    """Rows whose key is in a committed, not only pending, file of the checkpoint."""
    files = [p for p in Path(output.checkpoint).glob("*.parquet") if ".pending" not in p.name]
    keys = {key for file in files for key in pq.read_table(file)["series_key"].to_pylist()}
    rows = {}
    for file in output.result_files():
        try:
            table = pq.read_table(file, partitioning=None)
        except pa.ArrowInvalid:
            continue  # the kill cut this file off; it is pending and will go
        rows |= {row["series_key"]: row for row in table.to_pylist() if row["series_key"] in keys}
    assert set(rows) == keys
    return rows
