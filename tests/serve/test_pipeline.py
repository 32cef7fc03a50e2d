"""The chain of a series, without deployments."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError, RayError

from raypipe.archive.storage import StorageConfig
from raypipe.serve.config import JobsConfig
from raypipe.serve.pipeline import Pipeline
from raypipe.serve.store import JobStore

pytestmark = pytest.mark.anyio


def _pipeline(folder: Path, config: JobsConfig) -> Pipeline:
    none: Any = None
    store = JobStore(str(folder), StorageConfig())
    return Pipeline(store, config, loader=none, detector=none, reporter=none)


class _Response:
    async def _to_object_ref(self) -> str:
        return "a reference"


async def test_series_that_wait_leave_the_threads_of_the_loop_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = JobsConfig(max_running=2, series_at_a_time=3)
    all_wait, over = threading.Barrier(6 + 1), threading.Event()

    def wait(*_: Any, **__: Any) -> None:
        all_wait.wait(5.0)
        over.wait(5.0)

    monkeypatch.setattr(ray, "wait", wait)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    pipeline = _pipeline(tmp_path, config)
    series = [asyncio.create_task(pipeline._finished(_Response())) for _ in range(6)]
    await asyncio.to_thread(all_wait.wait, 5.0)  # in the one thread that the loop has
    over.set()
    await asyncio.gather(*series)


async def test_a_series_that_kills_replicas_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A single replica: whatever runs on it when it dies, dies with it, and comes back at once."""
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)
    pipeline = _pipeline(tmp_path, JobsConfig(max_attempts=3))
    running: set[str] = set()
    dead: set[str] = set()

    async def work(name: str) -> str:
        running.add(name)
        await asyncio.sleep(0.02)
        if name == "deadly":
            dead.update(running)
        await asyncio.sleep(0.02)
        running.discard(name)
        if name in dead:
            dead.discard(name)
            raise RayActorError
        return name

    names = ("a", "deadly", "b", "c")
    ended = await asyncio.gather(
        *(pipeline._patiently(partial(work, name)) for name in names), return_exceptions=True
    )
    assert [e for e in ended if isinstance(e, str)] == ["a", "b", "c"]
    assert isinstance(ended[1], RayError)
