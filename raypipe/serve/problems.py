"""Errors of the service as application/problem+json (RFC 9457).

In: a Problem that a route raises, or whatever else goes wrong. Out: a response that names what is
wrong and what to do; it never repeats what the caller sent, nor the text of a foreign error.
Does not know: routes.
"""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("ray.serve")


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """A request that gets an error.

    Args:
        status: of HTTP.
        slug: kind of problem, stable for programs.
        detail: field, rule, value and remedy for people; no patient data.
        headers: further headers of the response.
    """

    def __init__(
        self, status: int, slug: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(f"{status} {slug}: {detail}")
        self.status, self.slug, self.detail = status, slug, detail
        self.headers = headers or {}

    @property
    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        return {
            "type": f"urn:raypipe:{self.slug}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }

    def response(self) -> JSONResponse:
        """The response."""
        return JSONResponse(
            self.body, status_code=self.status, headers=self.headers, media_type=MEDIA_TYPE
        )


def busy(detail: str, retry_after_s: float, status: int = 503, slug: str = "busy") -> Problem:
    """Too much to do: come back after so many seconds."""
    return Problem(status, slug, detail, {"Retry-After": str(max(1, round(retry_after_s)))})


def not_found() -> Problem:
    """There is no such thing, or it is somebody else's: the two are not told apart."""
    return Problem(404, "not_found", "there is nothing here for this caller")


def add_handlers(api: FastAPI) -> None:
    """Answer every error of an app by problem+json."""

    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response()

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        fields = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5]
        )
        return Problem(422, "invalid_request", fields).response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        phrase = HTTPStatus(error.status_code).phrase
        slug = phrase.lower().replace(" ", "_").replace("-", "_")
        headers = dict(error.headers or {})
        return Problem(error.status_code, slug, phrase, headers).response()

    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        route = getattr(request.scope.get("route"), "path", "no route")
        _LOG.error("%s %s ended with %s", request.method, route, type(error).__name__)
        return Problem(500, "internal_error", "an unexpected error of the service").response()

    api.add_exception_handler(Problem, problem)
    api.add_exception_handler(RequestValidationError, invalid)
    api.add_exception_handler(HTTPException, http)
    api.add_exception_handler(Exception, unexpected)
