"""What the API answers with, as it stands in its OpenAPI description.

In: records and rows. Out: models with examples. Does not know: routes.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.windows import anatomy_window
from raypipe.serve.store import JobRecord, Row, SeriesState

JOB_ID = "20be1c7f9a6d4a0f9b7c1e2d3f405162"
SERIES_KEY = "3f2a6f0c9d1b4e7f8a5c2d3e4f506172"


class Progress(BaseModel):
    """How far a job is."""

    stage: Literal["load", "prepare", "detect", "describe"]
    fraction: float = Field(ge=0, le=1)


class Job(BaseModel):
    """A job."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": JOB_ID,
                    "state": "running",
                    "created_at": "2026-03-04T05:06:07Z",
                    "finished_at": None,
                    "progress": {"stage": "detect", "fraction": 0.42},
                    "reason": None,
                    "message": None,
                    "adapter": None,
                    "series": [
                        {
                            "series_key": SERIES_KEY,
                            "status": "pending",
                            "kind": "dicom",
                            "modality": "CT",
                            "body_part": "chest",
                            "instances": 60,
                            "shape_zyx": [60, 512, 512],
                            "spacing_zyx_mm": [5.0, 0.7, 0.7],
                        }
                    ],
                }
            ]
        }
    )

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    created_at: datetime
    finished_at: datetime | None
    progress: Progress
    reason: str | None = Field(description="slug; why it failed")
    message: str | None
    adapter: str | None
    series: list[SeriesState]


def job_of(record: JobRecord) -> Job:
    """A record as callers see it."""
    return Job.model_validate(
        {
            "id": record.id,
            "state": record.state.value,
            "created_at": record.created_at,
            "finished_at": record.finished_at,
            "progress": {"stage": record.stage, "fraction": record.fraction},
            "reason": record.reason,
            "message": record.message,
            "adapter": record.adapter,
            "series": [series.model_dump() for series in record.series],
        }
    )


class Sentence(BaseModel):
    """A sentence of a report."""

    section: Literal["findings", "impression"]
    text: str
    finding_ids: list[str]
    score: float | None


class Report(BaseModel):
    """The report of a series."""

    series_key: str
    status: str
    technique: str
    findings_text: str
    impression: str
    sentences: list[Sentence]
    needs_review: bool
    review_reasons: list[str]
    model: str
    flags: list[str]


def report_of(row: Row) -> Report:
    """The report of a row."""
    report = row["report"]
    texts = {
        section: " ".join(s["text"] for s in report[section])
        for section in ("findings", "impression")
    }
    sentences = [
        Sentence(section=section, **sentence)
        for section in ("findings", "impression")
        for sentence in report[section]
    ]
    return Report(
        series_key=row["series_key"],
        status=row["status"],
        technique=report["technique"],
        findings_text=texts["findings"],
        impression=texts["impression"],
        sentences=sentences,
        needs_review=report["needs_review"],
        review_reasons=report["review_reasons"],
        model=report["model"],
        flags=row["flags"],
    )


def findings_of(row: Row) -> list[dict[str, Any]]:
    """The findings of a row, each with the name that people read and the HU window to see it in."""
    graph = load_graph()
    told = []
    for finding in row["findings"]:
        known = graph.finding(finding["label"])
        window = anatomy_window(known.occurs_in).name
        told.append(finding | {"name": known.name, "window": window})
    return told


class Analysis(BaseModel):
    """A job that ended, and its rows as batch writes them, without the feature vector."""

    job: Job
    results: list[dict[str, Any]]


def analysis_of(record: JobRecord, rows: list[Row]) -> Analysis:
    """A record and its rows."""
    kept = [{name: value for name, value in row.items() if name != "features"} for row in rows]
    return Analysis(job=job_of(record), results=kept)


class PublicConfig(BaseModel):
    """What a caller may know of the service before it has a key."""

    auth: Literal["none", "key"]
    version: str
    max_upload_bytes: int
    max_files: int
    adapters: list[str]
    research_use_only: bool = True


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:raypipe:too_large",
                    "title": "Request Entity Too Large",
                    "status": 413,
                    "detail": "the body is larger than 4294967296 bytes",
                }
            ]
        }
    )

    type: str
    title: str
    status: int
    detail: str


UPLOAD_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["files"],
                "properties": {
                    "files": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "DICOM files, zip or tar files of them, NIfTI.",
                    },
                    "adapter": {"type": "string", "description": "id of a LoRA adapter"},
                },
            }
        },
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["uri"],
                "additionalProperties": False,
                "properties": {
                    "uri": {"type": "string", "description": "below limits.uris of the config"},
                    "adapter": {"type": ["string", "null"]},
                },
            },
            "example": {"uri": "s3://archive/ct/2026/study-7", "adapter": None},
        },
    },
}
