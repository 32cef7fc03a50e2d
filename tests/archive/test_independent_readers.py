"""HU and geometry equal dcm2niix and SimpleITK, within 1 HU and 0.01 mm."""

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from raypipe.archive.manifest import series_ref
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.geometry import Geometry
from raypipe.phantom import DicomOptions, Phantom, PhantomSpec, make_phantom, write_dicom
from raypipe.types import Volume
from raypipe.volume.assemble import VolumeConfig, to_volume

Index = Callable[[Path], list[dict[str, Any]]]
RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
REAL = ("ge_chest_abdomen_pelvis", "siemens_abdomen", "siemens_body_jpeg2000")


def our_volume(folder: Path, index: Index) -> tuple[Volume, list[str]]:
    (row,) = index(folder)
    volume = to_volume(read_series(series_ref(row), ArchiveConfig()), VolumeConfig())
    return volume, [i["uri"] for i in row["instances"]]


def dcm2niix(folder: Path, out: Path) -> tuple[NDArray[np.float64], Geometry]:
    """HU (z, y, x) and grid by dcm2niix."""
    out.mkdir()
    binary = Path(sys.executable).parent / "dcm2niix"
    command = [str(binary), "-b", "n", "-z", "n", "-f", "v", "-o", str(out), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (path,) = out.glob("*.nii")
    image: Any = nibabel.load(path)
    lps = RAS_TO_LPS @ image.affine
    hu = np.asarray(image.get_fdata()).transpose(2, 1, 0)
    return hu, Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=lps[:, [2, 1, 0, 3]])


def simple_itk(files: list[str]) -> tuple[NDArray[np.float64], Geometry]:
    """HU (z, y, x) and grid by SimpleITK."""
    import SimpleITK as sitk  # noqa: N813 - the name that everybody knows

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    image = reader.Execute()
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    hu = sitk.GetArrayFromImage(image).astype(np.float64)
    return hu, Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine[:, [2, 1, 0, 3]])


def assert_equal(volume: Volume, hu: NDArray[np.float64], geometry: Geometry) -> None:
    """The same voxels in the same places, whatever way the axes run."""
    corners = np.array(np.meshgrid(*((0, n - 1) for n in volume.hu.shape))).reshape(3, -1).T
    there = geometry.to_index(volume.geometry.to_lps_mm(corners))
    off_mm = np.abs(there - np.round(there)) * np.array(geometry.spacing_zyx_mm)
    assert off_mm.max() <= 0.01
    step = np.round(
        geometry.to_index(volume.geometry.to_lps_mm(np.eye(3)))
        - geometry.to_index(volume.geometry.to_lps_mm(np.zeros(3)))
    ).astype(int)
    axes = np.abs(step).argmax(axis=1)
    ours_like_theirs = hu.transpose(axes)
    for i, axis in enumerate(axes):
        if step[i, axis] < 0:
            ours_like_theirs = np.flip(ours_like_theirs, i)
    assert ours_like_theirs.shape == volume.hu.shape
    gap = np.abs(ours_like_theirs - volume.hu)
    padding = (volume.hu == -1024) & (ours_like_theirs < -1024)  # theirs keep the padding value
    assert gap[~padding].max() <= 1


@pytest.mark.shared_data
@pytest.mark.parametrize("name", REAL)
def test_real_series(shared_data: Path, tmp_path: Path, index: Index, name: str) -> None:
    folder = shared_data / "dicom" / name
    volume, files = our_volume(folder, index)
    assert_equal(volume, *simple_itk(files))
    assert_equal(volume, *dcm2niix(folder, tmp_path / "nii"))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["lung_tumour/lung1_image", "body_organs/example_ct"])
def test_real_nifti(shared_data: Path, tmp_path: Path, index: Index, name: str) -> None:
    import SimpleITK as sitk  # noqa: N813

    source = shared_data / "nifti" / f"{name}.nii.gz"
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").symlink_to(source)
    volume, files = our_volume(tmp_path / "in", index)
    image = sitk.ReadImage(files[0])
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    hu = sitk.GetArrayFromImage(image).astype(np.float64)
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine[:, [2, 1, 0, 3]])
    assert_equal(volume, hu, geometry)


@cache
def _phantom(orientation: Any) -> Phantom:
    spec = PhantomSpec(
        shape_zyx=(10, 48, 40), spacing_zyx_mm=(3.0, 6.0, 7.0), orientation=orientation
    )
    return make_phantom(spec)


@pytest.mark.parametrize(
    ("orientation", "options"),
    [
        ("axial", {"transfer_syntax": "explicit"}),
        ("axial", {"transfer_syntax": "implicit", "signed": False}),
        ("axial", {"transfer_syntax": "rle"}),
        ("axial", {"transfer_syntax": "jpeg2000", "signed": False}),
        ("axial", {"rescale_slope": 0.5, "rescale_intercept": -100.0}),
        ("coronal", {"transfer_syntax": "explicit", "reverse": True}),
        ("coronal", {"transfer_syntax": "jpeg2000"}),
        ("oblique", {"transfer_syntax": "implicit"}),
        ("oblique", {"transfer_syntax": "rle", "signed": False}),
    ],
)
def test_phantoms(tmp_path: Path, index: Index, orientation: Any, options: dict[str, Any]) -> None:
    phantom = _phantom(orientation)
    write_dicom(phantom, tmp_path / "in", DicomOptions(**options))
    volume, files = our_volume(tmp_path / "in", index)
    assert np.abs(volume.hu.astype(int) - phantom.volume.hu).max() <= 1
    assert volume.geometry.same_grid(phantom.volume.geometry)
    assert_equal(volume, *simple_itk(files))
    assert_equal(volume, *dcm2niix(tmp_path / "in", tmp_path / "nii"))
