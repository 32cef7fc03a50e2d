"""The routes of jobs and results, over real HTTP."""

from typing import Any

import httpx

from tests.serve.conftest import Study


def test_a_job_runs_and_tells_how_far_it_is(client: httpx.Client, job: dict[str, Any]) -> None:
    assert job["state"] == "done" and job["progress"] == {"stage": "describe", "fraction": 1.0}
    (series,) = job["series"]
    assert series["status"] == "ok" and series["findings"] >= 1
    assert series["shape_zyx"] == [10, 128, 128]
    report = client.get(f"v1/jobs/{job['id']}/report").json()
    findings = client.get(f"v1/jobs/{job['id']}/findings").json()
    assert report["series_key"] == series["series_key"]
    ids = {f["finding_id"] for f in findings}
    cited = {i for s in report["sentences"] for i in s["finding_ids"]}
    assert cited == ids and report["impression"] and report["technique"]


def test_analyze_waits_for_the_result(client: httpx.Client, study: Study) -> None:
    answer = client.post("v1/analyze", files={"files": ("s.zip", study.zipped())})
    assert answer.status_code == 200, answer.text
    (row,) = answer.json()["results"]
    assert row["status"] == "ok" and row["report"]["findings"] and "features" not in row


def test_every_format_of_a_result(client: httpx.Client, job: dict[str, Any], study: Study) -> None:
    import io

    import highdicom
    import nibabel
    import numpy as np
    import pydicom
    from fhir.resources.R4B.bundle import Bundle

    got = {name: client.get(f"v1/jobs/{job['id']}/{name}") for name in FORMATS}
    for name, kind in FORMATS.items():
        assert got[name].status_code == 200, (name, got[name].text)
        assert got[name].headers["content-type"] == kind
        assert got[name].headers["content-disposition"].startswith("attachment; filename=")
    report = highdicom.sr.srread(io.BytesIO(got["sr"].content))
    source = pydicom.dcmread(study.files[0])
    assert report.StudyInstanceUID == source.StudyInstanceUID  # export.identity: source
    segments = highdicom.seg.segread(io.BytesIO(got["seg"].content))
    findings = client.get(f"v1/jobs/{job['id']}/findings").json()
    assert segments.number_of_segments == len(findings)
    bundle = Bundle.model_validate_json(got["fhir"].content)
    assert any(e.resource.get_resource_type() == "DiagnosticReport" for e in bundle.entry)
    assert got["pdf"].content.startswith(b"%PDF-") and b"%%EOF" in got["pdf"].content[-16:]
    volume = nibabel.Nifti1Image.from_bytes(_expanded(got["volume"].content))
    assert volume.shape == (128, 128, 10) and volume.get_data_dtype() == np.int16
    truth = nibabel.load(study.nifti)
    assert np.array_equal(_canonical(volume), _canonical(truth))
    attention = nibabel.Nifti1Image.from_bytes(_expanded(got["attention"].content))
    values = attention.get_fdata()
    assert 0 <= values.min() < values.max() <= 1
    corners = [_corner(image, end) for image in (volume, attention) for end in (0, 1)]
    spacing = volume.header.get_zooms()
    for end in (0, 1):  # the same field of view, up to a cell
        assert np.all(np.abs(corners[end] - corners[2 + end]) < 8 * max(spacing[:2])), corners


FORMATS = {
    "sr": "application/dicom",
    "seg": "application/dicom",
    "fhir": "application/fhir+json",
    "pdf": "application/pdf",
    "volume": "application/gzip",
    "attention": "application/gzip",
}


def _expanded(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content)


def _canonical(image: Any) -> Any:
    import nibabel
    import numpy as np

    return np.asarray(nibabel.as_closest_canonical(image).dataobj)


def _corner(image: Any, end: int) -> Any:
    import nibabel
    import numpy as np

    turned = nibabel.as_closest_canonical(image)
    index = [end * (n - 1) for n in turned.shape[:3]]
    return np.asarray(turned.affine @ [*index, 1])[:3]
