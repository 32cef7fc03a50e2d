"""Good series of every kind that the reader knows, small enough to be damaged thousands of times.

In: an empty folder. Out: one folder a seed, named after what it holds.
Does not know: how they are damaged.
"""

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.phantom import (
    DicomOptions,
    Phantom,
    PhantomSpec,
    make_phantom,
    write_dicom,
    write_enhanced,
    write_image,
    write_nifti,
)
from tests.archive.ct_files import ct_dataset, tissue

_SYNTAXES = ("explicit", "implicit", "deflated", "rle", "jpeg2000")
_GDCM_SYNTAXES = {"jpeg_lossless": "JPEGLosslessProcess14_1", "jpeg_ls": "JPEGLSLossless"}


def write_seeds(folder: Path) -> list[str]:
    """Write every seed below a folder; their names, in a fixed order."""
    phantom = make_phantom(PhantomSpec(shape_zyx=(3, 40, 36), lesions=0))
    for syntax in _SYNTAXES:
        options = DicomOptions(transfer_syntax=syntax)
        write_dicom(phantom, folder / f"dicom_{syntax}", options)
    unsigned = DicomOptions(signed=False, padding_value=0, rescale_slope=2.0)
    write_dicom(phantom, folder / "dicom_unsigned", unsigned)
    for syntax in ("explicit", "rle", "jpeg2000"):
        options = DicomOptions(transfer_syntax=syntax)  # type: ignore[arg-type]
        write_enhanced(phantom, folder / f"enhanced_{syntax}", options)
    for name, wanted in _GDCM_SYNTAXES.items():
        _recode(folder / "dicom_explicit", folder / f"dicom_{name}", wanted)
    _write_rare(folder)
    _write_nifti(phantom, folder)
    write_image(phantom, folder / "image_png" / "a.png")
    write_image(phantom, folder / "image_jpeg" / "a.jpg")
    _write_packed(folder)
    return sorted(f.name for f in folder.iterdir())


def _recode(source: Path, target: Path, wanted: str) -> None:
    """The files of a folder under another transfer syntax, by GDCM's encoders."""
    import gdcm

    target.mkdir()
    for file in sorted(source.iterdir()):
        reader = gdcm.ImageReader()
        reader.SetFileName(str(file))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, wanted)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(target / file.name))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


def _write_rare(folder: Path) -> None:
    """A lookup table in place of slope and intercept; big endian; no preamble."""
    from pydicom.dataset import Dataset
    from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [256, 0, 16], "HU"
    table.add_new("LUTData", "US", list(range(256)))
    pixels = tissue().clip(0, 255).astype(np.uint16)
    ds = ct_dataset(pixels, ModalityLUTSequence=[table], RescaleSlope=None, RescaleIntercept=None)
    ds["PixelData"].VR = "OW"
    _save(ds, folder / "dicom_lut")
    big = ct_dataset(tissue().byteswap().view(np.int16))
    big["PixelData"].VR = "OW"
    big.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    _save(big, folder / "dicom_big_endian")
    bare = ct_dataset(tissue())
    bare["PixelData"].VR = "OW"
    bare.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    _save(bare, folder / "dicom_bare")
    file = folder / "dicom_bare" / "a.dcm"
    content = file.read_bytes()
    file.write_bytes(content[content.index(b"\x08\x00\x08\x00") :])


def _save(ds: Any, folder: Path) -> None:
    folder.mkdir()
    ds.save_as(folder / "a.dcm", enforce_file_format=True)


def _write_nifti(phantom: Phantom, folder: Path) -> None:
    import nibabel as untyped

    nibabel: Any = untyped
    write_nifti(phantom, folder / "nifti_plain" / "a.nii")
    write_nifti(phantom, folder / "nifti_gz" / "a.nii.gz")
    write_nifti(phantom, folder / "nifti_scaled" / "a.nii", slope=2.0, intercept=-1024.0)
    voxels = np.ascontiguousarray(phantom.volume.hu.transpose(2, 1, 0)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    (folder / "nifti_2").mkdir()
    nibabel.save(nibabel.Nifti2Image(voxels, affine), folder / "nifti_2" / "a.nii")
    (folder / "nifti_big_endian").mkdir()
    header = nibabel.Nifti1Header(endianness=">")
    swapped = nibabel.Nifti1Image(voxels, affine, header=header)
    nibabel.save(swapped, folder / "nifti_big_endian" / "a.nii")


def _write_packed(folder: Path) -> None:
    """A series inside a zip and inside a tar.gz."""
    files = sorted((folder / "dicom_explicit").iterdir())
    (folder / "packed_zip").mkdir()
    with zipfile.ZipFile(folder / "packed_zip" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            archive.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
    (folder / "packed_tar").mkdir()
    with tarfile.open(folder / "packed_tar" / "a.tar", "w") as tar:
        for file in files:
            info = tarfile.TarInfo(file.name)
            info.size = file.stat().st_size
            tar.addfile(info, io.BytesIO(file.read_bytes()))
