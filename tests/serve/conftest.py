"""The real service on the session's Ray: one that asks for keys, one for the page that does not."""

import io
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from raypipe.phantom import DicomOptions, PhantomSpec, make_phantom, write_dicom, write_nifti
from raypipe.serve.auth import new_key
from raypipe.serve.auth_config import ApiKey, Role
from raypipe.serve.config import ServeConfig

HASH_KEY = "the archive's own"
SECRET_TEXT = "Quatermain"
"""Stands in the names of patients: must never reach a log."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What runs the tests that are coroutines."""
    return "asyncio"


_POOL = {"cpus": 0.05, "max_replicas": 1, "drain_s": 5.0}


def serve_settings(folder: Path, **changes: Any) -> ServeConfig:
    """Small pools that all fit on the session's Ray, fixed wording, fast sweeps."""
    tree: dict[str, Any] = {
        "jobs": {
            "folder": str(folder / "jobs"),
            "max_running": 2,
            "max_queued": 8,
            "sweep_every_s": 0.5,
        },
        "limits": {
            "uris": [str(folder / "allowed")],
            "idle_timeout_s": 2.0,
            "max_files": 200,
            "max_members": 300,
        },
        "pools": dict.fromkeys(("ingress", "loader", "detector", "reporter"), _POOL),
        "pipeline": {
            "report": {"engine": "template"},
            "detector": {"threads": 1},
            "index": {"hash_key": HASH_KEY},
            "export": {"identity": "source"},
        },
    }
    for section, values in changes.items():
        tree[section] = {**tree.get(section, {}), **values} if isinstance(values, dict) else values
    return ServeConfig.model_validate(tree)


@dataclass(frozen=True)
class Running:
    """A service that answers.

    Args:
        url: of its root.
        name: of the application.
        config: its settings.
        keys: name -> API key; none where no key is asked for.
    """

    url: str
    name: str
    config: ServeConfig
    keys: dict[str, str] = field(default_factory=dict)

    def client(self, key: str | None = "analyze", **options: Any) -> httpx.Client:
        """A client with one of the keys."""
        headers = {"Authorization": f"Bearer {self.keys[key]}"} if key in self.keys else {}
        headers |= options.pop("headers", {})
        return httpx.Client(base_url=self.url, headers=headers, timeout=60.0, **options)

    def done(self, client: httpx.Client, job_id: str, within_s: float = 60.0) -> dict[str, Any]:
        """A job once it has ended."""
        until = time.monotonic() + within_s
        while True:
            job: dict[str, Any] = client.get(f"v1/jobs/{job_id}", params={"wait": 5}).json()
            if job["state"] in ("done", "failed", "cancelled") or time.monotonic() > until:
                return job


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def proxy(ray_cluster: None) -> Iterator[str]:
    """The HTTP proxy of Ray Serve; applications share it."""
    from ray import serve

    port = free_port()
    serve.start(
        http_options={"host": "127.0.0.1", "port": port, "request_timeout_s": 120.0},
        logging_config={"enable_access_log": False},
    )
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def run_app(config: ServeConfig, prefix: str) -> None:
    """Start an application and wait until it runs."""
    from ray import serve

    from raypipe.serve.app import application

    serve.run(application(config), name=config.name, route_prefix=prefix)


@pytest.fixture(scope="session")
def service(proxy: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service without keys, as on somebody's own machine; its page is at the root."""
    from ray import serve

    config = serve_settings(tmp_path_factory.mktemp("open"), name="open")
    run_app(config, "/")
    yield Running(f"{proxy}/", "open", config)
    serve.delete("open")


@pytest.fixture(scope="session")
def keys() -> tuple[dict[str, str], tuple[ApiKey, ...]]:
    """Secrets by name, and the entries that know their hashes."""
    wanted = {
        "analyze": ("radiology", [Role.ANALYZE]),
        "read": ("radiology", [Role.READ]),
        "other": ("cardiology", [Role.ANALYZE]),
        "admin": ("operator", [Role.ADMIN]),
    }
    made = {name: new_key(owner, roles) for name, (owner, roles) in wanted.items()}
    return {n: secret for n, (secret, _) in made.items()}, tuple(e for _, e in made.values())


@pytest.fixture(scope="session")
def keyed_service(
    proxy: str,
    keys: tuple[dict[str, str], tuple[ApiKey, ...]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Running]:
    """A service that asks for keys."""
    from ray import serve

    secrets, entries = keys
    folder = tmp_path_factory.mktemp("keyed")
    (folder / "allowed").mkdir()
    config = serve_settings(
        folder,
        name="keyed",
        auth={"keys": [entry.model_dump() for entry in entries]},
    )
    run_app(config, "/keyed")
    yield Running(f"{proxy}/keyed/", "keyed", config, secrets)
    serve.delete("keyed")


@pytest.fixture
def client(keyed_service: Running) -> Iterator[httpx.Client]:
    """A caller who may analyze."""
    with keyed_service.client() as client:
        yield client


@dataclass(frozen=True)
class Study:
    """A phantom on disk.

    Args:
        folder: of its DICOM files.
        nifti: the same volume as NIfTI.
    """

    folder: Path
    nifti: Path

    @property
    def files(self) -> list[Path]:
        """Its DICOM files, by name."""
        return sorted(p for p in self.folder.rglob("*") if p.is_file())

    def upload(self) -> list[tuple[str, tuple[str, bytes]]]:
        """Its DICOM files as form fields."""
        return [("files", (file.name, file.read_bytes())) for file in self.files]

    def zipped(self) -> bytes:
        """Its DICOM files in a zip."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for file in self.files:
                packed.write(file, file.name)
        return buffer.getvalue()


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A chest with findings, whose patient has a name that no log may hold."""
    import pydicom

    folder = tmp_path_factory.mktemp("study")
    spec = PhantomSpec(
        region="chest",
        shape_zyx=(10, 128, 128),
        spacing_zyx_mm=(7.0, 3.0, 3.0),
        lesions=("pulmonary_nodule", "pleural_effusion"),
        seed=3,
    )
    phantom = make_phantom(spec)
    write_dicom(phantom, folder / "dicom", DicomOptions())
    for file in (folder / "dicom").rglob("*"):
        if file.is_file():
            dataset = pydicom.dcmread(file)
            dataset.PatientName = f"{SECRET_TEXT}^<script>alert(1)</script>"
            dataset.PatientID = f"{SECRET_TEXT}-7"
            dataset.SeriesDescription = "<script>alert(2)</script>"
            dataset.save_as(file)
    return Study(folder / "dicom", write_nifti(phantom, folder / "ct.nii.gz"))


@pytest.fixture(scope="session")
def job(keyed_service: Running, study: Study) -> dict[str, Any]:
    """A finished job of `study`."""
    with keyed_service.client() as client:
        sent = client.post("v1/jobs", files=study.upload())
        assert sent.status_code == 202, sent.text
        done = keyed_service.done(client, sent.json()["id"])
    assert done["state"] == "done", done
    return done


Packed = Callable[[dict[str, bytes]], bytes]


@pytest.fixture(scope="session")
def packed() -> Packed:
    """Makes a zip of names and contents."""

    def pack(contents: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    return pack
