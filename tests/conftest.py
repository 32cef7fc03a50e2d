"""Fixtures of the whole suite: the real data where there is some, one Ray, one S3 server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real CT: RAYPIPE_TEST_DATA, else `shared/data` beside the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RAYPIPE_TEST_DATA", beside))
    if not (folder / "dicom").is_dir():
        pytest.skip(
            f"no real CT: set RAYPIPE_TEST_DATA to a folder with dicom/ and nifti/ ({folder})"
        )
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One Ray for all tests of the session that run jobs in this process."""
    import ray

    from raypipe.batch.cluster import start_ray
    from raypipe.config import RunConfig

    start_ray(RunConfig(object_store_gib=1.0))
    yield
    ray.shutdown()
