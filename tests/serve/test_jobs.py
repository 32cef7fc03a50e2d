"""The queue: nothing accepted is lost, nothing is worked on for ever, nothing is kept for ever."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from raypipe.archive.storage import StorageConfig
from raypipe.errors import ConfigError
from raypipe.serve.config import JobsConfig
from raypipe.serve.jobs import JobQueue, OnChange, Refused
from raypipe.serve.store import JobRecord, JobStore, State, now

pytestmark = pytest.mark.anyio

Work = Callable[[JobRecord, OnChange], Coroutine[Any, Any, JobRecord]]


def a_job(number: int, owner: str = "one", **values: Any) -> JobRecord:
    created = now() + timedelta(milliseconds=number)
    return JobRecord(
        id=f"{number:032x}", owner=owner, created_at=created, source="x", uploaded=True, **values
    )


@pytest.fixture
def store(tmp_path: Path) -> JobStore:
    return JobStore(str(tmp_path / "jobs"), StorageConfig())


async def done_at_once(record: JobRecord, on_change: OnChange) -> JobRecord:
    return record


async def never_done(record: JobRecord, on_change: OnChange) -> JobRecord:
    on_change(record.changed(stage="detect", fraction=0.5))
    await asyncio.Event().wait()
    return record


def queue(store: JobStore, work: Work, **settings: Any) -> JobQueue:
    config = JobsConfig.model_validate({"max_running": 1, "sweep_every_s": 0.05} | settings)
    return JobQueue(store, config, work)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.005)


def state_of(jobs: JobQueue, record: JobRecord) -> State | None:
    found = jobs.get(record.id)
    return None if found is None else found.state


async def test_a_job_is_on_disk_before_it_counts_as_accepted(store: JobStore) -> None:
    jobs = queue(store, never_done)
    assert await jobs.submit(a_job(1)) is None
    assert [r.state for r in store.load()] == [State.QUEUED]


async def test_after_a_crash_waiting_and_running_jobs_go_on(store: JobStore) -> None:
    """A kill leaves the records as they are; the next queue takes them up in their order."""
    before = queue(store, never_done)
    await before.start()
    records = [a_job(n) for n in range(3)]
    for record in records:
        assert await before.submit(record) is None
    await until(lambda: state_of(before, records[0]) is State.RUNNING)
    await until(lambda: store.load()[0].state is State.RUNNING)
    seen = []

    async def work(record: JobRecord, on_change: OnChange) -> JobRecord:
        seen.append((record.id, record.attempts))
        return record

    after = queue(store, work)  # `before` is not stopped: it is dead
    await after.start()
    await until(lambda: all(state_of(after, r) is State.DONE for r in records))
    assert seen == [(records[0].id, 2), (records[1].id, 1), (records[2].id, 1)]
    assert after.counts().resumed == 3
    assert [r.state for r in store.load()] == [State.DONE] * 3
    await after.stop()
    await before.stop()


async def test_a_stop_puts_running_jobs_back_and_counts_no_attempt(store: JobStore) -> None:
    jobs = queue(store, never_done)
    await jobs.start()
    record = a_job(1)
    await jobs.submit(record)
    await until(lambda: state_of(jobs, record) is State.RUNNING)
    await jobs.stop()
    (kept,) = store.load()
    assert (kept.state, kept.attempts) == (State.QUEUED, 0)


async def test_a_job_that_kills_the_service_again_and_again_is_given_up(store: JobStore) -> None:
    store.write(a_job(1, state=State.RUNNING, attempts=3))
    jobs = queue(store, done_at_once, max_attempts=3)
    await jobs.start()
    await until(lambda: state_of(jobs, a_job(1)) is State.FAILED)
    assert store.load()[0].reason == "internal_error"
    await jobs.stop()


async def test_too_many_jobs_are_refused_and_say_when_to_come_back(store: JobStore) -> None:
    jobs = queue(store, never_done, max_queued=2, max_open_per_caller=2)
    for number in range(2):
        assert await jobs.submit(a_job(number)) is None
    refused = await jobs.submit(a_job(2, owner="two"))
    assert isinstance(refused, Refused) and refused.slug == "queue_full"
    assert 1 <= refused.retry_after_s <= 300
    jobs = queue(store, never_done, max_queued=9, max_open_per_caller=2)
    await jobs.start()
    refused = await jobs.submit(a_job(3))
    assert isinstance(refused, Refused) and refused.slug == "too_many_jobs"
    assert await jobs.submit(a_job(4, owner="two")) is None
    await jobs.stop()


async def test_a_job_that_is_sent_twice_is_one(store: JobStore) -> None:
    jobs = queue(store, never_done)
    assert await jobs.submit(a_job(1)) is None and await jobs.submit(a_job(1)) is None
    assert jobs.counts().waiting == 1


@pytest.mark.parametrize("runs", [True, False])
async def test_cancelling(store: JobStore, runs: bool) -> None:
    jobs = queue(store, never_done)
    await jobs.start()
    first, second = a_job(1), a_job(2)
    await jobs.submit(first)
    await jobs.submit(second)
    await until(lambda: state_of(jobs, first) is State.RUNNING)
    record = await jobs.cancel((first if runs else second).id)
    assert record is not None and record.state is State.CANCELLED and record.finished_at
    if runs:
        await until(lambda: state_of(jobs, second) is State.RUNNING)
    assert next(r for r in store.load() if r.id == record.id).state is State.CANCELLED
    await jobs.stop()


async def test_a_time_limit_ends_a_job_and_the_next_one_runs(store: JobStore) -> None:
    jobs = queue(store, never_done, time_limit_s=0.05)
    await jobs.start()
    for number in range(2):
        await jobs.submit(a_job(number))
    await until(lambda: all(r.ended for r in jobs.of(None)))
    assert {(r.state, r.reason) for r in store.load()} == {(State.FAILED, "time_limit")}
    await jobs.stop()


async def test_only_our_own_words_reach_the_record_of_a_failure(store: JobStore) -> None:
    async def work(record: JobRecord, on_change: OnChange) -> JobRecord:
        if record.owner == "ours":
            raise ConfigError("the source holds no files")
        raise ValueError("PatientName is Quatermain")

    jobs = queue(store, work)
    await jobs.start()
    await jobs.submit(a_job(1, owner="ours"))
    await jobs.submit(a_job(2, owner="foreign"))
    await until(lambda: all(r.ended for r in jobs.of(None)))
    found = {r.owner: (r.reason, r.message) for r in jobs.of(None)}
    assert found == {
        "ours": ("not_readable", "the source holds no files"),
        "foreign": ("internal_error", "ValueError"),
    }
    await jobs.stop()


async def test_waiting_ends_with_a_change_or_with_the_time(store: JobStore) -> None:
    jobs = queue(store, never_done)
    await jobs.start()
    record = a_job(1)
    await jobs.submit(record)
    while (seen := await jobs.wait(record.id, 2.0, ended=False)) and seen.fraction != 0.5:
        pass
    assert seen is not None and seen.stage == "detect"
    waited = await jobs.wait(record.id, 0.05, ended=True)
    assert waited is not None and waited.state is State.RUNNING
    assert await jobs.wait("f" * 32, 1.0, ended=True) is None
    await jobs.stop()


async def test_uploads_and_jobs_are_deleted_when_their_time_is_over(store: JobStore) -> None:
    old, older = now() - timedelta(hours=2), now() - timedelta(days=9)
    for number, finished in ((1, old), (2, older), (3, now())):
        record = a_job(number, state=State.DONE, finished_at=finished)
        store.put(record.id, "upload/x", b"pixels")
        store.write(record)
    jobs = queue(store, done_at_once, upload_retention_s=3600, result_retention_s=86400)
    await jobs.start()
    await until(lambda: len(store.load()) == 2)
    await until(lambda: any(r.upload_deleted for r in store.load()))
    kept = {r.id: r.upload_deleted for r in store.load()}
    assert kept == {a_job(1).id: True, a_job(3).id: False}
    assert store.get(a_job(1).id, "upload/x") is None
    assert store.get(a_job(3).id, "upload/x") == b"pixels"
    await jobs.stop()


class UnreachableError(Exception):
    """What botocore raises is no OSError."""


async def test_what_is_due_is_deleted_once_the_store_can_be_reached(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old, older = now() - timedelta(hours=2), now() - timedelta(days=9)
    for number, finished in ((1, older), (2, old)):
        store.put(a_job(number).id, "upload/x", b"pixels")
        store.write(a_job(number, state=State.DONE, finished_at=finished))
    erase, calls = store.erase, []

    def unreachable(job_id: str, name: str = "") -> None:
        calls.append(job_id)
        if len(calls) < 5:
            raise UnreachableError("https://host/bucket/of/a/patient")
        erase(job_id, name)

    monkeypatch.setattr(store, "erase", unreachable)
    jobs = queue(store, done_at_once, upload_retention_s=3600, result_retention_s=86400)
    await jobs.start()
    await until(lambda: [r.upload_deleted for r in store.load()] == [True])
    assert jobs.get(a_job(1).id) is None and store.get(a_job(1).id, "upload/x") is None
    assert set(calls[:2]) == {a_job(1).id, a_job(2).id}, "one does not keep the others"
    assert "UnreachableError" in caplog.text and "patient" not in caplog.text
    await jobs.stop()


@pytest.mark.parametrize("end", [State.DONE, State.CANCELLED])
async def test_an_end_is_written_once_the_store_can_be_reached(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, end: State
) -> None:
    write = store.write
    failures: list[State] = []

    def unreachable(record: JobRecord) -> None:
        if record.ended and len(failures) < 3:
            failures.append(record.state)
            raise UnreachableError
        write(record)

    monkeypatch.setattr(store, "write", unreachable)
    monkeypatch.setattr("raypipe.serve.jobs._WRITE_AGAIN_S", 0.01)
    monkeypatch.setattr("raypipe.serve.jobs._CANCEL_S", 0.01)
    jobs = queue(store, done_at_once if end is State.DONE else never_done)
    await jobs.start()
    record = a_job(1)
    await jobs.submit(record)
    if end is State.CANCELLED:
        await until(lambda: state_of(jobs, record) is State.RUNNING)
        told = await jobs.cancel(record.id)
        assert told is not None and told.state is State.RUNNING, "not yet, and nobody waits for it"
    await until(lambda: state_of(jobs, record) is end)
    assert failures == [end] * 3
    await until(lambda: not jobs.counts().running)
    assert [r.state for r in store.load()] == [end]
    await jobs.stop()


async def test_erasing_takes_everything(store: JobStore) -> None:
    jobs = queue(store, done_at_once)
    await jobs.start()
    record = a_job(1)
    await jobs.submit(record)
    await until(lambda: state_of(jobs, record) is State.DONE)
    await jobs.erase(record.id)
    assert jobs.get(record.id) is None and store.load() == []
    assert store.get(record.id, "job.json") is None
    await jobs.stop()


def test_what_an_upload_left_that_never_became_a_job_is_swept(store: JobStore) -> None:
    spool = store.spool("a" * 32)
    (spool / "x").write_bytes(b"pixels")
    store.write(a_job(1))
    assert store.strays({a_job(1).id}, older_than_s=60.0) == []
    assert store.strays({a_job(1).id}, older_than_s=-1.0) == [spool.name]
    assert not spool.exists() and len(store.load()) == 1


def test_jobs_on_s3(s3_endpoint: str, tmp_path: Path) -> None:
    """The same store on a server: records, uploads, deletion."""
    import boto3

    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket="jobs")
    store = JobStore("s3://jobs/here", StorageConfig(s3_endpoint=s3_endpoint))
    record = a_job(1)
    spool = store.spool(record.id)
    (spool / "file").write_bytes(b"pixels")
    source = store.adopt(record.id, spool)
    store.write(record)
    assert source == f"s3://jobs/here/{record.id}/upload" and not spool.exists()
    assert store.get(record.id, "upload/file") == b"pixels"
    assert [r.id for r in store.load()] == [record.id]
    store.erase(record.id, "upload")
    assert store.get(record.id, "upload/file") is None
    store.erase(record.id)
    assert store.load() == []
