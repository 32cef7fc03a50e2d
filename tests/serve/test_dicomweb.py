"""A real DICOMweb client stores a study and fetches what was made of it."""

import io
import time
from collections.abc import Callable
from pathlib import Path

import highdicom
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from tests.serve.conftest import Running, Study
from tests.sink.conftest import dciodvfy_errors  # noqa: F401 - a fixture


def dicomweb(running: Running, key: str = "analyze") -> DICOMwebClient:
    return DICOMwebClient(
        url=f"{running.url}dicomweb",
        headers={"Authorization": f"Bearer {running.keys[key]}"},
    )


def found_within(client: DICOMwebClient, study_uid: str, within_s: float = 60.0) -> list[dict]:  # type: ignore[type-arg]
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        found = client.search_for_instances(
            study_instance_uid=study_uid, search_filters={"Modality": "SR"}
        )
        if found:
            return list(found)
        time.sleep(0.2)
    return []


@pytest.fixture(scope="module")
def stored(keyed_service: Running, study: Study) -> str:
    """A study that was stored and worked on; its UID."""
    client = dicomweb(keyed_service)
    datasets = [pydicom.dcmread(file) for file in study.files]
    for dataset in datasets:  # a study of its own, beside the one that other tests sent
        dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.1"
    answer = client.store_instances(datasets)
    assert len(answer.ReferencedSOPSequence) == len(datasets) and "FailedSOPSequence" not in answer
    uids = {item.ReferencedSOPInstanceUID for item in answer.ReferencedSOPSequence}
    assert uids == {dataset.SOPInstanceUID for dataset in datasets}
    assert found_within(client, datasets[0].StudyInstanceUID)
    return str(datasets[0].StudyInstanceUID)


def test_the_structured_report_is_found_and_fetched(
    keyed_service: Running,
    study: Study,
    stored: str,
    tmp_path: Path,
    dciodvfy_errors: Callable[[Path], list[str]],  # noqa: F811
) -> None:
    client = dicomweb(keyed_service)
    (listed,) = found_within(client, stored)
    header = pydicom.Dataset.from_json(listed)
    fetched = client.retrieve_instance(
        study_instance_uid=stored,
        series_instance_uid=header.SeriesInstanceUID,
        sop_instance_uid=header.SOPInstanceUID,
    )
    buffer = io.BytesIO()
    fetched.save_as(buffer)
    report = highdicom.sr.srread(io.BytesIO(buffer.getvalue()))
    assert report.StudyInstanceUID == stored
    cited = {
        item.ReferencedSOPInstanceUID
        for evidence in report.CurrentRequestedProcedureEvidenceSequence
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert cited <= {pydicom.dcmread(f).SOPInstanceUID for f in study.files} and cited
    (tmp_path / "sr.dcm").write_bytes(buffer.getvalue())
    assert dciodvfy_errors(tmp_path / "sr.dcm") == []


def test_studies_series_and_instances_can_be_searched(keyed_service: Running, stored: str) -> None:
    client = dicomweb(keyed_service)
    filters = {"StudyInstanceUID": stored}
    (study,) = client.search_for_studies(search_filters=filters)
    assert pydicom.Dataset.from_json(study).StudyInstanceUID == stored
    listed = client.search_for_series(study_instance_uid=stored)
    kinds = {pydicom.Dataset.from_json(one).Modality for one in listed}
    assert kinds == {"SR", "SEG"}
    assert len(client.search_for_instances(study_instance_uid=stored)) == 2
    assert client.search_for_series(search_filters={"Modality": "MR"}) == []
    wild = client.search_for_studies(search_filters={"PatientID": "Quater*"}, limit=1)
    assert len(wild) == 1


def test_whole_studies_and_metadata(keyed_service: Running, stored: str) -> None:
    client = dicomweb(keyed_service)
    assert {d.Modality for d in client.retrieve_study(stored)} == {"SR", "SEG"}
    (series,) = client.search_for_series(stored, search_filters={"Modality": "SEG"})
    uid = pydicom.Dataset.from_json(series).SeriesInstanceUID
    (segmentation,) = client.retrieve_series(stored, uid)
    assert segmentation.Modality == "SEG"
    (metadata,) = client.retrieve_series_metadata(stored, uid)
    assert pydicom.Dataset.from_json(metadata).NumberOfFrames == segmentation.NumberOfFrames


def test_another_caller_finds_nothing_and_an_admin_does(
    keyed_service: Running, stored: str
) -> None:
    filters = {"StudyInstanceUID": stored}
    assert dicomweb(keyed_service, "other").search_for_studies(search_filters=filters) == []
    assert len(dicomweb(keyed_service, "admin").search_for_studies(search_filters=filters)) == 1
    assert len(dicomweb(keyed_service, "read").search_for_studies(search_filters=filters)) == 1


def test_what_is_no_instance_is_told_apart(keyed_service: Running, study: Study) -> None:
    parts = [study.files[0].read_bytes(), b"not DICOM"]
    body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + p + b"\r\n" for p in parts)
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    with keyed_service.client() as client:
        answer = client.post("dicomweb/studies", content=body + b"--b--\r\n", headers=kind)
        assert answer.status_code == 202
        told = pydicom.Dataset.from_json(answer.json())
        assert len(told.ReferencedSOPSequence) == 1
        assert told.FailedSOPSequence[0].FailureReason == 0xC000
        address = answer.headers["location"].removeprefix("/keyed/")
        assert client.get(address).json()["state"] in ("queued", "running", "done")
