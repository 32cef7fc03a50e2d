"""DICOMweb (PS3.18): STOW-RS takes studies in, QIDO-RS and WADO-RS hand SR and SEG out.

In: multipart/related bodies, queries by attribute. Out: DICOM JSON, multipart/related.
Does not know: how an object is made. Stored studies are not handed out again: a PACS has them.
"""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as PathField

from raypipe.archive.deflated import expanded
from raypipe.errors import SeriesError
from raypipe.serve import artifacts
from raypipe.serve.auth import Caller
from raypipe.serve.auth_config import Role
from raypipe.serve.door import CallerIs, job_address, problems
from raypipe.serve.multipart import Received as Body
from raypipe.serve.problems import Problem, not_found
from raypipe.serve.service import Service
from raypipe.serve.store import JobRecord, State
from raypipe.serve.submit import submit
from raypipe.sink.dicom_json import (
    CANNOT_UNDERSTAND,
    NO_OBJECT,
    WRONG_STUDY,
    Attributes,
    Received,
    attributes,
    received,
    stow_response,
    tag_of,
)

_DICOM_JSON = "application/dicom+json"
_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_NOT_FILTERS = frozenset({"limit", "offset", "includefield", "fuzzymatching"})

Uid = Annotated[str, PathField(pattern=r"^[0-9.]{1,64}$", examples=["1.2.840.113619.2.55.3"])]
Limit = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=1_000_000)]

router = APIRouter(prefix="/dicomweb", tags=["dicomweb"], responses=problems())

_STOW_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/related": {
                "schema": {
                    "type": "string",
                    "format": "binary",
                    "description": 'type="application/dicom"; one instance a part',
                }
            }
        },
    }
}


@dataclass(frozen=True)
class Instance:
    """One SR or SEG, and where it lies."""

    job_id: str
    path: str
    attributes: Attributes

    def value(self, tag: str) -> str:
        """The first value of an attribute as text, "" where there is none."""
        values = self.attributes.get(tag, {}).get("Value") or [""]
        first = values[0]
        return str(first.get("Alphabetic", "") if isinstance(first, dict) else first)


@router.post("/studies", openapi_extra=_STOW_BODY)
async def store(request: Request, caller: CallerIs) -> Response:
    """STOW-RS: store instances, which are then worked on as a job (its address: Location)."""
    return await _stow(request, caller, None)


@router.post("/studies/{study}", openapi_extra=_STOW_BODY)
async def store_into(request: Request, caller: CallerIs, study: Uid) -> Response:
    """STOW-RS: store instances of one study."""
    return await _stow(request, caller, study)


async def _stow(request: Request, caller: Caller, study: str | None) -> Response:
    stored: list[Received] = []
    failed: list[tuple[Received, int]] = []

    async def check(body: Body) -> None:
        await asyncio.to_thread(_part, body, study, stored, failed)
        if not stored:
            raise Problem(409, "nothing_stored", "no part is a DICOM instance of the study")

    limits = Service.of(request).config.limits
    if not request.headers.get("content-type", "").startswith("multipart/related"):
        raise Problem(415, "not_multipart", 'send multipart/related; type="application/dicom"')
    record = await submit(
        request,
        caller,
        max_bytes=int(limits.max_upload_gib * 2**30),
        check=check,
        export_at_end=True,
    )
    url = f"{_base(request)}/studies/{stored[0].study_uid}"
    answer = json.dumps(stow_response(stored, failed, url))
    headers = {"Location": job_address(request, record.id)}
    return Response(answer, 202 if failed else 200, headers, media_type=_DICOM_JSON)


def _part(
    body: Body, study: str | None, stored: list[Received], failed: list[tuple[Received, int]]
) -> None:
    """Tell instances from what is none, and take the latter away."""
    for file in list(body.files):
        with file.open("rb") as content:
            try:
                one = received(expanded(content))
            except SeriesError:  # deflated and damaged
                one = NO_OBJECT
        wrong = one.is_object and study not in (None, one.study_uid)
        if one.is_object and not wrong:
            stored.append(one)
            continue
        failed.append((one, WRONG_STUDY if wrong else CANNOT_UNDERSTAND))
        body.files.remove(file)
        file.unlink()


def _base(request: Request) -> str:
    root = request.scope.get("root_path", "")
    return f"{request.url.scheme}://{request.url.netloc}{root}/dicomweb"


Wanted = dict[str, str]
"""Tag -> value that a path names."""


def _anything() -> Wanted:
    return {}


def _of_study(study: Uid) -> Wanted:
    return {_STUDY: study}


def _of_series(study: Uid, series: Uid) -> Wanted:
    return {_STUDY: study, _SERIES: series}


def _of_instance(study: Uid, series: Uid, instance: Uid) -> Wanted:
    return {_STUDY: study, _SERIES: series, _INSTANCE: instance}


Where = Callable[..., Wanted]
Answer = Callable[..., Awaitable[Response]]


def _search(level: str, where: Where) -> Answer:
    async def search(
        request: Request,
        caller: CallerIs,
        wanted: Annotated[Wanted, Depends(where)],
        limit: Limit = 100,
        offset: Offset = 0,
    ) -> Response:
        """QIDO-RS: what has results; filters are attributes, with the wild cards * and ?."""
        fits = await _fitting(request, caller, wanted)
        found: dict[str, Attributes] = {}  # once for each UID of the level
        for instance in fits:
            found.setdefault(instance.value(level), instance.attributes)
        chosen = list(found.values())[offset : offset + limit]
        return Response(json.dumps(chosen), media_type=_DICOM_JSON)

    return search


def _retrieve(where: Where) -> Answer:
    async def retrieve(
        request: Request, caller: CallerIs, wanted: Annotated[Wanted, Depends(where)]
    ) -> Response:
        """WADO-RS: results, SR and SEG."""
        contents = await _contents(request, caller, wanted)
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + content + b"\r\n" for content in contents)
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        return Response(body + f"--{boundary}--\r\n".encode(), headers={"Content-Type": kind})

    return retrieve


def _metadata(where: Where) -> Answer:
    async def metadata(
        request: Request, caller: CallerIs, wanted: Annotated[Wanted, Depends(where)]
    ) -> Response:
        """WADO-RS: attributes of results."""
        contents = await _contents(request, caller, wanted)
        whole = await asyncio.to_thread(lambda: [attributes(c, whole=True) for c in contents])
        return Response(json.dumps(whole), media_type=_DICOM_JSON)

    return metadata


_ONE = "/studies/{study}"
_ONE_SERIES = f"{_ONE}/series/{{series}}"
_ONE_INSTANCE = f"{_ONE_SERIES}/instances/{{instance}}"

for _path, _name, _answer in (
    ("/studies", "search_studies", _search(_STUDY, _anything)),
    ("/series", "search_all_series", _search(_SERIES, _anything)),
    ("/instances", "search_all_instances", _search(_INSTANCE, _anything)),
    (f"{_ONE}/series", "search_series", _search(_SERIES, _of_study)),
    (f"{_ONE}/instances", "search_instances", _search(_INSTANCE, _of_study)),
    (f"{_ONE_SERIES}/instances", "search_series_instances", _search(_INSTANCE, _of_series)),
    (_ONE, "retrieve_study", _retrieve(_of_study)),
    (f"{_ONE}/metadata", "study_metadata", _metadata(_of_study)),
    (_ONE_SERIES, "retrieve_series", _retrieve(_of_series)),
    (f"{_ONE_SERIES}/metadata", "series_metadata", _metadata(_of_series)),
    (_ONE_INSTANCE, "retrieve_instance", _retrieve(_of_instance)),
    (f"{_ONE_INSTANCE}/metadata", "instance_metadata", _metadata(_of_instance)),
):
    router.add_api_route(_path, _answer, name=_name, response_class=Response)


async def _instances(request: Request, caller: Caller, study: str | None) -> list[Instance]:
    """Every SR and SEG that a caller may see, of one study or of all."""
    caller.need(Role.ANALYZE, Role.READ, Role.ADMIN)
    service = Service.of(request)
    records: list[JobRecord] = await service.ask("of", None if caller.is_admin else caller.owner)
    return await asyncio.to_thread(_listed, service, records, study)


def _listed(service: Service, records: Sequence[JobRecord], study: str | None) -> list[Instance]:
    found: dict[str, Instance] = {}
    for record in sorted(records, key=lambda r: r.created_at):
        if record.state is not State.DONE or not record.studies:
            continue
        if study is not None and study not in record.studies:
            continue
        for state in record.series:
            path = artifacts.out(state.series_key, artifacts.EXPORTS)
            for one in json.loads(service.store.get(record.id, path) or b"{}").get("instances", ()):
                place = artifacts.out(state.series_key, one["file"])
                instance = Instance(record.id, place, one["attributes"])
                found[instance.value(_INSTANCE)] = instance  # sent twice: the newer one
    return list(found.values())


async def _fitting(request: Request, caller: Caller, wanted: Wanted) -> list[Instance]:
    """What fits the path and the filters of a query."""
    filters = dict(wanted)
    for name, value in request.query_params.items():
        if name.lower() not in _NOT_FILTERS:
            tag = tag_of(name)
            if tag is None:
                raise Problem(400, "unknown_attribute", "a query names no attribute of DICOM")
            filters[tag] = value
    return [
        instance
        for instance in await _instances(request, caller, wanted.get(_STUDY))
        if all(fnmatchcase(instance.value(tag), _pattern(v)) for tag, v in filters.items())
    ]


def _pattern(value: str) -> str:
    """DICOM has the wild cards * and ?, and no character classes."""
    return value.replace("[", "[[]") if value else "*"


async def _contents(request: Request, caller: Caller, wanted: Wanted) -> list[bytes]:
    """The objects that a path names; 404 where there are none."""
    service = Service.of(request)
    contents = []
    for instance in await _instances(request, caller, wanted[_STUDY]):
        if all(instance.value(tag) == value for tag, value in wanted.items()):
            content = await asyncio.to_thread(service.store.get, instance.job_id, instance.path)
            contents += [] if content is None else [content]
    if not contents:
        raise not_found()
    return contents
