"""Callers of the service: many at a time, patient where it says that it is busy.

In: the address of a service, uploads, a number of callers. Out: how long each request took, what
was refused, which jobs were accepted and how they ended.
Does not know: what is measured against what.
"""

import re
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import cycle, islice

import httpx

from raypipe.errors import RaypipeError
from raypipe.settings import Settings

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Upload:
    """One series as it is sent.

    Args:
        files: contents of its files.
    """

    files: tuple[bytes, ...] = field(repr=False)

    def form(self) -> list[tuple[str, tuple[str, bytes]]]:
        """As form fields."""
        return [("files", (f"{i}", content)) for i, content in enumerate(self.files)]


class LoadResult(Settings):
    """What so many callers saw.

    Args are medians and percentiles of the time from the first byte sent to the result, in s,
    without the time that a caller stayed away because it was told to.
    """

    clients: int
    requests: int
    seconds: float
    per_hour: float
    median_s: float
    p95_s: float
    p99_s: float
    longest_s: float
    refused: int


class BurstResult(Settings):
    """What came of more jobs than there is room for."""

    sent: int
    accepted: int
    refused: int
    other: int
    done: int
    lost: int
    retry_after_s: list[int]


def load(url: str, uploads: Sequence[Upload], *, clients: int, requests: int) -> LoadResult:
    """So many callers send so many requests and wait for each result.

    Raises:
        RaypipeError: a request got anything else than a result or a 503.
    """
    times: list[float] = []
    refused: list[float] = []
    lock = threading.Lock()

    def call(upload: Upload) -> None:
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            while True:
                began = time.perf_counter()
                answer = client.post(f"{url}/v1/analyze", files=upload.form())
                seconds = time.perf_counter() - began
                if answer.status_code != 503:
                    break
                pause_s = float(answer.headers["Retry-After"])
                with lock:
                    refused.append(pause_s)
                time.sleep(pause_s)
        _must_be_ok(answer)
        with lock:
            times.append(seconds)

    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(call, islice(cycle(uploads), requests)))
    whole_s = time.perf_counter() - started
    return LoadResult(
        clients=clients,
        requests=requests,
        seconds=whole_s,
        per_hour=3600 * requests / whole_s,
        median_s=quantile(times, 0.5),
        p95_s=quantile(times, 0.95),
        p99_s=quantile(times, 0.99),
        longest_s=max(times),
        refused=len(refused),
    )


def _must_be_ok(answer: httpx.Response) -> None:
    if answer.status_code != 200:
        raise RaypipeError(f"the service answered {answer.status_code}: {answer.text[:200]}")
    statuses = {row["status"] for row in answer.json()["results"]}
    if statuses != {"ok"}:
        raise RaypipeError(f"a phantom series ended as {sorted(statuses)}")


def burst(url: str, uploads: Sequence[Upload], *, jobs: int) -> BurstResult:
    """Send so many jobs at once, and wait for all that were accepted."""
    with httpx.Client(timeout=_TIMEOUT_S, limits=httpx.Limits(max_connections=jobs)) as client:

        def send(upload: Upload) -> httpx.Response:
            return client.post(f"{url}/v1/jobs", files=upload.form())

        with ThreadPoolExecutor(jobs) as pool:
            answers = list(pool.map(send, islice(cycle(uploads), jobs)))
        accepted = [a.json()["id"] for a in answers if a.status_code == 202]
        refused = [a for a in answers if a.status_code == 503]
        done = sum(_ended(client, url, job_id) == "done" for job_id in accepted)
    return BurstResult(
        sent=jobs,
        accepted=len(accepted),
        refused=len(refused),
        other=jobs - len(accepted) - len(refused),
        done=done,
        lost=len(accepted) - done,
        retry_after_s=sorted({int(a.headers["Retry-After"]) for a in refused}),
    )


def _ended(client: httpx.Client, url: str, job_id: str) -> str:
    until = time.monotonic() + _TIMEOUT_S
    while time.monotonic() < until:
        job = client.get(f"{url}/v1/jobs/{job_id}", params={"wait": 10}).json()
        if job["state"] in ("done", "failed", "cancelled"):
            return str(job["state"])
    return "waiting"


class ReplicaWatch:
    """Reads how many replicas run, again and again, from /metrics."""

    def __init__(self, url: str, every_s: float = 1.0) -> None:
        self._url, self._every_s = url, every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.seen: dict[str, list[int]] = {}

    def __enter__(self) -> "ReplicaWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        with httpx.Client(timeout=60.0) as client:
            while not self._stop.wait(self._every_s):
                text = client.get(f"{self._url}/metrics").text
                for name, number in _RUNNING.findall(text):
                    self.seen.setdefault(name, []).append(int(float(number)))


_RUNNING = re.compile(r'raypipe_replicas\{deployment="(\w+)",state="running"\} (\S+)')


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]
