"""What the routes share: who calls, how ids look, which problems they answer with.

In: requests. Out: annotated types and descriptions for OpenAPI. Does not know: what a route does.
"""

from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi import Path as PathField
from fastapi.security import HTTPBearer

from raypipe.serve.auth import Caller
from raypipe.serve.problems import MEDIA_TYPE
from raypipe.serve.schemas import JOB_ID, SERIES_KEY, ProblemBody
from raypipe.serve.service import Service

_bearer = HTTPBearer(auto_error=False, description="An API key, or a token of the provider.")


async def caller_of(request: Request, _: Annotated[Any, Depends(_bearer)]) -> Caller:
    """Who sends a request."""
    return await Service.of(request).caller(request)


CallerIs = Annotated[Caller, Depends(caller_of)]
JobId = Annotated[str, PathField(pattern="^[0-9a-f]{32}$", examples=[JOB_ID])]
SeriesKey = Annotated[
    str | None,
    Query(
        pattern="^[0-9a-f]{32}$",
        description="key of the series; may be left out where the job has one",
        examples=[SERIES_KEY],
    ),
]

_TEXTS = {
    400: "the request is broken off or malformed",
    401: "no key, or a wrong one",
    403: "the role or the address is not allowed",
    404: "there is nothing here for this caller",
    408: "the body came too slowly",
    409: "not ready, or not possible",
    410: "the upload was deleted after its retention",
    413: "too large",
    415: "neither multipart nor JSON",
    421: "a Host that is not ours",
    422: "the request breaks a rule",
    429: "too many open jobs of this caller",
    503: "busy: come back after Retry-After",
}


def problems() -> dict[int | str, dict[str, Any]]:
    """Every problem that a route may answer with."""
    schema = {"schema": ProblemBody.model_json_schema()}
    return {
        status: {"description": text, "content": {MEDIA_TYPE: schema}}
        for status, text in _TEXTS.items()
    }


def job_address(request: Request, job_id: str) -> str:
    """The path of a job, also behind a prefix."""
    return f"{request.scope.get('root_path', '')}/v1/jobs/{job_id}"
