"""The job as a cluster gets it: `jobs/run.py` by Ray's job server, with its results on disk."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from raypipe.batch.output import open_output
from raypipe.config import load_config
from raypipe.phantom import write_bulk_archive
from tests.tiny_detector import fast_settings

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))

T = TypeVar("T")
TOKEN = "0123456789abcdef" * 4

pytestmark = pytest.mark.slow


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def job_server() -> Iterator[str]:
    """A cluster of one node beside the one of the session, with its dashboard: its address."""
    port, dashboard = _free_port(), _free_port()
    with tempfile.TemporaryDirectory(prefix="rj", dir="/tmp") as folder:  # sockets' paths are short
        environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        environment |= {"RAY_TMPDIR": folder, "RAY_USAGE_STATS_ENABLED": "0"}
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        command = [RAY, "start", "--block", "--head", f"--port={port}", "--num-cpus=6"]
        command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        command += ["--object-store-memory=300000000", f"--temp-dir={folder}"]
        # the session's Ray has the default one, and without a port there is no agent for jobs
        command += [f"--dashboard-agent-listen-port={_free_port()}"]
        with (Path(folder) / "printed").open("wb") as printed:
            node = subprocess.Popen(
                command, env=environment, stdout=printed, stderr=printed, start_new_session=True
            )
            try:
                yield f"http://127.0.0.1:{dashboard}"
            finally:
                whole = psutil.Process(node.pid)
                for process in (whole, *whole.children(recursive=True)):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()  # asked to end, it waits half a minute for its own
                node.wait(60)


def _patiently(call: Callable[[], T], deadline: float) -> T:
    """What a call gives once the job server and its agent are up."""
    while True:
        try:
            return call()
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline, "the job server does not answer"
            time.sleep(1)


def test_ray_job_submit_does_what_raypipe_run_does(job_server: str, tmp_path: Path) -> None:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobStatus, JobSubmissionClient

    write_bulk_archive(tmp_path / "a", n_series=3, seed=4, shape_zyx=(4, 64, 64))
    deadline = time.monotonic() + 240
    token = {"Authorization": f"Bearer {TOKEN}"}
    client = _patiently(lambda: JobSubmissionClient(job_server, headers=token), deadline)
    with pytest.raises(AuthenticationError):
        JobSubmissionClient(job_server, headers={"Authorization": "Bearer another"})
    entrypoint = f"{sys.executable} {ROOT / 'jobs' / 'run.py'}"
    entrypoint += f" -i {tmp_path / 'a'} -o {tmp_path / 'out'}"
    for setting in fast_settings():
        entrypoint += f" --set {setting}"
    job = _patiently(lambda: client.submit_job(entrypoint=entrypoint), deadline)
    while not (status := client.get_job_status(job)).is_terminal():
        assert time.monotonic() < deadline, client.get_job_logs(job)
        time.sleep(1)
    assert status == JobStatus.SUCCEEDED, client.get_job_logs(job)
    output = open_output(str(tmp_path / "out"), load_config().archive.storage)
    assert [row["status"] for row in output.iterate_rows()] == ["ok"] * 3
    assert "series/h" in client.get_job_logs(job)
