"""A job and the nodes of its cluster, with a Ray of its own."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

import pytest
from ray.cluster_utils import Cluster

DRIVER = """
from raypipe.batch.cluster import start_ray
from raypipe.config import RunConfig

start_ray(RunConfig(ray_address={address!r}, nodes_limit_s={limit_s}, detect={{"cpus": 4}}))
"""


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False, object_store_memory=100 << 20)
        yield cluster
    finally:
        cluster.shutdown()


def _driver(head: Cluster, limit_s: float) -> "subprocess.Popen[str]":
    code = DRIVER.format(address=head.address, limit_s=limit_s)
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_job_waits_for_nodes_that_are_being_started(head: Cluster) -> None:
    refused = _driver(head, 2)
    _, error = refused.communicate(timeout=120)
    assert refused.returncode == 1 and "logical CPUs, the cluster has 1 (" in error
    waiting = _driver(head, 120)
    time.sleep(8)
    assert waiting.poll() is None, "it did not wait"
    head.add_node(num_cpus=8, object_store_memory=100 << 20)
    assert waiting.wait(timeout=120) == 0


def test_loaders_are_held_back_before_they_fill_the_object_store() -> None:
    code = (
        "import raypipe.batch.job;"
        "from ray.data._internal.execution.backpressure_policy import "
        "downstream_capacity_backpressure_policy as module;"
        "policy = module.DownstreamCapacityBackpressurePolicy;"
        "print(policy.OBJECT_STORE_BUDGET_UTIL_THRESHOLD)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0.0 < float(done.stdout) <= 0.1
