"""What attackers try, and what each of them gets.

Every line of ATTACKS is one request to the real service; none may hang it, none may get a 5xx, and
afterwards the service answers as before.
"""

import gzip
import io
import json
import socket
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pydicom
import pytest

from tests.serve.conftest import SECRET_TEXT, Running, Study

HUGE = 6 << 30


@dataclass(frozen=True)
class Ground:
    """What attacks are made of."""

    running: Running
    study: Study
    job: dict[str, Any]

    def get(self, path: str, key: str | None = "analyze", **options: Any) -> httpx.Response:
        with self.running.client(key, **options) as client:
            return client.get(path)

    def post(self, path: str, key: str | None = "analyze", **options: Any) -> httpx.Response:
        with self.running.client(key) as client:
            return client.post(path, **options)

    def send(self, content: bytes, name: str = "x") -> httpx.Response:
        """Upload one file and wait."""
        return self.post("v1/analyze", files={"files": (name, content)})

    def uri(self, uri: str) -> httpx.Response:
        return self.post("v1/jobs", json={"uri": uri})


Attack = Callable[[Ground], httpx.Response]


def raw(ground: Ground, request: bytes, wait_s: float = 10.0) -> httpx.Response:
    """Bytes straight into the socket, and the status line that comes back."""
    url = httpx.URL(ground.running.url)
    with socket.create_connection((url.host, url.port or 80), timeout=wait_s) as connection:
        connection.sendall(request)
        answer = connection.recv(65536)
    return httpx.Response(int(answer.split(b" ", 2)[1]) if answer else 400)


def bearer(ground: Ground) -> bytes:
    return f"Authorization: Bearer {ground.running.keys['analyze']}\r\n".encode()


def slow_body(ground: Ground) -> httpx.Response:
    head = b"POST /keyed/v1/analyze HTTP/1.1\r\nHost: x\r\n" + bearer(ground)
    head += b'Content-Type: multipart/form-data; boundary="b"\r\nContent-Length: 100000\r\n\r\n'
    return raw(ground, head + b"--b\r\n")


def header_injection(ground: Ground) -> httpx.Response:
    return raw(
        ground,
        b"GET /keyed/v1/jobs HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n"
        + bearer(ground)
        + b"Connection: close\r\n\r\n",
    )


def zip_bomb(ground: Ground) -> httpx.Response:
    """Ten members that each claim gigabytes of zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for number in range(10):
            packed.writestr(f"{number}.dcm", b"\0" * (1 << 20))
    content = bytearray(buffer.getvalue())
    at = 0
    while (at := content.find(b"PK\x01\x02", at)) >= 0:  # sizes of the central directory
        content[at + 24 : at + 28] = struct.pack("<I", (1 << 32) - 2)
        at += 4
    return ground.send(bytes(content), "bomb.zip")


def zip_of_many(ground: Ground) -> httpx.Response:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for number in range(ground.running.config.limits.max_members + 1):
            packed.writestr(str(number), b"")
    return ground.send(buffer.getvalue(), "many.zip")


def traversal_zip(ground: Ground) -> httpx.Response:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name in ("../../../../tmp/raypipe-owned", "/tmp/raypipe-owned", "a/../../x"):
            packed.writestr(name, ground.study.files[0].read_bytes())
    answer = ground.send(buffer.getvalue(), "t.zip")
    assert not Path("/tmp/raypipe-owned").exists()
    return answer


def tar_of_links(ground: Ground) -> httpx.Response:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, kind, target in (
            ("link", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard", tarfile.LNKTYPE, "/etc/passwd"),
            ("device", tarfile.CHRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            packed.addfile(info)
    return rejected(ground.send(buffer.getvalue(), "links.tar"))


def nested_zip(ground: Ground) -> httpx.Response:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as packed:
        packed.writestr("x.dcm", ground.study.files[0].read_bytes())
    outer = io.BytesIO()
    with zipfile.ZipFile(outer, "w") as packed:
        packed.writestr("inner.zip", inner.getvalue())
    return rejected(ground.send(outer.getvalue(), "n.zip"), "archive_member_unreadable")


def billion_pixels(ground: Ground) -> httpx.Response:
    """A header that claims 65535 x 65535 pixels and 100 frames, over the pixels of one slice."""
    dataset = pydicom.dcmread(ground.study.files[0])
    dataset.Rows = dataset.Columns = 65535
    dataset.NumberOfFrames = 100
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return rejected(ground.send(buffer.getvalue()))


def billion_voxels_nifti(ground: Ground) -> httpx.Response:
    import nibabel

    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    header["dim"] = [3, 30000, 30000, 30000, 1, 1, 1, 1]
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    content = gzip.compress(header.binaryblock + b"\0" * 10_000_000)
    return rejected(ground.send(content, "x.nii.gz"), "too_large")


def gzip_bomb(ground: Ground) -> httpx.Response:
    """A NIfTI of few voxels whose gzip stream goes on for ever."""
    import nibabel

    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=9) as stream:
        stream.write(image.to_bytes())
        for _ in range(64):
            stream.write(b"\0" * (1 << 20))
    return ground.send(buffer.getvalue(), "b.nii.gz")


def rejected(answer: httpx.Response, reason: str | None = None) -> httpx.Response:
    """The job was accepted, and every series of it is refused."""
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert results and all(row["status"] == "rejected" for row in results), results
    assert reason is None or {row["reason"] for row in results} == {reason}, results
    return answer


def script_in_text(ground: Ground) -> httpx.Response:
    """Script in the texts of a header comes out nowhere."""
    answer = ground.get(f"v1/jobs/{ground.job['id']}/report")
    for path in ("", "/report", "/findings", "/pdf"):
        content = ground.get(f"v1/jobs/{ground.job['id']}{path}").content
        assert b"<script" not in content and SECRET_TEXT.encode() not in content
    return answer


def many_files(ground: Ground) -> httpx.Response:
    count = ground.running.config.limits.max_files + 1
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n%d\r\n'
    body = b"".join(part % number for number in range(count)) + b"--b--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    return ground.post("v1/jobs", content=body, headers=kind)


def wrong_length(ground: Ground) -> httpx.Response:
    head = b"POST /keyed/v1/jobs HTTP/1.1\r\nHost: x\r\n" + bearer(ground)
    head += b"Content-Type: multipart/form-data; boundary=b\r\n"
    return raw(ground, head + b"Content-Length: %d\r\n\r\n--b" % HUGE)


def with_key(key: str) -> Attack:
    return lambda g: g.get("v1/jobs", None, headers={"Authorization": f"Bearer {key}"})


def body_of(kind: str, content: bytes) -> Attack:
    return lambda g: g.post("v1/jobs", content=content, headers={"Content-Type": kind})


def stow(ground: Ground, content: bytes, study: str = "") -> httpx.Response:
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
    body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--\r\n"
    return ground.post(f"dicomweb/studies{study}", content=body, headers=kind)


def others(what: str) -> Attack:
    def attack(ground: Ground) -> httpx.Response:
        with ground.running.client("other") as client:
            if what == "cancel":
                return client.delete(f"v1/jobs/{ground.job['id']}")
            return client.get(f"v1/jobs/{ground.job['id']}{what}")

    return attack


ATTACKS: dict[str, tuple[Attack, int]] = {
    "no key": (lambda g: g.get("v1/jobs", None), 401),
    "wrong key": (
        lambda g: g.get("v1/jobs", None, headers={"Authorization": "Bearer rp_a_b"}),
        401,
    ),
    "key in the query": (
        lambda g: g.get(f"v1/jobs?key={g.running.keys['analyze']}&access_token=x", None),
        401,
    ),
    "token without signature": (with_key("eyJhbGciOiJub25lIn0.e30."), 401),
    "huge key": (with_key("x" * 20_000), 401),
    "reader analyzes": (lambda g: g.post("v1/jobs", "read", json={"uri": "/"}), 403),
    "reader cancels": (lambda g: _delete(g, "read"), 403),
    "caller reads metrics": (lambda g: g.get("metrics"), 403),
    "other's job": (others(""), 404),
    "other's report": (others("/report"), 404),
    "other's volume": (others("/volume"), 404),
    "other cancels": (others("cancel"), 404),
    "other's study by DICOMweb": (lambda g: g.get("dicomweb/studies/1.2.3", "other"), 404),
    "guessed job": (lambda g: g.get("v1/jobs/" + "0" * 32), 404),
    "traversal in the job id": (lambda g: g.get("v1/jobs/..%2f..%2f..%2fetc%2fpasswd"), 404),
    "traversal in the static path": (lambda g: g.get("static/..%2f..%2fapi.py", None), 404),
    "traversal in the series": (lambda g: g.get(f"v1/jobs/{g.job['id']}/sr?series=../../x"), 422),
    "script in the query": (lambda g: g.get("dicomweb/studies?<script>=1"), 400),
    "unknown method": (lambda g: _other_method(g), 405),
    "URI: loopback": (lambda g: g.uri("http://127.0.0.1:8265/api/version"), 422),
    "URI: metadata address": (lambda g: g.uri("http://169.254.169.254/latest/meta-data"), 422),
    "URI: metadata address as bucket": (lambda g: g.uri("s3://169.254.169.254/latest"), 403),
    "URI: file scheme": (lambda g: g.uri("file:///etc/passwd"), 422),
    "URI: path outside": (lambda g: g.uri("/etc"), 403),
    "URI: traversal": (lambda g: g.uri(f"{g.running.config.limits.uris[0]}/../../.."), 403),
    "URI: own jobs folder": (lambda g: g.uri(g.running.config.jobs.folder), 403),
    "unknown adapter": (
        lambda g: g.post("v1/jobs", files={"files": b"x"}, data={"adapter": "../../x"}),
        422,
    ),
    "malformed multipart": (body_of("multipart/form-data; boundary=b", b"--b\r\nxx"), 422),
    "multipart without boundary": (body_of("multipart/form-data", b"x"), 415),
    "no file at all": (lambda g: g.post("v1/jobs", files={"files": b""}), 422),
    "JSON that is none": (body_of("application/json", b"{"), 422),
    "deep JSON": (body_of("application/json", b"[" * 8000 + b"]" * 8000), 422),
    "long JSON": (lambda g: g.post("v1/jobs", json={"uri": "x" * 100_000}), 413),
    "length above the limit": (wrong_length, 413),
    "too many files": (many_files, 413),
    "slow client": (slow_body, 408),
    "NUL in a header": (header_injection, 400),
    "zip bomb": (zip_bomb, 422),
    "zip of very many": (zip_of_many, 422),
    "zip with traversal names": (traversal_zip, 200),
    "zip in a zip": (nested_zip, 200),
    "tar of links and devices": (tar_of_links, 200),
    "billion-pixel header": (billion_pixels, 200),
    "NIfTI of 27 thousand billion voxels": (billion_voxels_nifti, 200),
    "gzip bomb": (gzip_bomb, 200),
    "random bytes": (lambda g: rejected(g.send(bytes(range(256)) * 40)), 200),
    "script in DICOM text": (script_in_text, 200),
    "STOW of no DICOM": (lambda g: stow(g, b"not DICOM at all"), 409),
    "STOW into another study": (lambda g: stow(g, g.study.files[0].read_bytes(), "/1.2.3"), 409),
}


def _delete(ground: Ground, key: str) -> httpx.Response:
    with ground.running.client(key) as client:
        return client.delete(f"v1/jobs/{ground.job['id']}")


def _other_method(ground: Ground) -> httpx.Response:
    with ground.running.client() as client:
        return client.request("TRACE", "v1/jobs")


@pytest.fixture(scope="module")
def ground(keyed_service: Running, study: Study, job: dict[str, Any]) -> Ground:
    return Ground(keyed_service, study, job)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(ground: Ground, name: str) -> None:
    attack, status = ATTACKS[name]
    started = time.monotonic()
    answer = attack(ground)
    assert answer.status_code == status, answer.text[:500]
    assert time.monotonic() - started < 30.0
    if status >= 400 and answer.headers.get("content-type"):
        assert answer.headers["content-type"] == "application/problem+json"
        body = json.loads(answer.text)
        assert body["status"] == status and body["type"].startswith("urn:raypipe:")
        assert "Traceback" not in answer.text and "/site-packages/" not in answer.text
    assert ground.get("healthz", None).status_code == 200


def test_there_are_enough_attacks() -> None:
    assert len(ATTACKS) >= 20


def test_nothing_of_a_patient_is_in_a_log(ground: Ground) -> None:
    """Neither names nor study UIDs: after all of the above, in every log of Ray and Serve."""
    import ray

    session = Path(ray._private.worker._global_node.get_session_dir_path())
    study_uid = str(pydicom.dcmread(ground.study.files[0]).StudyInstanceUID)
    ground.get(f"dicomweb/studies/{study_uid}/instances")
    logs = [p for p in (session / "logs").rglob("*") if p.is_file()]
    assert any("serve" in str(p) for p in logs)
    for log in logs:
        text = log.read_bytes()
        for secret in (SECRET_TEXT, study_uid, *ground.running.keys.values()):
            assert secret.encode() not in text, log


def test_jobs_are_private_on_disk(ground: Ground) -> None:
    folder = Path(ground.running.config.jobs.folder)
    assert folder.stat().st_mode & 0o077 == 0
