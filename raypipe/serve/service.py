"""What every route needs: the config, the callers, the queue, the store.

In: a config and the handle of the queue. Out: answers of the queue, or a Problem.
Does not know: routes.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from raypipe.errors import RaypipeError
from raypipe.report.adapter import adapter_id
from raypipe.serve import artifacts
from raypipe.serve.auth import Authenticator, Caller
from raypipe.serve.auth_config import Role
from raypipe.serve.config import ServeConfig
from raypipe.serve.problems import Problem, busy, not_found
from raypipe.serve.store import JobRecord, JobStore, Row, State

_PATIENCE_S = 15.0
"""How long a request waits for a queue that is being started again."""


@dataclass(frozen=True)
class Service:
    """The parts that routes share."""

    config: ServeConfig
    authenticator: Authenticator
    store: JobStore
    queue: DeploymentHandle[Any]

    @classmethod
    def of(cls, request: Request) -> "Service":
        """The one of an app."""
        service: Service = request.app.state.service
        return service

    async def caller(self, request: Request) -> Caller:
        """Who sent a request."""
        return await self.authenticator.caller(request.headers.get("authorization"))

    @property
    def adapters(self) -> list[str]:
        """Ids that a request may name."""
        report = self.config.pipeline.report
        own = adapter_id(report)
        return sorted({*report.adapters, *([own] if own else [])})

    async def ask(self, method: str, *arguments: Any) -> Any:
        """Call the queue, again where it is just being started anew.

        Raises:
            Problem: 503 where it does not come back; 409 where the work cannot be done.
        """
        until = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return await getattr(self.queue, method).remote(*arguments)
            except (RayError, RayServeException) as error:
                cause = getattr(error, "cause", None)
                if isinstance(cause, RaypipeError):
                    raise Problem(409, "not_possible", str(cause)) from error
                if isinstance(error, RayTaskError) and not isinstance(cause, RayError):
                    raise  # our own mistake: asking again would repeat it
                if time.monotonic() > until:
                    retry = self.config.http.retry_after_s
                    raise busy("the queue of jobs is being restarted", retry) from error
                await asyncio.sleep(0.3)

    async def job(self, job_id: str, caller: Caller) -> JobRecord:
        """A job that the caller may see."""
        caller.need(Role.ANALYZE, Role.READ, Role.ADMIN)
        record: JobRecord | None = await self.ask("get", job_id)
        return self.seen(record, caller)

    @staticmethod
    def seen(record: JobRecord | None, caller: Caller) -> JobRecord:
        """The record, or 404 where there is none or it is somebody else's."""
        if record is None or not (caller.is_admin or record.owner == caller.owner):
            raise not_found()
        return record

    async def finished(
        self, job_id: str, series: str | None, caller: Caller
    ) -> tuple[JobRecord, Row]:
        """A job and the row of one of its series that ended well."""
        record = await self.job(job_id, caller)
        if record.state is not State.DONE:
            detail = f"the job is {record.state.value}" + (
                f": {record.reason}" if record.reason else ""
            )
            raise Problem(409, "not_ready", detail)
        keys = [s.series_key for s in record.series]
        if series is None and len(keys) != 1:
            raise Problem(422, "which_series", f"the job has {len(keys)} series: name one")
        key = series if series is not None else keys[0]
        if key not in keys:
            raise not_found()
        rows = await asyncio.to_thread(self.store.get_rows, job_id)
        row = next(row for row in rows if row["series_key"] == key)
        if row["report"] is None:
            raise Problem(409, "series_not_ok", f"{row['status']}: {row['reason']}")
        return record, row

    async def made(self, record: JobRecord, key: str, name: str, what: str) -> bytes:
        """A file of a series, made where it is not there yet."""
        path = artifacts.out(key, name)
        content = await asyncio.to_thread(self.store.get, record.id, path)
        if content is None:
            if record.upload_deleted:
                raise Problem(410, "upload_deleted", "the upload was deleted after its retention")
            await self.ask("make", record.id, key, what)
            content = await asyncio.to_thread(self.store.get, record.id, path)
        if content is None:
            raise Problem(409, "not_possible", "it could not be made from this series")
        return content

    async def exported(self, record: JobRecord, key: str, format_: str, name: str) -> bytes:
        """SR, SEG or FHIR of a series."""
        known = json.loads(await self.made(record, key, artifacts.EXPORTS, "exports"))
        if format_ in known["missing"]:
            raise Problem(409, "format_not_possible", known["missing"][format_])
        return await self.made(record, key, name, "exports")
