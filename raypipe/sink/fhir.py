"""FHIR R4 resources of one result row: a Bundle of a DiagnosticReport and its Observations.

In: a result row, and who it is about as identifiers. Out: a Bundle as a plain dict, ready for JSON.
Does not know: files, servers, where identifiers come from: what is given is written.

Ids come from keys of the row, so that writing a row again gives the same resources. References to
the patient and the study are logical (by identifier), because neither resource lives here.
"""

import base64
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from typing import Any

from raypipe.sink import codes as own
from raypipe.sink.codes import Coded
from raypipe.sink.dicom_source import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    parameters_of,
    software_of,
)
from raypipe.sink.schema import Row, has_scale, typed_finding
from raypipe.types import Finding

Resource = dict[str, Any]

SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "UCUM": "http://unitsofmeasure.org",
    "RADLEX": "http://radlex.org",
    "LOINC": "http://loinc.org",
    "RADELEMENT": "https://radelement.org",
    "GAMUTS": "https://gamuts.net",
    own.PRIVATE_SCHEME: "urn:raypipe:concept",
}
_IMAGING_STUDY = Coded("18748-4", "LOINC", "Diagnostic imaging study")
_FINDINGS = Coded("59776-5", "LOINC", "Procedure findings")
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Whom and what a report is about, as identifiers; None where not known.

    Args:
        patient_id: id of the patient.
        study_uid: StudyInstanceUID.
        keyed: whether they are keyed hashes rather than the archive's own.
    """

    patient_id: str | None = None
    study_uid: str | None = None
    keyed: bool = True


def fhir_bundle(row: Row, subject: Subject, made_at: datetime | None = None) -> Resource:
    """The Bundle of one row.

    Args:
        row: a result row with status "ok".
        subject: whom it is about.
        made_at: when the report was made; None leaves it out.

    Raises:
        ValueError: the row is not "ok".
    """
    if row["status"] != "ok":
        raise ValueError(f"a FHIR report needs a row that is ok, not {row['status']}")
    findings = [typed_finding(value) for value in row["findings"] or ()]
    report = _report(row, subject, findings)
    if made_at is not None:
        report["issued"] = f"{made_at:%Y-%m-%dT%H:%M:%S}Z"
    resources = [report, *(_observation(f, row, subject) for f in findings), _device(row)]
    return {
        "resourceType": "Bundle",
        "id": f"{row['series_key']}-bundle",
        "type": "collection",
        "entry": [{"fullUrl": full_url(r["id"]), "resource": r} for r in resources],
    }


def full_url(resource_id: str) -> str:
    """Address of a resource inside its Bundle."""
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'raypipe {resource_id}')}"


def _shared(row: Row, subject: Subject) -> Resource:
    """What report and observations have in common."""
    shared: Resource = {"status": "preliminary"}
    if subject.patient_id:
        system = "urn:raypipe:keyed-patient" if subject.keyed else "urn:raypipe:archive-patient"
        identifier = {"system": system, "value": subject.patient_id}
        shared["subject"] = {"type": "Patient", "identifier": identifier}
    return shared


def _study(row: Row, subject: Subject) -> Resource | None:
    """A logical reference to the study; None where nothing is known of it."""
    if subject.study_uid:
        identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{subject.study_uid}"}
    elif row["study_key"]:
        identifier = {"system": "urn:raypipe:study-key", "value": row["study_key"]}
    else:
        return None
    return {"type": "ImagingStudy", "identifier": identifier}


def _report(row: Row, subject: Subject, findings: Sequence[Finding]) -> Resource:
    text = _plain_text(row)
    labels = dict.fromkeys(finding.label for finding in findings)
    report: Resource = {
        "resourceType": "DiagnosticReport",
        "id": f"{row['series_key']}-report",
        "text": {"status": "generated", "div": _narrative(text)},
        "identifier": [{"system": "urn:raypipe:series-key", "value": row["series_key"]}],
        **_shared(row, subject),
        "category": [_concept([Coded("RAD", f"{_TERMINOLOGY}/v2-0074", "Radiology")])],
        "code": _concept([_IMAGING_STUDY]),
        "presentedForm": [
            {
                "contentType": "text/plain; charset=utf-8",
                "data": base64.b64encode(text.encode()).decode(),
                "title": f"{MANUFACTURER} report. {NOT_FOR_DIAGNOSIS}",
            }
        ],
        "conclusionCode": [_concept(own.finding_codes(label)) for label in labels],
        "result": [_reference(_observation_id(row, finding)) for finding in findings],
    }
    conclusion = " ".join(s["text"] for s in (row["report"] or {}).get("impression") or ())
    if conclusion:
        report["conclusion"] = f"{conclusion} {NOT_FOR_DIAGNOSIS}"
    study = _study(row, subject)
    if study is not None:
        report["imagingStudy"] = [study]
    return {name: value for name, value in report.items() if value}  # FHIR has no empty lists


def _observation_id(row: Row, finding: Finding) -> str:
    return f"{row['series_key']}-{finding.finding_id.lower()}"


def _observation(finding: Finding, row: Row, subject: Subject) -> Resource:
    observation: Resource = {
        "resourceType": "Observation",
        "id": _observation_id(row, finding),
        "identifier": [
            {"system": "urn:raypipe:finding", "value": f"{row['series_key']} {finding.finding_id}"}
        ],
        **_shared(row, subject),
        "category": [
            _concept([Coded("imaging", f"{_TERMINOLOGY}/observation-category", "Imaging")])
        ],
        "code": _concept([_FINDINGS]),
        "valueCodeableConcept": _concept(own.finding_codes(finding.label)),
        "device": _reference(_device_id(row)),
        "note": [{"text": text} for text in (*_sentences_on(finding, row), NOT_FOR_DIAGNOSIS)],
        "component": _components(finding, has_scale(row)),
    }
    site = _site(finding)
    if site is not None:
        observation["bodySite"] = site
    study = _study(row, subject)
    if study is not None:
        observation["derivedFrom"] = [study]
    return observation


def _site(finding: Finding) -> Resource | None:
    """Organ and side as one concept with one coding each."""
    organ, side = own.organ_code(finding.label), own.SIDES.get(finding.side or "")
    known = [coded for coded in (organ, side) if coded is not None]
    return _concept(known) if known else None


def _components(finding: Finding, has_scale: bool) -> list[Resource]:
    """What was measured and named; without a scale a diameter is no length."""
    values = [
        (own.DIAMETER, finding.diameter_mm if has_scale else None, own.MILLIMETRE),
        (own.ATTENUATION, finding.mean_hu, own.HOUNSFIELD),
        (own.PROBABILITY, finding.probability, own.NO_UNITS),
        (own.SCORE, finding.score, own.NO_UNITS),
    ]
    measured = [
        {"code": _concept([name]), "valueQuantity": _quantity(value, unit)}
        for name, value, unit in values
        if value is not None
    ]
    named = [(own.private(name), value) for name, value in sorted(finding.attributes.items())]
    if finding.level:
        named.append((own.LEVEL, finding.level))
    return measured + [
        {"code": _concept([name]), "valueCodeableConcept": _concept([own.private(value)])}
        for name, value in named
    ]


def _quantity(value: float, unit: Coded) -> Resource:
    return {
        "value": round(float(value), 4),
        "unit": unit.meaning,
        "system": SYSTEMS[unit.scheme],
        "code": unit.value,
    }


def _concept(codings: Sequence[Coded]) -> Resource:
    return {
        "coding": [
            {"system": SYSTEMS.get(c.scheme, c.scheme), "code": c.value, "display": c.meaning}
            for c in codings
        ],
        "text": ", ".join(dict.fromkeys(c.meaning for c in codings)),
    }


def _reference(resource_id: str) -> Resource:
    return {"reference": full_url(resource_id)}


def _sentences_on(finding: Finding, row: Row) -> list[str]:
    """Sentences of the section "Findings" that cite a finding."""
    sentences = (row["report"] or {}).get("findings") or ()
    return [s["text"] for s in sentences if finding.finding_id in s["finding_ids"]]


def _plain_text(row: Row) -> str:
    report: Mapping[str, Any] = row["report"] or {}
    lines = [NOT_FOR_DIAGNOSIS]
    if report.get("needs_review"):
        lines.append(f"The text needs review: {', '.join(report['review_reasons'])}.")
    if report.get("technique"):
        lines += ["", "Technique", report["technique"]]
    for section in ("findings", "impression"):
        lines += ["", section.capitalize(), *(s["text"] for s in report.get(section) or ())]
    return "\n".join(lines)


def _narrative(text: str) -> str:
    body = "".join(f"<p>{escape(line)}</p>" for line in text.splitlines() if line)
    return f'<div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'


def _device_id(row: Row) -> str:
    return f"{row['series_key']}-device"


def _device(row: Row) -> Resource:
    return {
        "resourceType": "Device",
        "id": _device_id(row),
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": MANUFACTURER, "type": "model-name"}],
        "version": [{"value": software_of(row)}],
        "property": [
            {"type": {"text": name}, "valueCode": [{"text": value}]}
            for name, value in (pair.split("=", 1) for pair in parameters_of(row))
        ],
        "note": [{"text": NOT_FOR_DIAGNOSIS}],
    }
