"""raypipe/archive/dicom.py, pixels.py and rescale.py: HU exactly as the file says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import (
    JPEG2000,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from raypipe.archive.manifest import series_ref
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.errors import Reason, SeriesError
from raypipe.phantom import DicomOptions, Phantom, write_broken, write_dicom, write_enhanced
from raypipe.types import Flag, InstanceRef, Kind, SeriesRef, SliceStack
from tests.archive.ct_files import ct_dataset, tissue, write_ct, write_stack


def ref_of(*paths: Path) -> SeriesRef:
    instances = tuple(InstanceRef(uri=str(p), byte_size=p.stat().st_size) for p in paths)
    return SeriesRef(series_key="k", kind=Kind.DICOM, instances=instances)


def read(*paths: Path, **config: Any) -> SliceStack:
    stack = read_series(ref_of(*paths), ArchiveConfig(**config))
    assert isinstance(stack, SliceStack)
    return stack


def reason_of(*paths: Path, **config: Any) -> Reason:
    with pytest.raises(SeriesError) as caught:
        read(*paths, **config)
    return caught.value.reason


@pytest.mark.parametrize("syntax", ["explicit", "implicit", "deflated", "rle", "jpeg2000"])
@pytest.mark.parametrize("signed", [True, False])
def test_transfer_syntaxes_give_the_phantoms_hu(
    tmp_path: Path, phantom: Phantom, syntax: Any, signed: bool
) -> None:
    options = DicomOptions(transfer_syntax=syntax, signed=signed)
    written = write_dicom(phantom, tmp_path, options)
    stack = read(*written.paths)
    np.testing.assert_array_equal(stack.hu, phantom.volume.hu)
    assert stack.instance_uids == written.instance_uids
    corners = phantom.volume.geometry.to_lps_mm([(z, 0, 0) for z in range(12)])
    np.testing.assert_allclose(stack.positions_lps_mm, corners, atol=1e-3)


def test_enhanced_multi_frame(tmp_path: Path, phantom: Phantom) -> None:
    written = write_enhanced(phantom, tmp_path, DicomOptions(signed=False))
    stack = read(*written.paths)
    np.testing.assert_array_equal(stack.hu, phantom.volume.hu)
    assert len(stack.instance_uids) == 12 and len(set(stack.instance_uids)) == 1
    np.testing.assert_allclose(
        stack.positions_lps_mm,
        phantom.volume.geometry.to_lps_mm([(z, 0, 0) for z in range(12)]),
        atol=1e-3,
    )


@pytest.mark.parametrize(("sizes", "concatenated"), [([1] * 12, False), ([11, 1], True)])
def test_enhanced_objects_of_a_frame_each_and_parts_of_a_concatenation(
    tmp_path: Path,
    phantom: Phantom,
    index: Callable[[Path], Any],
    sizes: list[int],
    concatenated: bool,
) -> None:
    whole = dcmread(write_enhanced(phantom, tmp_path / "whole", DicomOptions()).paths[0])
    pixels, groups = whole.pixel_array, list(whole.PerFrameFunctionalGroupsSequence)
    (tmp_path / "parts").mkdir()
    begin = 0
    for number, size in enumerate(sizes):
        frames = slice(begin, begin + size)
        begin += size
        whole.NumberOfFrames = size
        whole.PerFrameFunctionalGroupsSequence = groups[frames]
        whole.PixelData = pixels[frames].tobytes()
        whole.SOPInstanceUID = f"1.2.{number + 1}"
        whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
        if concatenated:
            whole.ConcatenationUID = "1.2.77"
        whole.save_as(tmp_path / "parts" / f"{number}.dcm")
    (row,) = index(tmp_path / "parts")
    assert row["status"] == "ok" and row["shape_zyx"] == [12, 56, 64]
    stack = read_series(series_ref(row), ArchiveConfig())
    assert isinstance(stack, SliceStack)
    order = np.argsort(stack.positions_lps_mm[:, 2])
    np.testing.assert_array_equal(stack.hu[order], phantom.volume.hu)


@pytest.mark.parametrize("kind", ["MGML", "Z_EFF", "HU", "US", "HU_MOD"])
def test_values_that_are_declared_to_be_no_hu_are_refused(tmp_path: Path, kind: str) -> None:
    path = write_ct(tmp_path / "x", tissue(), RescaleType=kind)
    if kind in ("MGML", "Z_EFF"):
        assert reason_of(path) is Reason.HU_IMPLAUSIBLE
    else:
        assert read(path).hu.shape == (1, 24, 20)


def _with_gdcm(path: Path, stored: np.ndarray[Any, Any], syntax: Any, gdcm_type: Any) -> Path:
    """Compress one slice with GDCM, which has encoders that pydicom lacks."""
    import gdcm

    native = write_ct(path.with_suffix(".native"), stored, BitsStored=16)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(native))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm_type))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert dcmread(path).file_meta.TransferSyntaxUID == syntax
    return path


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize(
    ("syntax", "name"),
    [
        (JPEGLosslessSV1, "JPEGLosslessProcess14_1"),
        (JPEGLSLossless, "JPEGLSLossless"),
        (JPEG2000Lossless, "JPEG2000Lossless"),
        (RLELossless, "RLELossless"),
    ],
)
def test_codecs_of_gdcm(tmp_path: Path, dtype: Any, syntax: Any, name: str) -> None:
    import gdcm

    offset = 0 if dtype is np.int16 else 1024
    stored = (tissue((32, 40)).astype(np.int32) + offset).clip(-1024 + offset).astype(dtype)
    path = _with_gdcm(tmp_path / "x.dcm", stored, syntax, getattr(gdcm.TransferSyntax, name))
    np.testing.assert_array_equal(read(path).hu[0], stored.astype(np.int16))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
@pytest.mark.parametrize("stored_bits", [12, 16])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEG2000])
def test_jpeg_2000_is_the_same_by_every_decoder(
    tmp_path: Path, syntax: Any, stored_bits: int, dtype: Any
) -> None:
    offset = 0 if dtype is np.int16 else 1024
    stored = (tissue((64, 80)).astype(np.int32) + offset).clip(offset - 1024, 2047).astype(dtype)
    ds = ct_dataset(stored, BitsStored=stored_bits, HighBit=stored_bits - 1)
    ds.compress(
        syntax, **({"j2k_cr": [8]} if syntax == JPEG2000 else {}), generate_instance_uid=False
    )
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    ours = read(tmp_path / "x").hu[0]
    decoder = get_decoder(syntax)
    for plugin in ("gdcm", "pylibjpeg"):
        frame, _ = decoder.as_array(ds, index=0, raw=True, decoding_plugin=plugin)
        np.testing.assert_array_equal(ours, frame.astype(np.int16), plugin)
    lossy = syntax == JPEG2000
    assert np.array_equal(ours, stored) != lossy and np.abs(ours - stored.astype(int)).max() < 200


def test_big_endian(tmp_path: Path) -> None:
    pixels = tissue()
    ds = ct_dataset(pixels.astype(">i2"), RescaleIntercept=-7)
    del ds.file_meta
    ds["PixelData"].VR = "OW"
    path = tmp_path / "big"
    ds.save_as(path, implicit_vr=False, little_endian=False)
    np.testing.assert_array_equal(read(path).hu[0], pixels - 7)


def test_without_preamble_and_meta(tmp_path: Path, index: Callable[[Path], Any]) -> None:
    pixels = tissue()
    ds = ct_dataset(pixels)
    del ds.file_meta
    ds["PixelData"].VR = "OW"
    (tmp_path / "a").mkdir()
    ds.save_as(tmp_path / "a" / "bare", implicit_vr=True, little_endian=True)
    (row,) = index(tmp_path / "a")
    assert (row["status"], row["kind"]) == ("ok", "dicom")
    np.testing.assert_array_equal(read(tmp_path / "a" / "bare").hu[0], pixels)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -0.25), (1.7, -1000.4), (2.0, 3.0)])
def test_fractional_rescale_rounds_to_the_nearest(
    tmp_path: Path, slope: float, intercept: float
) -> None:
    pixels = tissue()
    path = write_ct(tmp_path / "x", pixels, RescaleSlope=slope, RescaleIntercept=intercept)
    np.testing.assert_array_equal(read(path).hu[0], np.rint(pixels * slope + intercept))


def test_every_slice_has_its_own_rescale(tmp_path: Path) -> None:
    pixels = tissue()
    paths = [
        write_ct(tmp_path / f"{i}", pixels, 2.0 * i, RescaleIntercept=10 * i, RescaleSlope=1 + i)
        for i in range(3)
    ]
    stack = read(*paths)
    for i in range(3):
        np.testing.assert_array_equal(stack.hu[i], pixels * (1 + i) + 10 * i)


def test_unsigned_values_above_int16_come_back_by_the_intercept(tmp_path: Path) -> None:
    hu = tissue()
    stored = (hu.astype(np.int32) + 40_000).astype(np.uint16)
    path = write_ct(tmp_path / "x", stored, RescaleIntercept=-40_000)
    np.testing.assert_array_equal(read(path).hu[0], hu)


def test_values_beyond_int16_are_clipped_with_a_flag(tmp_path: Path) -> None:
    stored = tissue().astype(np.int32).astype(np.int16)
    stored[0, 0] = 30_000
    stack = read(write_ct(tmp_path / "x", stored, RescaleSlope=2))
    assert stack.hu[0, 0, 0] == 32767
    assert Flag.HU_CLIPPED in stack.flags


def test_high_bits_that_do_not_count_are_left_out(tmp_path: Path) -> None:
    hu = tissue().clip(-1024)
    values = (hu + 1024).astype(np.uint16)
    dirty = values | 0xA000
    low = read(write_ct(tmp_path / "low", dirty, BitsStored=12, RescaleIntercept=-1024))
    np.testing.assert_array_equal(low.hu[0], hu)
    shifted = (values << 4) | 0x9
    high = read(
        write_ct(tmp_path / "high", shifted, BitsStored=12, HighBit=15, RescaleIntercept=-1024)
    )
    np.testing.assert_array_equal(high.hu[0], hu)


def test_signed_twelve_bits_are_sign_extended(tmp_path: Path) -> None:
    values = tissue().clip(-2048, 2047)
    stored = (values.astype(np.uint16) & 0x0FFF).astype(np.uint16).view(np.int16)
    path = write_ct(tmp_path / "x", stored, BitsStored=12)
    np.testing.assert_array_equal(read(path).hu[0], values)


def test_eight_and_thirty_two_bits(tmp_path: Path) -> None:
    eight = (tissue() // 8 + 128).clip(0, 255).astype(np.uint8)
    path = write_ct(tmp_path / "8", eight, RescaleSlope=8, RescaleIntercept=-1024)
    np.testing.assert_array_equal(read(path).hu[0], eight.astype(int) * 8 - 1024)
    wide = tissue().astype(np.int32)
    np.testing.assert_array_equal(read(write_ct(tmp_path / "32", wide)).hu[0], wide)


def test_padding_as_ge_writes_it_becomes_air(tmp_path: Path) -> None:
    stored = (tissue() + 1024).astype(np.int16)
    stored[:3] = -2000
    ds = ct_dataset(stored, RescaleIntercept=-1024)
    ds.add_new(0x00280120, "US", 63536)
    ds["PixelData"].VR = "OW"
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    stack = read(tmp_path / "x")
    assert np.all(stack.hu[0, :3] == -1024)
    np.testing.assert_array_equal(stack.hu[0, 3:], tissue()[3:])
    assert Flag.PADDING in stack.flags


def test_padding_range(tmp_path: Path) -> None:
    stored = tissue()
    stored[0], stored[1], stored[2] = -2000, -1990, -1980
    ds = ct_dataset(stored)
    ds.add_new(0x00280120, "SS", -2000)
    ds.add_new(0x00280121, "SS", -1985)
    ds["PixelData"].VR = "OW"
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    hu = read(tmp_path / "x").hu[0]
    assert np.all(hu[:2] == -1024) and np.all(hu[2] == -1980)


def test_a_padding_value_that_means_water_spares_the_patient(tmp_path: Path) -> None:
    stored = tissue()
    stored[:2] = 0  # outside, at the border
    stored[10:12, 8:10] = 0  # a cyst
    ds = ct_dataset(stored)
    ds.add_new(0x00280120, "SS", 0)
    ds["PixelData"].VR = "OW"
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    hu = read(tmp_path / "x").hu[0]
    assert np.all(hu[:2] == -1024) and np.all(hu[10:12, 8:10] == 0)


def test_without_padding_there_is_no_flag(tmp_path: Path) -> None:
    ds = ct_dataset(tissue())
    ds.add_new(0x00280120, "SS", -3000)
    ds["PixelData"].VR = "OW"
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    assert read(tmp_path / "x").flags == ()


def test_modality_lut(tmp_path: Path) -> None:
    stored = np.arange(16, dtype=np.uint16).reshape(4, 4)
    table = (np.arange(16) * 50 + 7).astype(np.uint16)
    item = Dataset()
    item.add_new(0x00283002, "US", [16, 0, 16])
    item.ModalityLUTType = "HU"
    item.add_new(0x00283006, "OW", table.tobytes())
    path = write_ct(
        tmp_path / "x",
        stored,
        ModalityLUTSequence=[item],
        RescaleSlope=None,
        RescaleIntercept=None,
    )
    np.testing.assert_array_equal(read(path).hu[0], table.reshape(4, 4))


def _body(seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    hu = np.full((64, 64), -1000.0)
    hu[10:54, 8:56] = 45.0
    hu[20:40, 14:26] = -850.0
    hu[20:40, 38:50] = -850.0
    return np.asarray(hu + rng.normal(0, 15, hu.shape), dtype=np.int16)


def test_an_intercept_applied_before_is_not_applied_again(tmp_path: Path) -> None:
    paths = [
        write_ct(tmp_path / f"{i}", _body(i), 2.0 * i, RescaleIntercept=-1024) for i in range(5)
    ]
    stack = read(*paths)
    assert Flag.HU_ALREADY_RESCALED in stack.flags
    for i in range(5):
        np.testing.assert_array_equal(stack.hu[i], _body(i))


@pytest.mark.parametrize("undeclared_padding", [None, -2000])
def test_a_signed_offset_that_is_right_is_applied(
    tmp_path: Path, undeclared_padding: int | None
) -> None:
    paths = []
    for i in range(5):
        stored = (_body(i) + 1024).astype(np.int16)
        if undeclared_padding is not None:
            stored[:6] = undeclared_padding
        paths.append(write_ct(tmp_path / f"{i}", stored, 2.0 * i, RescaleIntercept=-1024))
    stack = read(*paths)
    assert Flag.HU_ALREADY_RESCALED not in stack.flags
    np.testing.assert_array_equal(stack.hu[2, 6:], _body(2)[6:])


def test_truncated_pixels(tmp_path: Path, phantom: Phantom) -> None:
    written = write_broken(phantom, tmp_path, "truncated_pixels")
    assert reason_of(*written.paths) is Reason.PIXELS_UNREADABLE


def test_native_pixels_under_a_compressed_syntax(tmp_path: Path, phantom: Phantom) -> None:
    written = write_broken(phantom, tmp_path, "wrong_transfer_syntax")
    assert reason_of(*written.paths) is Reason.TRANSFER_SYNTAX_MISMATCH


def test_codestream_of_another_family(tmp_path: Path) -> None:
    ds = ct_dataset(tissue())
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xc3" + bytes(60)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    assert reason_of(tmp_path / "x") is Reason.TRANSFER_SYNTAX_MISMATCH


def test_damaged_codestream(tmp_path: Path) -> None:
    ds = ct_dataset(tissue())
    ds.PixelData = encapsulate([b"\xff\xd8\xff\xc0" + bytes(60)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    assert reason_of(tmp_path / "x") is Reason.PIXELS_UNREADABLE


def test_syntax_without_a_decoder(tmp_path: Path) -> None:
    ds = ct_dataset(tissue())
    ds.PixelData = encapsulate([bytes(100)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"  # MPEG-4
    ds.save_as(tmp_path / "x", enforce_file_format=True)
    assert reason_of(tmp_path / "x") is Reason.TRANSFER_SYNTAX_UNSUPPORTED


def test_other_reasons(tmp_path: Path, phantom: Phantom) -> None:
    assert reason_of(write_ct(tmp_path / "a", tissue()), max_voxels=10) is Reason.TOO_LARGE
    path = write_ct(tmp_path / "b", tissue(), PixelSpacing=[0, 1])
    assert reason_of(path) is Reason.GEOMETRY_INVALID
    path = write_ct(tmp_path / "c", tissue(), ImagePositionPatient=None)
    assert reason_of(path) is Reason.GEOMETRY_MISSING
    path = write_ct(tmp_path / "d", tissue(), RescaleSlope=0)
    assert reason_of(path) is Reason.HEADER_UNREADABLE
    path = write_ct(tmp_path / "e", tissue(), PixelData=b"")
    assert reason_of(path) is Reason.PIXELS_UNREADABLE
    paths = write_broken(phantom, tmp_path / "f", "mixed_shapes").paths
    assert reason_of(*paths) is Reason.SHAPE_MISMATCH
    paths = write_broken(phantom, tmp_path / "g", "mixed_orientation").paths
    assert reason_of(*paths) is Reason.GEOMETRY_INVALID
    paths = write_broken(phantom, tmp_path / "h", "colour").paths
    assert reason_of(*paths) is Reason.UNSUPPORTED_COLOR
    paths = write_broken(phantom, tmp_path / "i", "no_pixel_data").paths
    assert reason_of(*paths) is Reason.NO_PIXEL_DATA


def test_a_file_that_went_away(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "s", [0.0, 2.0])
    ref = ref_of(*sorted(folder.iterdir()))
    (folder / "s001.dcm").unlink()
    with pytest.raises(SeriesError) as caught:
        read_series(ref, ArchiveConfig())
    assert caught.value.reason is Reason.SOURCE_MISSING
    assert caught.value.status.value == "failed"
    assert "s001" not in str(caught.value)
