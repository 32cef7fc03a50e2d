"""The HTTP API: the app, and the routes of jobs.

In: requests. Out: JSON, files, problem+json. Does not know: how a job is worked on.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline

from raypipe import __version__
from raypipe.serve import dicomweb, results
from raypipe.serve.auth_config import Role
from raypipe.serve.door import CallerIs, JobId, job_address, problems
from raypipe.serve.guard import Guard
from raypipe.serve.problems import Problem, add_handlers, busy
from raypipe.serve.schemas import (
    UPLOAD_BODY,
    Analysis,
    Job,
    PublicConfig,
    analysis_of,
    job_of,
)
from raypipe.serve.service import Service
from raypipe.serve.store import JobRecord
from raypipe.serve.submit import submit

_PAGE = Path(__file__).parent / "viewer" / "static"
_ABOUT = (
    "Detects abnormalities in CT series and describes them. Send series to `/v1/analyze` and wait, "
    "or to `/v1/jobs` and ask again. **Research use only. Not a medical device.**"
)

jobs = APIRouter(prefix="/v1", tags=["jobs"], responses=problems())


@jobs.post(
    "/analyze",
    response_model=Analysis,
    responses={202: {"model": Job, "description": "it takes longer: ask for the job"}},
    openapi_extra={"requestBody": UPLOAD_BODY},
)
async def analyze(request: Request, caller: CallerIs) -> Response | Analysis:
    """Analyze series and wait for the result; large ones go to /v1/jobs."""
    service = Service.of(request)
    limits = service.config.limits
    record = await submit(request, caller, max_bytes=int(limits.max_sync_mib * 2**20))
    ended = await service.ask("wait", record.id, limits.sync_timeout_s, True)
    record = Service.seen(ended, caller)
    if not record.ended:
        return _accepted(request, record)
    rows = await asyncio.to_thread(service.store.get_rows, record.id)
    return analysis_of(record, rows)


@jobs.post("/jobs", status_code=202, response_model=Job, openapi_extra={"requestBody": UPLOAD_BODY})
async def create(request: Request, caller: CallerIs) -> Response:
    """Accept series as a job; once this answers, the job is not lost."""
    limits = Service.of(request).config.limits
    max_bytes = int(limits.max_upload_gib * 2**30)
    return _accepted(request, await submit(request, caller, max_bytes=max_bytes))


def _accepted(request: Request, record: JobRecord) -> Response:
    headers = {"Location": job_address(request, record.id), "Retry-After": "1"}
    return JSONResponse(job_of(record).model_dump(mode="json"), 202, headers)


@jobs.get("/jobs")
async def listed(
    request: Request, caller: CallerIs, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[Job]:
    """The caller's jobs, the newest first; an admin sees everybody's."""
    caller.need(Role.ANALYZE, Role.READ, Role.ADMIN)
    owner = None if caller.is_admin else caller.owner
    records: list[JobRecord] = await Service.of(request).ask("of", owner)
    newest = sorted(records, key=lambda r: r.created_at, reverse=True)
    return [job_of(record) for record in newest[:limit]]


@jobs.get("/jobs/{job_id}")
async def job(
    request: Request,
    caller: CallerIs,
    job_id: JobId,
    wait: Annotated[float, Query(ge=0, le=30, description="wait for a change, in s")] = 0.0,
) -> Job:
    """A job as it is, or once it changes."""
    service = Service.of(request)
    record = await service.job(job_id, caller)
    if wait and not record.ended:
        record = Service.seen(await service.ask("wait", job_id, wait, False), caller)
    return job_of(record)


@jobs.delete(
    "/jobs/{job_id}",
    response_model=Job,
    responses={204: {"description": "it had ended: its data are erased"}},
)
async def cancel(request: Request, caller: CallerIs, job_id: JobId) -> Response | Job:
    """Cancel a job that waits or runs; erase one that has ended."""
    caller.need(Role.ANALYZE, Role.ADMIN)
    service = Service.of(request)
    record = await service.job(job_id, caller)
    if record.ended:
        await service.ask("erase", job_id)
        return Response(status_code=204)
    return job_of(Service.seen(await service.ask("cancel", job_id), caller))


public = APIRouter(tags=["service"])


@public.get("/v1/config")
async def config(request: Request) -> PublicConfig:
    """What a caller may know without a key."""
    service = Service.of(request)
    settings = service.config
    return PublicConfig(
        auth=settings.auth.mode,
        version=__version__,
        max_upload_bytes=int(settings.limits.max_upload_gib * 2**30),
        max_files=settings.limits.max_files,
        adapters=service.adapters,
    )


@public.get("/healthz", response_class=PlainTextResponse)
async def healthz() -> str:
    """Whether this process answers."""
    return "ok\n"


@public.get("/readyz", response_class=PlainTextResponse, responses=problems())
async def readyz(request: Request) -> str:
    """Whether jobs are accepted and worked on: every deployment that must run does."""
    service = Service.of(request)
    replicas: dict[str, dict[str, int]] = await service.ask("replicas")
    for name in ("loader", "detector", "reporter"):
        needed = getattr(service.config.pools, name).min_replicas
        if needed and not replicas.get(name.capitalize(), {}).get("RUNNING"):
            raise busy(f"no replica of {name} runs yet", service.config.http.retry_after_s)
    return "ready\n"


@public.get("/metrics", response_class=PlainTextResponse, responses=problems())
async def metrics(request: Request) -> Response:
    """Prometheus metrics; for admins, or for everybody where auth.open_metrics says so."""
    service = Service.of(request)
    if not service.config.auth.open_metrics:
        (await service.caller(request)).need(Role.ADMIN)
    text: bytes = await service.ask("metrics")
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@public.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page."""
    if not (_PAGE / "index.html").is_file():
        raise Problem(404, "no_page", "this installation has no page; the API is at /docs")
    return FileResponse(_PAGE / "index.html")


def make_api(service: Service) -> FastAPI:
    """The app around a service."""
    api = FastAPIOffline(
        title="raypipe",
        version=__version__,
        description=_ABOUT,
        redoc_url=None,
        redirect_slashes=False,
    )
    api.state.service = service
    add_handlers(api)
    for router in (jobs, results.router, dicomweb.router, public):
        api.include_router(router)
    if _PAGE.is_dir():
        api.mount("/static", StaticFiles(directory=_PAGE), name="page")

    async def count(seen: list[Any]) -> None:
        await service.ask("count", seen)

    api.add_middleware(Guard, loopback_only=service.config.auth.mode == "none", count=count)
    return api
