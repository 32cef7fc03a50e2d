"""Above capacity, under a kill, across a restart: what was accepted is done."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.serve.conftest import Running, Study, run_app


def send(running: Running, study: Study) -> httpx.Response:
    with running.client() as client:
        return client.post("v1/jobs", files=study.upload())


def send_patiently(running: Running, study: Study) -> str:
    """A job that was accepted in the end."""
    while True:
        answer = send(running, study)
        if answer.status_code == 202:
            return str(answer.json()["id"])
        assert answer.status_code == 503, answer.text
        time.sleep(0.5)


def all_done(running: Running, ids: list[str]) -> None:
    with running.client() as client:
        for job_id in ids:
            done = running.done(client, job_id, 120.0)
            assert done["state"] == "done", done
            assert [s["status"] for s in done["series"]] == ["ok"], done


def kill(running: Running, deployment: str) -> None:
    """Kill every replica of a deployment, as an out-of-memory would."""
    import ray

    killed = 0
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith(f"SERVE_REPLICA::{running.name}#{deployment}#"):
            ray.kill(ray.get_actor(actor["name"], namespace=actor["namespace"]))
            killed += 1
    assert killed


def test_above_capacity_only_503_and_no_accepted_job_is_lost(
    keyed_service: Running, study: Study
) -> None:
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda _: send(keyed_service, study), range(24)))
    counts = Counter(answer.status_code for answer in answers)
    assert set(counts) == {202, 503}, counts
    for answer in answers:
        if answer.status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["content-type"] == "application/problem+json"
    all_done(keyed_service, [a.json()["id"] for a in answers if a.status_code == 202])


@pytest.mark.parametrize(
    "deployment",
    [
        "Detector",
        "Queue",
        pytest.param("Loader", marks=pytest.mark.slow),
        pytest.param("Reporter", marks=pytest.mark.slow),
    ],
)
def test_a_replica_killed_under_load_loses_no_job(
    keyed_service: Running, study: Study, deployment: str
) -> None:
    ids = [send_patiently(keyed_service, study) for _ in range(3)]
    kill(keyed_service, deployment)
    all_done(keyed_service, ids)


@pytest.mark.slow
def test_a_restart_keeps_the_jobs_that_waited(keyed_service: Running, study: Study) -> None:
    from ray import serve

    ids = [send_patiently(keyed_service, study) for _ in range(4)]
    serve.delete(keyed_service.name)
    run_app(keyed_service.config, "/keyed")
    with keyed_service.client() as client:
        states = {i: client.get(f"v1/jobs/{i}").json()["state"] for i in ids}
    assert "queued" in states.values() or "running" in states.values(), states
    all_done(keyed_service, ids)


def test_metrics_count_what_happened(keyed_service: Running, job: dict[str, Any]) -> None:
    with keyed_service.client("admin") as client:
        text = client.get("metrics").text
        ready = client.get("readyz")
    assert ready.status_code == 200, ready.text
    assert 'raypipe_replicas{deployment="Detector",state="running"} 1.0' in text
    assert job["id"] not in text
    for line in text.splitlines():
        if line.startswith('raypipe_jobs{state="done"}'):
            assert float(line.split()[-1]) >= 1
