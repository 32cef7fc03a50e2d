from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from PIL import Image

from raypipe.phantom import (
    FAULTS,
    DicomOptions,
    Phantom,
    PhantomSpec,
    make_phantom,
    outside_circle,
    write_broken,
    write_dicom,
    write_enhanced,
    write_image,
    write_localizer,
    write_nifti,
)

SIZES = [
    ((6, 40, 48), (5.0, 7.0, 7.0)),
    ((9, 64, 56), (2.5, 5.5, 6.0)),
    ((14, 33, 32), (8.0, 9, 9)),
]


def _phantom(orientation: str = "axial", size: int = 0, **changes: object) -> Phantom:
    shape, spacing = SIZES[size]
    chosen = {"shape_zyx": shape, "spacing_zyx_mm": spacing, "orientation": orientation}
    return make_phantom(PhantomSpec.model_validate(chosen | {"lesions": 1, "seed": 4} | changes))


def _affine(image: SimpleITK.Image) -> np.ndarray:
    affine = np.eye(4)
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, :3], affine[:3, 3] = direction[:, ::-1], image.GetOrigin()
    return affine


def _read_series(paths: tuple[Path, ...]) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


@pytest.mark.parametrize("size", range(3))
@pytest.mark.parametrize("orientation", ["axial", "oblique", "coronal"])
def test_itk_reads_dicom_and_nifti_as_written(tmp_path: Path, orientation: str, size: int) -> None:
    phantom = _phantom(orientation, size)
    written = write_dicom(phantom, tmp_path / "dicom")
    nifti = write_nifti(phantom, tmp_path / "volume.nii.gz")
    for image in (_read_series(written.paths), SimpleITK.ReadImage(str(nifti))):
        assert np.array_equal(SimpleITK.GetArrayFromImage(image), phantom.volume.hu)
        truth = phantom.volume.geometry.affine_zyx_to_lps
        assert np.allclose(_affine(image), truth, atol=2e-4)


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated", "rle", "jpeg2000"])
@pytest.mark.parametrize("signed", [True, False])
def test_every_transfer_syntax_keeps_the_hu(tmp_path: Path, syntax: str, signed: bool) -> None:
    phantom = _phantom()
    options = DicomOptions.model_validate({"transfer_syntax": syntax, "signed": signed})
    for path, hu in zip(
        write_dicom(phantom, tmp_path, options).paths, phantom.volume.hu, strict=True
    ):
        ds = pydicom.dcmread(path)
        stored = ds.pixel_array.astype(int)
        assert ds.PixelRepresentation == int(signed)
        assert np.array_equal(stored * int(ds.RescaleSlope) + int(ds.RescaleIntercept), hu)


def test_headers_are_whole_and_plainly_synthetic(tmp_path: Path) -> None:
    phantom = _phantom(contrast="portal")
    written = write_dicom(phantom, tmp_path, DicomOptions(patient=7))
    heads = [pydicom.dcmread(path) for path in written.paths]
    first = heads[0]
    assert first.Modality == "CT" and first.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
    assert first.PatientID == "PHANTOM-000007" and "Synthetic" in str(first.PatientName)
    assert first.ContrastBolusAgent and float(first.SliceThickness) == 5.0
    assert [h.SOPInstanceUID for h in heads] == list(written.instance_uids)
    assert {h.SeriesInstanceUID for h in heads} == {written.series_uid}
    assert len(set(written.instance_uids)) == len(heads)
    assert all(h.file_meta.MediaStorageSOPInstanceUID == h.SOPInstanceUID for h in heads)
    assert all(len(str(v)) <= 16 for h in heads for v in h.ImagePositionPatient)


def test_uids_depend_on_spec_and_options_alone(tmp_path: Path) -> None:
    phantom = _phantom()
    first = write_dicom(phantom, tmp_path / "a")
    again = write_dicom(_phantom(), tmp_path / "b")
    other = write_dicom(phantom, tmp_path / "c", DicomOptions(series_number=2))
    assert first.instance_uids == again.instance_uids
    assert first.paths[0].read_bytes() == again.paths[0].read_bytes()
    assert first.study_uid == other.study_uid and first.series_uid != other.series_uid


def test_padding_marks_what_lies_outside_the_circle(tmp_path: Path) -> None:
    phantom = _phantom()
    written = write_dicom(phantom, tmp_path, DicomOptions(padding_value=-2000))
    ds = pydicom.dcmread(written.paths[0])
    outside = outside_circle(ds.pixel_array.shape)
    assert ds.PixelPaddingValue == -2000
    assert (ds.pixel_array[outside] == -2000).all() and outside.any()
    assert np.array_equal(ds.pixel_array[~outside], phantom.volume.hu[0][~outside])


def test_slope_and_intercept_are_undone_by_the_reader(tmp_path: Path) -> None:
    phantom = _phantom()
    options = DicomOptions(rescale_slope=2.0, rescale_intercept=-1000.0)
    image = _read_series(write_dicom(phantom, tmp_path, options).paths)
    assert np.abs(SimpleITK.GetArrayFromImage(image) - phantom.volume.hu).max() <= 1
    path = write_nifti(phantom, tmp_path / "v.nii", slope=2, intercept=-1000)
    nifti = SimpleITK.ReadImage(str(path))
    assert np.abs(SimpleITK.GetArrayFromImage(nifti) - phantom.volume.hu).max() <= 1


def test_a_tilted_gantry_shears_positions_and_resamples_pixels(tmp_path: Path) -> None:
    phantom = _phantom(size=1, noise_hu=0.0, lesions=0)
    written = write_dicom(phantom, tmp_path, DicomOptions(gantry_tilt_deg=15.0))
    heads = [pydicom.dcmread(path) for path in written.paths]
    row, column = np.split(np.array(heads[0].ImageOrientationPatient, float), 2)
    positions = np.array([h.ImagePositionPatient for h in heads], float)
    step = positions[1] - positions[0]
    normal = np.cross(row, column)
    angle = np.degrees(np.arccos(normal @ step / np.linalg.norm(step)))
    assert angle == pytest.approx(15.0, abs=0.01)
    # a voxel of the middle slice holds what the body holds at its place in the patient
    middle = heads[4]
    points = positions[4] + 30 * 5.5 * column + np.arange(56)[:, None] * 6.0 * row
    index = phantom.volume.geometry.to_index(points)
    low, part = np.floor(index[:, 0]).astype(int), index[:, 0] % 1
    y = np.rint(index[:, 1]).astype(int)
    x = np.arange(56)
    hu = phantom.volume.hu.astype(float)
    expected = hu[low, y, x] * (1 - part) + hu[low + 1, y, x] * part
    gap = np.abs(middle.pixel_array[30] - expected)
    assert np.median(gap) < 60
    assert np.abs(middle.pixel_array - hu[4]).mean() > 20


def test_uneven_dropped_and_duplicated_slices(tmp_path: Path) -> None:
    phantom = _phantom(size=1)

    def heights(name: str, options: DicomOptions) -> list[float]:
        written = write_dicom(phantom, tmp_path / name, options)
        return [float(pydicom.dcmread(p).ImagePositionPatient[2]) for p in written.paths]

    steps = np.diff(heights("uneven", DicomOptions(uneven_spacing=True)))
    assert set(np.round(steps, 3)) == {2.5, 5.0}
    assert len(heights("dropped", DicomOptions(dropped_slices=(3,)))) == 8
    doubled = heights("doubled", DicomOptions(duplicated_slices=(2,)))
    assert len(doubled) == 10 and len(set(doubled)) == 9
    assert heights("reverse", DicomOptions(reverse=True)) == heights("plain", DicomOptions())
    last = pydicom.dcmread(tmp_path / "reverse" / "IM00001.dcm")
    assert float(last.ImagePositionPatient[2]) == max(doubled)


def test_names_and_empty_values(tmp_path: Path) -> None:
    options = DicomOptions(extension="", empty_series_uid=True, empty_thickness=True)
    written = write_dicom(_phantom(), tmp_path, options)
    ds = pydicom.dcmread(written.paths[0])
    assert written.series_uid == "" and ds.SeriesInstanceUID == ""
    assert ds.SliceThickness is None and written.paths[0].suffix == ""


@pytest.mark.parametrize("orientation", ["axial", "oblique"])
def test_the_enhanced_object_holds_every_frame(tmp_path: Path, orientation: str) -> None:
    phantom = _phantom(orientation)
    (path,) = write_enhanced(phantom, tmp_path).paths
    image = SimpleITK.ReadImage(str(path))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), phantom.volume.hu)
    ds = pydicom.dcmread(path)
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.2.1"
    assert ds.NumberOfFrames == len(ds.PerFrameFunctionalGroupsSequence) == 6
    position = ds.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence[0].ImagePositionPatient
    truth = phantom.volume.geometry.to_lps_mm((5, 0, 0))
    assert np.allclose(np.array(position, float), truth, atol=1e-4)


def test_a_localizer_says_so(tmp_path: Path) -> None:
    (path,) = write_localizer(_phantom(), tmp_path).paths
    ds = pydicom.dcmread(path)
    assert "LOCALIZER" in ds.ImageType and ds.pixel_array.std() > 10


def test_nifti_has_both_forms(tmp_path: Path) -> None:
    phantom = _phantom("oblique")
    image = nibabel.load(write_nifti(phantom, tmp_path / "a.nii"))
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert np.allclose(image.get_sform(), image.get_qform(), atol=1e-3)


def test_a_picture_is_windowed(tmp_path: Path) -> None:
    phantom = _phantom()
    picture = np.array(Image.open(write_image(phantom, tmp_path / "a.png", z=2)))
    assert picture.shape == (40, 48) and picture.dtype == np.uint8
    hu = phantom.volume.hu[2]
    assert (picture[hu <= -160] == 0).all() and (picture[hu >= 240] == 255).all()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_there(tmp_path: Path, fault: str) -> None:
    phantom = _phantom()
    good = write_dicom(phantom, tmp_path / "good")
    bad = write_broken(phantom, tmp_path / "bad", fault)  # type: ignore[arg-type]
    changed = [a.read_bytes() != b.read_bytes() for a, b in zip(good.paths, bad.paths, strict=True)]
    single = {"truncated_pixels", "mixed_shapes", "mixed_orientation"}
    assert sum(changed) == (1 if fault in single else len(changed))
    if fault in {"garbage", "empty_file"}:
        with pytest.raises(pydicom.errors.InvalidDicomError):
            pydicom.dcmread(bad.paths[0])
    elif fault == "wrong_transfer_syntax":
        ds = pydicom.dcmread(bad.paths[0])
        assert ds.file_meta.TransferSyntaxUID.is_compressed
        native = pydicom.dcmread(good.paths[0]).PixelData
        assert bad.paths[0].read_bytes().endswith(native)
