"""From a request to an accepted job: room, body, limits, source, record.

In: a request and its caller. Out: the record of a job that is on stable storage, or a Problem.
Does not know: routes, how a job is worked on.
"""

import asyncio
import json
import shutil
import uuid
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from raypipe.archive.members import damage_as_series_error, iterate_members
from raypipe.errors import SeriesError
from raypipe.serve.auth import Caller
from raypipe.serve.auth_config import Role
from raypipe.serve.config import ServeConfig
from raypipe.serve.jobs import Refused
from raypipe.serve.multipart import BodyLimits, Received, receive, too_large
from raypipe.serve.problems import Problem, busy
from raypipe.serve.service import Service
from raypipe.serve.sources import allowed_source
from raypipe.serve.store import JobRecord, now

_MAX_JSON = 16 << 10
_DIRECTORY_BYTES = 1 << 20
"""The directory of a zip may have so many however few members are allowed."""
_ENTRY_BYTES = 512
"""As much of the directory as a member may take up on average: its name, and 46 bytes or more."""

Check = Callable[[Received], Awaitable[None]]
"""Looks at files before they become a job; may take some away or raise."""


async def submit(
    request: Request,
    caller: Caller,
    *,
    max_bytes: int,
    check: Check | None = None,
    export_at_end: bool = False,
) -> JobRecord:
    """Accept what a request holds as a job.

    Raises:
        Problem: the caller may not, there is no room, or the body breaks a rule.
    """
    service = Service.of(request)
    caller.need(Role.ANALYZE)
    _raise_if_refused(await service.ask("room", caller.owner))  # before the body is read
    job_id = uuid.uuid4().hex
    facts: dict[str, Any]
    if _is_json(request):
        facts = _named_source(service, await _json_body(request))
    else:
        facts = await _upload(request, service, job_id, max_bytes, check)
    if facts["adapter"] is not None and facts["adapter"] not in service.adapters:
        await asyncio.to_thread(service.store.erase, job_id)
        raise Problem(422, "unknown_adapter", f"adapter: one of {service.adapters or 'none'}")
    record = JobRecord(
        id=job_id,
        owner=caller.owner,
        created_at=now(),
        export_at_end=export_at_end,
        **facts,
    )
    try:
        _raise_if_refused(await service.ask("submit", record))
    except Problem:
        await asyncio.to_thread(service.store.erase, job_id)
        raise
    return record


def _raise_if_refused(refused: Refused | None) -> None:
    if refused is None:
        return
    if refused.slug == "too_many_jobs":
        detail = "this caller has as many open jobs as jobs.max_open_per_caller allows"
        raise busy(detail, refused.retry_after_s, 429, refused.slug)
    raise busy("as many jobs wait as jobs.max_queued allows", refused.retry_after_s, 503, "busy")


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip() == "application/json"


async def _json_body(request: Request) -> dict[str, Any]:
    content = b""
    try:
        async with asyncio.timeout(Service.of(request).config.limits.idle_timeout_s):
            async for chunk in request.stream():
                content += chunk
                if len(content) > _MAX_JSON:
                    raise too_large(_MAX_JSON)
        body = json.loads(content)
    except TimeoutError as error:
        raise Problem(408, "too_slow", "the body did not come in time") from error
    except (ValueError, RecursionError) as error:
        raise Problem(422, "malformed_json", "the body is not JSON") from error
    wanted = {"uri": str, "adapter": str | None}
    if (
        not isinstance(body, dict)
        or "uri" not in body
        or body.keys() - wanted.keys()
        or not all(isinstance(value, wanted[name]) for name, value in body.items())
    ):
        raise Problem(422, "invalid_request", 'send {"uri": ADDRESS, "adapter": ID or null}')
    return body


def _named_source(service: Service, body: dict[str, Any]) -> dict[str, Any]:
    source = allowed_source(body["uri"], service.config.limits.uris)
    return {"source": source, "uploaded": False, "adapter": body.get("adapter")}


async def _upload(
    request: Request, service: Service, job_id: str, max_bytes: int, check: Check | None
) -> dict[str, Any]:
    """Store what a request uploads; nothing is left of it where that fails."""
    limits = service.config.limits
    if int(request.headers.get("content-length") or 0) > max_bytes:
        raise too_large(max_bytes)
    bounds = BodyLimits(
        max_bytes=max_bytes,
        max_files=limits.max_files,
        total_s=limits.upload_timeout_s,
        idle_s=limits.idle_timeout_s,
    )
    spool = await asyncio.to_thread(service.store.spool, job_id)
    try:
        received = await receive(
            aiter(request.stream()), request.headers.get("content-type", ""), spool, bounds
        )
        if check is not None:
            await check(received)
        if not received.files:
            raise Problem(422, "no_files", "no file came in the field `files`")
        await asyncio.to_thread(_check_archives, received.files, service.config)
        source = await asyncio.to_thread(service.store.adopt, job_id, spool)
    except ClientDisconnect as error:
        raise Problem(400, "disconnected", "the caller went away") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, spool, ignore_errors=True)
    return {
        "source": source,
        "uploaded": True,
        "adapter": received.fields.get("adapter") or None,
        "byte_size": received.byte_size,
    }


def _check_archives(files: list[Path], config: ServeConfig) -> None:
    """Refuse a zip whose own directory says that it breaks the limits, before it is expanded."""
    storage = config.limited.archive.storage
    longest = max(_DIRECTORY_BYTES, storage.max_members * _ENTRY_BYTES)
    for file in files:
        if file.suffix == ".zip":
            try:
                with damage_as_series_error():
                    size = _directory_size(file)
                if size > longest:
                    allowed = f"limits.max_members {storage.max_members}"
                    detail = f"the zip's directory has {size} bytes, more than {allowed} needs"
                    raise Problem(422, "archive_refused", detail)
                next(iter(iterate_members(str(file), file.stat().st_size, storage)), None)
            except SeriesError as error:
                raise Problem(422, "archive_refused", error.message) from error


def _directory_size(file: Path) -> int:
    """Bytes of a zip's directory, 0 where there is none.

    zipfile reads so many bytes into memory and makes an object of every entry in them, whatever
    the number of entries is said to be.
    """
    with file.open("rb") as content:
        end = zipfile._EndRecData(content)  # type: ignore[attr-defined]
    return 0 if end is None else int(end[zipfile._ECD_SIZE])  # type: ignore[attr-defined]
