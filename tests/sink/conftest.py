"""Series of a phantom with known lesions, stored in several ways, and the rows about them."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from raypipe.phantom import (
    DicomOptions,
    Phantom,
    PhantomSpec,
    make_phantom,
    write_dicom,
    write_enhanced,
)
from raypipe.phantom.anatomy import Orientation
from tests.export_rows import Indexed, Row, index_folder, result_row

STORED = {
    "plain": ("axial", DicomOptions()),
    "reversed": ("axial", DicomOptions(reverse=True, series_number=2)),
    "tilted": ("axial", DicomOptions(gantry_tilt_deg=12.0, series_number=3)),
    "enhanced": ("axial", DicomOptions(series_number=4)),
    "no_series_uid": (
        "axial",
        DicomOptions(empty_series_uid=True, empty_thickness=True, series_number=5),
    ),
    "oblique": ("oblique", DicomOptions(series_number=6)),
    "coronal": ("coronal", DicomOptions(series_number=7)),
}
"""How the slices of the phantom lie, and how they are written."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One stored series.

    Args:
        phantom: what is true of it.
        manifest_row: how it is listed.
        row: its result, with a finding for each lesion.
        indexed: the folder that it lies in.
    """

    phantom: Phantom
    manifest_row: Row
    row: Row
    indexed: Indexed


@cache
def _phantom(orientation: Orientation) -> Phantom:
    shape, spacing = (14, 60, 64), (5.0, 5.5, 6.0)
    if orientation == "coronal":
        shape, spacing = (60, 24, 64), (5.5, 8.0, 6.0)
    spec = PhantomSpec(
        shape_zyx=shape, spacing_zyx_mm=spacing, orientation=orientation, lesions=2, seed=2
    )
    return make_phantom(spec)


@pytest.fixture(scope="session")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """Every way of storing; nobody changes the rows."""
    found = {}
    for name, (orientation, options) in STORED.items():
        phantom = _phantom(orientation)
        assert phantom.lesions
        folder = tmp_path_factory.mktemp(name)
        write = write_enhanced if name == "enhanced" else write_dicom
        write(phantom, folder / "files", options)
        indexed = index_folder(folder / "files", folder / "manifest")
        (listed,) = indexed.rows
        row = result_row(listed, indexed, phantom)
        found[name] = Case(phantom=phantom, manifest_row=listed, row=row, indexed=indexed)
    return found


@pytest.fixture(params=sorted(STORED))
def case(request: pytest.FixtureRequest, cases: dict[str, Case]) -> Case:
    """One way of storing after the other."""
    return cases[request.param]


@pytest.fixture(scope="session")
def dciodvfy_errors() -> Callable[[Path], list[str]]:
    """What an independent validator has against a file; skips where it is not installed."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        return [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line]

    return errors
