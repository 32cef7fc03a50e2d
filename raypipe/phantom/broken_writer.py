"""Write series that no reader can or should accept, one fault each.

In: a Phantom, a folder, a fault. Out: files.
Does not know: how the archive reader answers them.
"""

from pathlib import Path
from typing import Literal, get_args

from raypipe.phantom.anatomy import Phantom
from raypipe.phantom.dicom_writer import DicomOptions, WrittenSeries, write_dicom

Fault = Literal[
    "truncated_pixels",
    "wrong_transfer_syntax",
    "unknown_transfer_syntax",
    "no_modality",
    "wrong_modality",
    "no_position",
    "no_pixel_data",
    "secondary_capture",
    "colour",
    "mixed_shapes",
    "mixed_orientation",
    "garbage",
    "empty_file",
]

_MR = "1.2.840.10008.5.1.4.1.1.4"
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

FAULTS: tuple[Fault, ...] = get_args(Fault)


def write_broken(
    phantom: Phantom, folder: Path | str, fault: Fault, options: DicomOptions | None = None
) -> WrittenSeries:
    """Write the phantom, then damage it.

    "truncated_pixels": the middle file ends within its pixels. "wrong_transfer_syntax": native
    pixels under the UID of JPEG 2000. "unknown_transfer_syntax": a UID that nobody registered.
    "garbage", "empty_file": files that are no DICOM at all. The others change the header.
    """
    options = options or DicomOptions()
    written = write_dicom(phantom, folder, options)
    middle = written.paths[len(written.paths) // 2]
    if fault == "truncated_pixels":
        size = middle.stat().st_size
        with middle.open("r+b") as file:
            file.truncate(size - phantom.volume.hu[0].nbytes // 2)
    elif fault in ("garbage", "empty_file"):
        content = b"" if fault == "empty_file" else b"this is not an image\n" * 200
        for path in written.paths:
            path.write_bytes(content)
    elif fault in ("mixed_shapes", "mixed_orientation"):
        _change(middle, fault)
    else:
        for path in written.paths:
            _change(path, fault)
    return written


def _change(path: Path, fault: Fault) -> None:
    from pydicom import dcmread, dcmwrite
    from pydicom.uid import UID

    ds = dcmread(path)
    if fault == "wrong_transfer_syntax":
        _rename_syntax(path, "1.2.840.10008.1.2.4.90")
        return
    if fault == "unknown_transfer_syntax":
        _rename_syntax(path, "1.2.826.0.1.3680043.8.498.999")
        return
    if fault == "no_modality":
        del ds.Modality
    elif fault == "wrong_modality":
        ds.Modality = "MR"
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(_MR)
    elif fault == "no_position":
        del ds.ImagePositionPatient, ds.ImageOrientationPatient
        del ds.SliceLocation
    elif fault == "no_pixel_data":
        del ds.PixelData
    elif fault == "secondary_capture":
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UID(_CAPTURE)
        ds.ImageType = ["DERIVED", "SECONDARY"]
        ds.ConversionType = "WSD"
    elif fault == "colour":
        _paint_colour(ds)
    elif fault == "mixed_shapes":
        ds.Rows = ds.Rows // 2
        ds.PixelData = ds.PixelData[: ds.Rows * ds.Columns * 2]
    elif fault == "mixed_orientation":
        ds.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    else:
        raise AssertionError(fault)
    dcmwrite(path, ds, enforce_file_format=True)


def _paint_colour(ds: object) -> None:
    from pydicom.dataset import Dataset

    assert isinstance(ds, Dataset)
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit, ds.PixelRepresentation = 7, 0
    ds.PixelData = bytes(ds.Rows * ds.Columns * 3)
    ds["PixelData"].VR = "OB"


def _rename_syntax(path: Path, uid: str) -> None:
    """Change the UID in the file meta, and nothing of the pixels."""
    from pydicom import dcmread
    from pydicom.filebase import DicomBytesIO
    from pydicom.filewriter import write_file_meta_info
    from pydicom.uid import UID

    ds = dcmread(path)
    raw = path.read_bytes()
    # preamble (128), "DICM" (4), the length element (12), then as many bytes as it says
    start = 144 + int(ds.file_meta.FileMetaInformationGroupLength)
    ds.file_meta.TransferSyntaxUID = UID(uid)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_file_meta_info(buffer, ds.file_meta)
    path.write_bytes(raw[:132] + buffer.getvalue() + raw[start:])
