"""raypipe/sink/fhir.py, validated by the models of fhir.resources (R4B)."""

import base64
import json

import pytest
from fhir.resources.R4B.bundle import Bundle

from raypipe.sink.dicom_source import NOT_FOR_DIAGNOSIS
from raypipe.sink.fhir import Resource, Subject, fhir_bundle
from tests.export_rows import FINISHED, result_row
from tests.sink.conftest import Case

SUBJECT = Subject(patient_id="P1", study_uid="1.2.3", keyed=False)


def _bundle(case: Case, subject: Subject = SUBJECT) -> Resource:
    bundle: Resource = json.loads(json.dumps(fhir_bundle(case.row, subject)))
    return bundle


def _of(bundle: Resource, kind: str) -> list[Resource]:
    resources = [entry["resource"] for entry in bundle["entry"]]
    return [resource for resource in resources if resource["resourceType"] == kind]


def test_the_bundle_is_valid_and_loses_nothing(case: Case) -> None:
    bundle = fhir_bundle(case.row, SUBJECT, FINISHED)
    read = Bundle.model_validate(bundle)
    again = json.loads(read.model_dump_json())
    assert again["entry"][1:] == json.loads(json.dumps(bundle))["entry"][1:]
    kinds = [entry["resource"]["resourceType"] for entry in again["entry"]]
    assert kinds == ["DiagnosticReport", "Observation", "Observation", "Device"]


def test_references_lead_to_resources_of_the_bundle(cases: dict[str, Case]) -> None:
    bundle = _bundle(cases["plain"])
    urls = {entry["fullUrl"]: entry["resource"] for entry in bundle["entry"]}
    assert len(urls) == len(bundle["entry"])
    (report,) = _of(bundle, "DiagnosticReport")
    found = [urls[reference["reference"]]["id"] for reference in report["result"]]
    assert found == [observation["id"] for observation in _of(bundle, "Observation")]
    for observation in _of(bundle, "Observation"):
        assert urls[observation["device"]["reference"]]["resourceType"] == "Device"


def test_an_observation_holds_the_values_of_its_finding(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    for observation, lesion in zip(
        _of(_bundle(case), "Observation"), case.phantom.lesions, strict=True
    ):
        main = observation["valueCodeableConcept"]["coding"][0]
        assert (main["system"], main["code"]) == ("urn:raypipe:concept", lesion.label)
        parts = {c["code"]["text"]: c for c in observation["component"]}
        diameter = parts["Diameter"]["valueQuantity"]
        assert (diameter["value"], diameter["code"]) == (pytest.approx(lesion.diameter_mm), "mm")
        hu = parts["Attenuation Coefficient"]["valueQuantity"]
        assert hu["value"] == pytest.approx(lesion.mean_hu, abs=1e-3)
        assert (hu["code"], hu["system"]) == ("[hnsf'U]", "http://unitsofmeasure.org")
        for name, value in lesion.attributes.items():
            assert parts[name]["valueCodeableConcept"]["coding"][0]["code"] == value
        side = {"left": "7771000", "right": "24028007"}[lesion.side]
        assert side in [coding["code"] for coding in observation["bodySite"]["coding"]]
        assert observation["note"][-1]["text"] == NOT_FOR_DIAGNOSIS


def test_values_that_are_not_known_are_left_out(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    bare = dict(case.row["findings"][0]) | {"mean_hu": None, "probability": None, "level": None}
    bundle = fhir_bundle({**case.row, "findings": [bare]}, SUBJECT)
    Bundle.model_validate(bundle)
    (observation,) = _of(bundle, "Observation")
    names = {component["code"]["text"] for component in observation["component"]}
    assert not names & {"Attenuation Coefficient", "Calibrated probability"}


def test_the_text_is_there_for_people_and_cannot_carry_markup(cases: dict[str, Case]) -> None:
    (report,) = _of(_bundle(cases["plain"]), "DiagnosticReport")
    text = base64.b64decode(report["presentedForm"][0]["data"]).decode()
    assert text.startswith(NOT_FOR_DIAGNOSIS) and "<5 mm & more" in text
    assert "&lt;5 mm &amp; more" in report["text"]["div"]
    assert report["status"] == "preliminary" and NOT_FOR_DIAGNOSIS in report["conclusion"]


def test_without_findings_there_is_a_report_alone(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    bundle = fhir_bundle(result_row(case.manifest_row, case.indexed, None), Subject())
    Bundle.model_validate(bundle)
    (report,) = _of(bundle, "DiagnosticReport")
    assert "result" not in report and "subject" not in report
    assert report["imagingStudy"][0]["identifier"]["value"] == case.row["study_key"]


def test_whose_name_it_carries(cases: dict[str, Case]) -> None:
    plain = _bundle(cases["plain"])
    (report,) = _of(plain, "DiagnosticReport")
    assert report["subject"]["identifier"]["value"] == "P1"
    assert report["imagingStudy"][0]["identifier"]["value"] == "urn:oid:1.2.3"
    keyed = _bundle(cases["plain"], Subject(patient_id="K", study_uid="2.25.1"))
    systems = [_of(b, "DiagnosticReport")[0]["subject"]["identifier"]["system"]
               for b in (plain, keyed)]  # fmt: skip
    assert systems == ["urn:raypipe:archive-patient", "urn:raypipe:keyed-patient"]
    assert "issued" not in report
    dated = fhir_bundle(cases["plain"].row, SUBJECT, FINISHED)
    assert _of(dated, "DiagnosticReport")[0]["issued"] == "2026-03-04T05:06:07Z"


def test_ids_are_the_same_every_time_and_end_within_64_characters(case: Case) -> None:
    assert _bundle(case) == _bundle(case)
    for entry in _bundle(case)["entry"]:
        assert len(entry["resource"]["id"]) <= 64


def test_a_rejected_row_is_refused(cases: dict[str, Case]) -> None:
    with pytest.raises(ValueError, match="not rejected"):
        fhir_bundle({**cases["plain"].row, "status": "rejected"}, SUBJECT)


def test_without_a_scale_no_length_is_told(cases: dict[str, Case]) -> None:
    row = {**cases["plain"].row, "flags": ["no_geometry", "no_hu", "single_slice"]}
    bundle = fhir_bundle(row, Subject())
    Bundle.model_validate(bundle)
    assert _of(bundle, "Observation") and '"mm"' not in json.dumps(bundle)
