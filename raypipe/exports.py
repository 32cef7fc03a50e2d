"""One result row as DICOM SR, DICOM SEG and FHIR, for every host that hands results out.

In: a result row, where its series lies, whose name it may carry. Out: the content of files, and why
a format is missing.
Does not know: where files go, how many rows there are, HTTP, Ray.

Headers are read from the archive again and pass through the archive's Deidentifier, where one is
given. A row never raises: what cannot be written is told by a reason that holds no patient data.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import Any

from raypipe.archive.deidentify import Deidentifier
from raypipe.archive.source_headers import SourceFrame, read_source_frames
from raypipe.archive.storage import StorageConfig
from raypipe.errors import SeriesError, Status
from raypipe.sink.dicom_seg import segmentation
from raypipe.sink.dicom_source import SourceSlice, encoded
from raypipe.sink.dicom_sr import structured_report
from raypipe.sink.fhir import Subject, fhir_bundle
from raypipe.types import Kind, SeriesRef

Row = dict[str, Any]
Slices = tuple[SourceSlice, ...]


class Format(StrEnum):
    """What a result can be written as."""

    SR = "sr"
    SEG = "seg"
    FHIR = "fhir"


FILE_NAMES = {Format.SR: "sr.dcm", Format.SEG: "seg.dcm", Format.FHIR: "fhir.json"}
MEDIA_TYPES = {
    Format.SR: "application/dicom",
    Format.SEG: "application/dicom",
    Format.FHIR: "application/fhir+json",
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One row, written.

    Args:
        contents: format -> content of its file.
        missing: format -> why it could not be written.
    """

    contents: dict[Format, bytes] = field(repr=False)
    missing: dict[Format, str]


def export_row(
    row: Row,
    ref: SeriesRef | None,
    formats: Sequence[Format],
    storage: StorageConfig,
    deidentifier: Deidentifier | None,
) -> Exported:
    """Write one row in several formats.

    Args:
        row: a result row, whatever its status.
        ref: where its series lies; None where that is not known any more.
        formats: what to write.
        storage: how objects are reached.
        deidentifier: takes identity out of headers; None copies them as they are, and dates the
            objects.
    """
    if row["status"] != Status.OK:
        reason = f"the series is {row['status']} ({row['reason']})"
        return Exported(contents={}, missing=dict.fromkeys(formats, reason))
    slices, problem = _slices(ref, formats, storage, deidentifier)
    if problem and Format.FHIR in formats:  # any one header names patient and study
        slices, _ = _slices(ref, (Format.FHIR,), storage, deidentifier)
    contents: dict[Format, bytes] = {}
    missing: dict[Format, str] = {}
    for format_ in formats:
        obstacle = _obstacle(format_, row, problem)
        if obstacle is not None:
            missing[format_] = obstacle
            continue
        try:
            contents[format_] = _content(format_, row, slices, keyed=deidentifier is not None)
        except Exception as error:  # noqa: BLE001 - one series must never cost another
            missing[format_] = _told(error)
    return Exported(contents=contents, missing=missing)


def _told(error: Exception) -> str:
    """Why something failed; the text of a foreign error may hold values of the header."""
    if isinstance(error, SeriesError):
        return str(error)
    return f"{type(error).__name__}: the source's headers do not fit the format"


def _obstacle(format_: Format, row: Row, problem: str) -> str | None:
    """What keeps a row from a format before anything is tried."""
    if format_ is Format.FHIR:
        return None
    if not problem and format_ is Format.SEG and not row["findings"]:
        return "there are no findings to outline"
    return problem or None


def _content(format_: Format, row: Row, slices: Slices, *, keyed: bool) -> bytes:
    made_at = None if keyed else row["timings"]["finished_at"]
    if format_ is Format.SR:
        return encoded(structured_report(row, slices, made_at))
    if format_ is Format.SEG:
        return encoded(segmentation(row, slices, made_at))
    bundle = fhir_bundle(row, _subject(slices, keyed), made_at)
    return json.dumps(bundle, indent=1, ensure_ascii=False).encode()


def _subject(slices: Slices, keyed: bool) -> Subject:
    if not slices:
        return Subject(keyed=keyed)
    header = slices[0].header()
    return Subject(
        patient_id=str(header.get("PatientID") or "") or None,
        study_uid=str(header.get("StudyInstanceUID") or "") or None,
        keyed=keyed,
    )


def _slices(
    ref: SeriesRef | None,
    formats: Sequence[Format],
    storage: StorageConfig,
    deidentifier: Deidentifier | None,
) -> tuple[Slices, str]:
    """The stored slices of a series, or why there are none."""
    if ref is None:
        return (), "the manifest does not list the series any more"
    if ref.kind is not Kind.DICOM:
        return (), f"the source is {ref.kind.value}: there are no DICOM instances to refer to"
    if set(formats) == {Format.FHIR}:  # one header names patient and study
        ref = replace(ref, instances=ref.instances[:1])
    try:
        return _as_slices(read_source_frames(ref, storage), deidentifier), ""
    except Exception as error:  # noqa: BLE001 - one series must never cost another
        return (), _told(error)


def _as_slices(frames: Sequence[SourceFrame], deidentifier: Deidentifier | None) -> Slices:
    """Frames as the sink takes them; identity is taken out when a header is asked for."""
    once: dict[int, Any] = {}

    def header(frame: SourceFrame) -> Any:
        known = id(frame.header)
        if known not in once:
            once[known] = deidentifier.apply(frame.header) if deidentifier else frame.header
        return once[known]

    return tuple(
        SourceSlice(
            header=partial(header, frame),
            shape_yx=(int(frame.header.get("Rows") or 0), int(frame.header.get("Columns") or 0)),
            frame=frame.number,
            position_lps_mm=frame.plane.position_lps_mm,
            direction=frame.plane.direction,
            spacing_yx_mm=frame.plane.spacing_yx_mm,
        )
        for frame in frames
    )
