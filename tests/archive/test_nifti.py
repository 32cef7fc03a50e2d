"""raypipe/archive/nifti.py: scaling, both matrices, and what is refused."""

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from raypipe.archive.nifti import read_nifti
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.errors import Reason, SeriesError
from raypipe.phantom import Phantom, PhantomSpec, make_phantom, write_nifti
from raypipe.types import Flag, InstanceRef, Kind, SeriesRef, Volume

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def read(path: Path) -> Volume:
    instance = InstanceRef(uri=str(path), byte_size=path.stat().st_size)
    ref = SeriesRef(series_key="k", kind=Kind.NIFTI, instances=(instance,))
    volume = read_series(ref, ArchiveConfig())
    assert isinstance(volume, Volume)
    return volume


def voxels() -> np.ndarray[Any, Any]:
    return np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)  # x, y, z


def save(path: Path, stored: np.ndarray[Any, Any], **header: Any) -> Path:
    image = nibabel.Nifti1Image(stored, np.diag([2.0, 3.0, 4.0, 1.0]))
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def reason_of(content: bytes, max_voxels: int = 10**9) -> Reason:
    with pytest.raises(SeriesError) as caught:
        read_nifti(content, max_voxels=max_voxels)
    return caught.value.reason


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("orientation", ["axial", "coronal", "oblique"])
def test_phantom_comes_back(tmp_path: Path, name: str, orientation: Any) -> None:
    phantom = make_phantom(PhantomSpec(shape_zyx=(6, 24, 20), orientation=orientation, lesions=0))
    volume = read(write_nifti(phantom, tmp_path / name))
    np.testing.assert_array_equal(volume.hu, phantom.volume.hu)
    assert volume.geometry.same_grid(phantom.volume.geometry)
    assert volume.flags == ()


def test_slope_and_intercept(tmp_path: Path, phantom: Phantom) -> None:
    path = write_nifti(phantom, tmp_path / "a.nii.gz", slope=0.5, intercept=-1024.0)
    assert np.abs(read(path).hu.astype(int) - phantom.volume.hu).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, ">i2"])
def test_stored_types(tmp_path: Path, dtype: Any) -> None:
    stored = voxels().astype(dtype)
    volume = read(save(tmp_path / "a.nii", stored))
    np.testing.assert_array_equal(volume.hu, voxels().transpose(2, 1, 0))


def test_values_beyond_int16_and_nan(tmp_path: Path) -> None:
    stored = voxels().astype(np.float32)
    stored[0, 0, 0], stored[1, 0, 0], stored[2, 0, 0] = np.nan, 1e6, -np.inf
    volume = read(save(tmp_path / "a.nii", stored))
    assert volume.hu[0, 0, :3].tolist() == [-1024, 32767, -32768]
    assert Flag.HU_CLIPPED in volume.flags


def write_forms(path: Path, sform_code: int, qform_code: int) -> tuple[Path, Any, Any]:
    sform = np.array([[2.0, 0, 0, -5], [0, 3, 0, 7], [0, 0, 4, 9], [0, 0, 0, 1]])
    qform = sform.copy()
    qform[:3, 3] += 25.0
    image = nibabel.Nifti1Image(voxels(), None)
    image.set_sform(sform, code=sform_code)
    image.set_qform(qform, code=qform_code)
    image.header.set_zooms((2.0, 3.0, 4.0))
    nibabel.save(image, path)
    return path, sform, qform


@pytest.mark.parametrize(
    ("codes", "chosen", "flag"),
    [
        ((1, 1), "sform", Flag.SFORM_QFORM_DIFFER),
        ((2, 0), "sform", None),
        ((0, 1), "qform", None),
        ((0, 0), None, Flag.NO_GEOMETRY),
    ],
)
def test_which_matrix_counts(
    tmp_path: Path, codes: tuple[int, int], chosen: str | None, flag: Flag | None
) -> None:
    path, sform, qform = write_forms(tmp_path / "a.nii", *codes)
    volume = read(path)
    assert volume.flags == ((flag,) if flag else ())
    if chosen:
        wanted = RAS_TO_LPS @ (sform if chosen == "sform" else qform)
        index = (3, 2, 1)
        np.testing.assert_allclose(
            volume.geometry.to_lps_mm(index), (wanted @ [1, 2, 3, 1])[:3], atol=1e-4
        )
    else:
        np.testing.assert_allclose(volume.geometry.spacing_zyx_mm, (4.0, 3.0, 2.0))


def test_metres_become_millimetres(tmp_path: Path) -> None:
    affine = np.diag([0.0007, 0.0008, 0.0009, 1.0])
    affine[:3, 3] = 0.1
    image = nibabel.Nifti1Image(voxels(), affine)
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "a.nii")
    volume = read(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.geometry.spacing_zyx_mm, (0.9, 0.8, 0.7), 1e-5)
    np.testing.assert_allclose(volume.geometry.to_lps_mm((0, 0, 0)), (-100, -100, 100), 1e-5)
    assert Flag.NO_GEOMETRY not in volume.flags


def test_four_dimensions(tmp_path: Path, index: Callable[[Path], Any]) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "one.nii", voxels()[..., np.newaxis])
    save(tmp_path / "in" / "two.nii.gz", np.stack([voxels(), voxels()], axis=-1))
    rows = {Path(r["instances"][0]["uri"]).name: r for r in index(tmp_path / "in")}
    assert rows["one.nii"]["status"] == "ok"
    assert rows["one.nii"]["shape_zyx"] == [6, 5, 4]
    assert rows["two.nii.gz"]["reason"] == "shape_mismatch"
    np.testing.assert_array_equal(read(tmp_path / "in" / "one.nii").hu[:, 1, 2], voxels()[2, 1])
    assert reason_of((tmp_path / "in" / "two.nii.gz").read_bytes()) is Reason.SHAPE_MISMATCH


def test_nifti_two(tmp_path: Path, index: Callable[[Path], Any]) -> None:
    (tmp_path / "in").mkdir()
    image = nibabel.Nifti2Image(voxels(), np.diag([2.0, 3.0, 4.0, 1.0]))
    nibabel.save(image, tmp_path / "in" / "a.nii")
    (row,) = index(tmp_path / "in")
    assert (row["status"], row["shape_zyx"]) == ("ok", [6, 5, 4])
    np.testing.assert_array_equal(read(tmp_path / "in" / "a.nii").hu, voxels().transpose(2, 1, 0))


def test_what_is_refused(tmp_path: Path, index: Callable[[Path], Any]) -> None:
    content = save(tmp_path / "a.nii", voxels()).read_bytes()
    assert reason_of(content[:-10]) is Reason.PIXELS_UNREADABLE
    assert reason_of(content, max_voxels=100) is Reason.TOO_LARGE
    packed = gzip.compress(content)
    assert reason_of(packed[: len(packed) // 2]) is Reason.PIXELS_UNREADABLE
    assert reason_of(packed[:40] + b"xxxxxxxx" + packed[48:]) is Reason.PIXELS_UNREADABLE
    bomb = gzip.compress(content + bytes(20 << 20))
    tracemalloc.start()
    np.testing.assert_array_equal(
        read_nifti(bomb, max_voxels=1000).hu, read_nifti(content, max_voxels=1000).hu
    )
    assert tracemalloc.get_traced_memory()[1] < 4 << 20, "what lies behind the voxels is expanded"
    tracemalloc.stop()
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    coloured = save(tmp_path / "rgb.nii", rgb).read_bytes()
    assert reason_of(coloured) is Reason.UNSUPPORTED_COLOR
    complex_ = save(tmp_path / "complex.nii", voxels().astype(np.complex64)).read_bytes()
    assert reason_of(complex_) is Reason.NOT_CT
    broken = bytearray(content)
    broken[40:42] = (99).to_bytes(2, "little")
    assert reason_of(bytes(broken)) is Reason.HEADER_UNREADABLE
    (tmp_path / "in").mkdir()
    nibabel.save(nibabel.Nifti1Pair(voxels(), np.eye(4)), tmp_path / "in" / "pair.img")
    (tmp_path / "in" / "x.gz").write_bytes(gzip.compress(b"text" * 200))
    assert {r["reason"] for r in index(tmp_path / "in")} == {"not_an_image"}


def test_a_singular_matrix(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels(), None), tmp_path / "a.nii")
    content = bytearray((tmp_path / "a.nii").read_bytes())
    volume = read_nifti(bytes(content), max_voxels=1000)
    assert Flag.NO_GEOMETRY in volume.flags
    content[80:84] = np.float32(np.nan).tobytes()
    assert reason_of(bytes(content)) is Reason.GEOMETRY_INVALID


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_long_extension_does_not_matter(tmp_path: Path, name: str) -> None:
    image = nibabel.Nifti1Image(voxels(), np.diag([2.0, 3.0, 4.0, 1.0]))
    note = nibabel.nifti1.Nifti1Extension("comment", b"organ names " * 500)
    image.header.extensions.append(note)
    nibabel.save(image, tmp_path / name)
    np.testing.assert_array_equal(read(tmp_path / name).hu, voxels().transpose(2, 1, 0))
