"""Fixtures of the whole suite: the real data where there is some, one Ray, one S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("any_machine", deadline=None)  # no test fails because others work too
settings.load_profile("any_machine")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real CT: RAYPIPE_TEST_DATA, else `shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RAYPIPE_TEST_DATA", beside)).absolute()
    if not (folder / "dicom").is_dir():
        pytest.skip(
            f"no real CT: set RAYPIPE_TEST_DATA to a folder with dicom/ and nifti/ ({folder})"
        )
    return folder


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Address of an S3 server on this machine (moto: an emulator, its data lives in memory)."""
    from moto.server import ThreadedMotoServer

    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "test")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    patch.undo()


@pytest.fixture(scope="session")
def ray_cluster(s3_endpoint: str) -> Iterator[None]:
    """One Ray for all jobs of the session; its workers inherit the S3 server's credentials."""
    import ray

    from raypipe.batch.cluster import start_ray
    from raypipe.config import RunConfig

    start_ray(RunConfig(object_store_gib=1.0))
    yield
    ray.shutdown()
