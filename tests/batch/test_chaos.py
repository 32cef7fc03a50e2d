"""The whole job while everything goes wrong: every series ends once, and the right way.

100 series on S3, results on S3, a Ray cluster of three nodes. S3 answers one request in ten with
500 or 503; worker processes and a node are killed, the driver is killed and started again; four
series are poison to their decoder (see poison/sitecustomize.py).
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pydicom
import pytest
from ray.cluster_utils import Cluster

from raypipe.archive.manifest import read_manifest
from raypipe.archive.storage import StorageConfig, filesystem_for
from raypipe.batch.output import Output, open_output
from raypipe.batch.status import run_status
from raypipe.batch.verify import verify
from raypipe.config import RaypipeConfig, load_config
from raypipe.phantom import write_bulk_archive
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import Describe, Detect, Load, Prepare
from tests.batch.faulty_s3 import FaultyS3
from tests.tiny_detector import fast_settings

SERIES = 100
POISON = {7: "segfault", 30: "hang", 55: "swell", 77: "murder"}
REASONS = {
    "segfault": "decoder_crashed",
    "hang": "decoder_timeout",
    "swell": "decoder_memory",
    "murder": "quarantined",
}
# more often than anything is killed here: whoever stands beside a victim is not set aside for it
QUARANTINE_AFTER = 5
SETTINGS = (
    *fast_settings(),
    f"run.quarantine_after={QUARANTINE_AFTER}",
    "run.describe.batch_series=4",
    "archive.isolation.time_limit_s=20",
    "archive.isolation.memory_limit_gib=1",
    "archive.storage.retries=8",
    "archive.storage.backoff_base_s=0.05",
    "archive.storage.backoff_cap_s=1",
)
SITE = Path(__file__).parent / "poison"


@dataclass
class Scene:
    """What the chaos happens to."""

    s3: FaultyS3
    cluster: Cluster
    output: Output
    config: RaypipeConfig
    rng: random.Random

    def done(self) -> int:
        """Result files so far; each holds up to four series."""
        return len(self.output.result_files())


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with pytest.MonkeyPatch.context() as patch, FaultyS3(share=0.1) as s3:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        # a short path, and no other Ray of this machine may take this cluster for its own
        ray_folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
        patch.setenv("RAY_TMPDIR", ray_folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("PYTHONPATH", os.pathsep.join([str(SITE), os.environ.get("PYTHONPATH", "")]))
        config = load_config(overrides=(*SETTINGS, f"archive.storage.s3_endpoint={s3.endpoint}"))
        _upload_archive(tmp_path / "archive", config.archive.storage)
        cluster = Cluster()
        try:
            for options in (
                {"num_cpus": 3, "include_dashboard": False},
                {"num_cpus": 2},
                {"num_cpus": 2},
            ):
                cluster.add_node(wait=False, object_store_memory=150 << 20, **options)
            cluster.wait_for_nodes(timeout=180)
            output = open_output("s3://chaos/out", config.archive.storage)
            yield Scene(s3, cluster, output, config, random.Random(4))
        finally:
            cluster.shutdown()
            shutil.rmtree(ray_folder, ignore_errors=True)


def _upload_archive(folder: Path, storage: StorageConfig) -> None:
    truths = write_bulk_archive(folder, n_series=SERIES, seed=8, shape_zyx=(2, 48, 48))
    for number, kind in POISON.items():
        path = folder / truths[number].paths[-1]
        dataset = pydicom.dcmread(path)
        dataset.ImageComments = f"poison:{kind}"
        dataset.save_as(path)
    filesystem, _ = filesystem_for("s3://chaos", storage)
    filesystem.mkdir("chaos")
    filesystem.put(f"{folder}/", "chaos/ct/", recursive=True)


@pytest.mark.slow
def test_every_series_ends_once_whatever_happens(scene: Scene) -> None:
    driver = _start_driver(scene)
    try:
        _wait_for(scene, driver, 4)
        _kill_worker(scene)
        _wait_for(scene, driver, 8)
        victim = scene.cluster.list_all_nodes()[-1]
        scene.cluster.remove_node(victim, allow_graceful=False)
        _wait_for(scene, driver, 12)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        time.sleep(5)  # Ray's processes notice and go
        driver = _start_driver(scene)
        _kill_worker(scene)
        assert driver.wait(timeout=400) == 0
    finally:
        driver.kill()
        driver.wait()
    assert scene.s3.faults > scene.s3.requests / 20
    audit = verify(scene.output, scene.config.archive.storage)
    assert audit.problems == {} and audit.in_flight == ()
    assert (audit.series_in_manifest, audit.rows) == (SERIES, SERIES)
    _compare_with_quiet_run(scene)
    status = run_status(scene.output, scene.config.archive.storage)
    assert (status.state, status.left) == ("finished", 0)
    begun = SERIES + QUARANTINE_AFTER - 1
    assert status.attempts >= begun, "the murderous series was begun again and again"
    log = scene.output.read_text("log.jsonl")
    assert log is not None
    last = [json.loads(line) for line in log.splitlines()][-1]
    assert (last["event"], last["state"], last["done"]) == ("run_ended", "finished", SERIES)


def _start_driver(scene: Scene) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "raypipe", "run", "-i", "s3://chaos/ct"]
    command += ["-o", "s3://chaos/out", "--set", f"run.ray_address={scene.cluster.address}"]
    endpoint = f"archive.storage.s3_endpoint={scene.s3.endpoint}"
    for setting in (*SETTINGS, endpoint):
        command += ["--set", setting]
    return subprocess.Popen(command, start_new_session=True)


def _wait_for(scene: Scene, driver: "subprocess.Popen[bytes]", files: int) -> None:
    deadline = time.monotonic() + 400
    while scene.done() < files:
        assert driver.poll() is None, "the run ended before all the chaos had happened"
        assert time.monotonic() < deadline, f"no {files} result files in time"
        time.sleep(1.0)


def _kill_worker(scene: Scene) -> None:
    """Kill a random process that works on series: a loader, a network or an engine."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        at_work = [
            process
            for node in scene.cluster.list_all_nodes()
            for process in psutil.Process(_raylet(node)).children(recursive=True)
            if any("ray::" in part and "Map" in part for part in _command(process))
        ]
        if at_work:
            scene.rng.choice(at_work).kill()
            return
        time.sleep(0.05)
    raise AssertionError("no worker at work")


def _raylet(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def _command(process: psutil.Process) -> list[str]:
    try:
        return [*process.cmdline()]
    except psutil.Error:
        return []


def _compare_with_quiet_run(scene: Scene) -> None:
    """The poisonous end as they must; every other row is that of a run in which nothing happens.

    The quiet run calls the stages one after the other, here, where nothing is poisonous.
    """
    storage = scene.config.archive.storage
    scene.s3.share = 0.0
    manifest = read_manifest(scene.output.manifest_uri, storage).to_pylist()
    poison = {f"/{number:06d}/": kind for number, kind in POISON.items()}
    rows = {row["series_key"]: row for row in scene.output.iterate_rows()}
    quiet = []
    load, prepare, detect = (stage(scene.config) for stage in (Load, Prepare, Detect))
    for series in manifest:
        kind = next((k for p, k in poison.items() if p in series["instances"][0]["uri"]), None)
        if kind is None:
            quiet.append(detect(prepare(load(series))))
            continue
        row = rows.pop(series["series_key"])
        ended = (row["status"], row["reason"], row["stage"], row["findings"])
        assert ended == ("failed", REASONS[kind], "load", None)
        assert kind != "murder" or row["attempts"] == QUARANTINE_AFTER
    wanted = to_table(Describe(scene.config)(quiet), RESULT_SCHEMA).to_pylist()
    assert len(wanted) == SERIES - len(POISON)
    for row in wanted:
        assert _lasting(rows[row["series_key"]]) == _lasting(row)


def _lasting(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what differs from run to run."""
    return {name: value for name, value in row.items() if name not in ("timings", "attempts")}
