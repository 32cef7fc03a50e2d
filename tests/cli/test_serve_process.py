"""`raypipe serve` as a process, with a Ray of its own."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_sigterm_drains_and_ends_in_order(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "raypipe", "serve", "--port", str(port)]
    command += ["--set", "pipeline.report.engine=template", "--set", f"jobs.folder={tmp_path}/jobs"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    log = tmp_path / "log"
    with (
        log.open("w") as err,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=err, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        said = process.stdout.readline()  # comes once the service is ready
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 0, log.read_text()
    assert f"serves at http://127.0.0.1:{port}" in said
    assert "draining" in log.read_text()
