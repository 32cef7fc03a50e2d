"""The routes of jobs and results, over real HTTP."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serve.conftest import Running, Study

pytestmark = pytest.mark.anyio


def test_a_job_runs_and_tells_how_far_it_is(client: httpx.Client, job: dict[str, Any]) -> None:
    assert job["state"] == "done" and job["progress"] == {"stage": "describe", "fraction": 1.0}
    (series,) = job["series"]
    assert series["status"] == "ok" and series["findings"] >= 1
    assert series["shape_zyx"] == [10, 128, 128]
    report = client.get(f"v1/jobs/{job['id']}/report").json()
    findings = client.get(f"v1/jobs/{job['id']}/findings").json()
    assert report["series_key"] == series["series_key"]
    ids = {f["finding_id"] for f in findings}
    assert {f["window"] for f in findings} <= {"lung", "soft_tissue", "bone", "brain"}
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


def test_a_uri_of_the_list_is_read_where_it_lies(
    client: httpx.Client, keyed_service: Running, study: Study
) -> None:
    import shutil

    allowed = Path(keyed_service.config.limits.uris[0])
    shutil.copytree(study.folder, allowed / "study", dirs_exist_ok=True)
    sent = client.post("v1/jobs", json={"uri": str(allowed / "study"), "adapter": None})
    assert sent.status_code == 202 and sent.headers["location"].endswith(sent.json()["id"])
    done = keyed_service.done(client, sent.json()["id"])
    assert [series["status"] for series in done["series"]] == ["ok"]
    assert client.get(f"v1/jobs/{done['id']}/sr").status_code == 200
    assert (allowed / "study").is_dir()
    assert client.delete(f"v1/jobs/{done['id']}").status_code == 204
    assert (allowed / "study").is_dir()  # what was named is not ours to delete


def test_an_ended_job_is_erased_with_all_that_it_left(
    client: httpx.Client, keyed_service: Running, study: Study
) -> None:
    job_id = client.post("v1/analyze", files=study.upload()).json()["job"]["id"]
    folder = Path(keyed_service.config.jobs.folder) / job_id
    assert folder.is_dir()
    assert client.delete(f"v1/jobs/{job_id}").status_code == 204
    assert client.get(f"v1/jobs/{job_id}").status_code == 404 and not folder.exists()


def test_two_series_in_one_job_and_what_nifti_cannot_give(
    client: httpx.Client, keyed_service: Running, study: Study
) -> None:
    files = [*study.upload(), ("files", ("Quatermain.nii.gz", study.nifti.read_bytes()))]
    job = client.post("v1/analyze", files=files).json()["job"]
    assert {series["kind"] for series in job["series"]} == {"dicom", "nifti"}
    report = f"v1/jobs/{job['id']}/report"
    refused = client.get(report)
    assert refused.status_code == 422 and refused.json()["type"] == "urn:raypipe:which_series"
    key = next(s["series_key"] for s in job["series"] if s["kind"] == "nifti")
    assert client.get(report, params={"series": key}).json()["series_key"] == key
    assert client.get(report, params={"series": "0" * 32}).status_code == 404
    for name in ("sr", "seg"):
        refused = client.get(f"v1/jobs/{job['id']}/{name}", params={"series": key})
        assert refused.status_code == 409 and "nifti" in refused.json()["detail"]
    assert client.get(f"v1/jobs/{job['id']}/fhir", params={"series": key}).status_code == 200


def test_a_job_that_is_not_done_has_no_results(
    client: httpx.Client, keyed_service: Running
) -> None:
    """Nothing to read: the job fails with its reason, and a rejected series says why."""
    job = client.post("v1/analyze", files={"files": b"not an image"}).json()["job"]
    assert job["state"] == "done" and job["series"][0]["status"] == "rejected"
    refused = client.get(f"v1/jobs/{job['id']}/report")
    assert refused.status_code == 409 and "rejected" in refused.json()["detail"]
    empty = Path(keyed_service.config.limits.uris[0]) / "empty"
    empty.mkdir(exist_ok=True)
    sent = client.post("v1/jobs", json={"uri": str(empty)}).json()
    failed = keyed_service.done(client, sent["id"])
    assert (failed["state"], failed["reason"]) == ("failed", "not_readable")
    assert client.get(f"v1/jobs/{sent['id']}/report").status_code == 409


def test_readers_of_the_same_owner_see_jobs_and_admins_see_all(
    keyed_service: Running, job: dict[str, Any]
) -> None:
    for key, sees in (("read", True), ("admin", True), ("other", False)):
        with keyed_service.client(key) as caller:
            listed = [j["id"] for j in caller.get("v1/jobs", params={"limit": 1000}).json()]
            assert (job["id"] in listed) is sees
            got = caller.get(f"v1/jobs/{job['id']}/report").status_code
            assert got == (200 if sees else 404)


def test_what_anybody_may_know(keyed_service: Running) -> None:
    with keyed_service.client(None) as nobody:
        config = nobody.get("v1/config").json()
        assert config["auth"] == "key" and config["research_use_only"] is True
        assert nobody.get("healthz").text == "ok\n"
        page = nobody.get("")
    assert page.status_code == 200 and "trusted-types" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-cache"


async def test_after_the_retention_of_an_upload_what_needs_it_is_gone(tmp_path: Path) -> None:
    from raypipe.archive.storage import StorageConfig
    from raypipe.serve.auth import Authenticator
    from raypipe.serve.config import ServeConfig
    from raypipe.serve.problems import Problem
    from raypipe.serve.service import Service
    from raypipe.serve.store import JobRecord, JobStore, State, now

    config = ServeConfig()
    store = JobStore(str(tmp_path), StorageConfig())
    queue: Any = None  # is not asked
    service = Service(config, Authenticator(config.auth), store, queue)
    record = JobRecord(
        id="a" * 32,
        owner="one",
        created_at=now(),
        source="x",
        uploaded=True,
        upload_deleted=True,
        state=State.DONE,
    )
    store.put(record.id, "out/key/made.json", b"{}")
    assert await service.made(record, "key", "made.json", "exports") == b"{}"
    with pytest.raises(Problem) as gone:
        await service.made(record, "key", "volume.nii.gz", "volume")
    assert gone.value.status == 410
