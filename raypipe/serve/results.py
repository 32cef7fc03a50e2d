"""The routes of results: report, findings, DICOM SR and SEG, FHIR, PDF, volume, attention.

In: the id of a job and the key of a series. Out: JSON and files. Does not know: how they are made.
"""

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from raypipe.exports import FILE_NAMES, MEDIA_TYPES, Format
from raypipe.serve import artifacts
from raypipe.serve.auth import Caller
from raypipe.serve.door import CallerIs, JobId, SeriesKey, problems
from raypipe.serve.schemas import Report, findings_of, report_of
from raypipe.serve.service import Service
from raypipe.sink.report_pdf import report_pdf

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["results"], responses=problems())


def _file(description: str, media_type: str) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"response_class": Response, "responses": {200: {"description": description,
            "content": content}}}  # fmt: skip


def _attached(content: bytes, media_type: str, key: str, name: str) -> Response:
    disposition = f'attachment; filename="{key[:12]}-{name}"'
    return Response(content, media_type=media_type, headers={"Content-Disposition": disposition})


@router.get("/report")
async def report(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Report:
    """The report: sentences, and the findings that each cites."""
    _, row = await Service.of(request).finished(job_id, series, caller)
    return report_of(row)


@router.get("/findings")
async def findings(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> list[dict[str, Any]]:
    """The findings, as batch writes them; boxes are voxels (z, y, x) of the volume."""
    _, row = await Service.of(request).finished(job_id, series, caller)
    return findings_of(row)


async def _export(
    request: Request, caller: Caller, job_id: str, series: str | None, format_: Format
) -> Response:
    service = Service.of(request)
    record, row = await service.finished(job_id, series, caller)
    key, name = row["series_key"], FILE_NAMES[format_]
    content = await service.exported(record, key, format_.value, name)
    return _attached(content, MEDIA_TYPES[format_], key, name)


@router.get("/sr", **_file("a DICOM structured report, TID 1500", "application/dicom"))
async def sr(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Response:
    """DICOM SR that refers to the source's instances."""
    return await _export(request, caller, job_id, series, Format.SR)


@router.get("/seg", **_file("a DICOM segmentation of boxes", "application/dicom"))
async def seg(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Response:
    """DICOM SEG; segments are boxes, not contours."""
    return await _export(request, caller, job_id, series, Format.SEG)


@router.get("/fhir", **_file("a FHIR R4 bundle", "application/fhir+json"))
async def fhir(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Response:
    """A FHIR DiagnosticReport with its Observations."""
    return await _export(request, caller, job_id, series, Format.FHIR)


@router.get("/pdf", **_file("the report for people", "application/pdf"))
async def pdf(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Response:
    """The report as a PDF."""
    _, row = await Service.of(request).finished(job_id, series, caller)
    content = await asyncio.to_thread(report_pdf, row)
    return _attached(content, "application/pdf", row["series_key"], artifacts.PDF)


async def _image(
    request: Request, caller: Caller, job_id: str, series: str | None, name: str, what: str
) -> Response:
    service = Service.of(request)
    record, row = await service.finished(job_id, series, caller)
    content = await service.made(record, row["series_key"], name, what)
    return _attached(content, "application/gzip", row["series_key"], name)


@router.get("/volume", **_file("NIfTI-1 .nii.gz, int16 HU", "application/gzip"))
async def volume(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Response:
    """The volume that boxes lie on."""
    return await _image(request, caller, job_id, series, artifacts.VOLUME, "volume")


@router.get("/attention", **_file("NIfTI-1 .nii.gz, float32 from 0 to 1", "application/gzip"))
async def attention(
    request: Request, caller: CallerIs, job_id: JobId, series: SeriesKey = None
) -> Response:
    """Where the detector looked, on a grid of its own in the same patient space."""
    return await _image(request, caller, job_id, series, artifacts.ATTENTION, "attention")
