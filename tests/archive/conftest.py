"""Small archives, and how tests index and read them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import read_manifest
from raypipe.archive.storage import StorageConfig
from raypipe.phantom import Phantom, PhantomSpec, SeriesTruth, make_phantom, write_archive

Rows = list[dict[str, Any]]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """Twelve axial slices of a chest; rows, columns and spacings all differ."""
    return make_phantom(
        PhantomSpec(shape_zyx=(12, 56, 64), spacing_zyx_mm=(4.0, 6.5, 6.0), lesions=1)
    )


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SeriesTruth]]:
    """A small archive of every variant, and what is true of it; nobody changes it."""
    folder = tmp_path_factory.mktemp("archive")
    return folder, write_archive(folder, shape_zyx=(8, 40, 40))


@pytest.fixture
def index(tmp_path: Path) -> Callable[[Path | str], Rows]:
    """Index a folder and give the rows of its manifest."""

    def run(source: Path | str) -> Rows:
        out = tmp_path / "manifest"
        build_index(str(source), str(out), IndexConfig())
        rows: Rows = read_manifest(str(out), StorageConfig()).to_pylist()
        return rows

    return run
