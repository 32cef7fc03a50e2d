"""The smallest DICOM CT files that hold, with any element changed."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"


def ct_dataset(pixels: NDArray[Any], z_mm: float = 0.0, **elements: Any) -> Dataset:
    """One axial slice; an element given as None is left out."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = CT
    uid = elements.pop("SOPInstanceUID", None)
    uid = generate_uid(entropy_srcs=[str(z_mm), str(elements)]) if uid is None else uid
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = uid
    ds.Modality = "CT"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    ds.PatientName, ds.PatientID = "Doe^Jane", "SECRET-1"
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = pixels.dtype.itemsize * 8
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelSpacing = [0.7, 0.8]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.ImagePositionPatient = [-20.0, -30.0, z_mm]
    ds.SliceThickness = 2.0
    ds.RescaleSlope, ds.RescaleIntercept = 1, 0
    ds.PixelData = pixels.tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    if "BitsStored" in elements and "HighBit" not in elements:
        ds.HighBit = ds.BitsStored - 1
    return ds


def write_ct(path: Path, pixels: NDArray[Any], z_mm: float = 0.0, **elements: Any) -> Path:
    """Write `ct_dataset` as a DICOM file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = ct_dataset(pixels, z_mm, **elements)
    ds["PixelData"].VR = "OB" if ds.BitsAllocated <= 8 else "OW"
    ds.save_as(path, enforce_file_format=True)
    return path


def tissue(shape_yx: tuple[int, int] = (24, 20), seed: int = 0) -> NDArray[np.int16]:
    """Air with noise around tissue with noise."""
    rng = np.random.default_rng(seed)
    hu = np.full(shape_yx, -1000.0)
    hu[4:-4, 3:-3] = 40.0
    return np.asarray(hu + rng.normal(0, 12, shape_yx), dtype=np.int16)


def write_stack(folder: Path, z_mm: Iterable[float], name: str = "s", **elements: Any) -> Path:
    """One file a position, each with pixels of its own."""
    for i, z in enumerate(z_mm):
        write_ct(folder / f"{name}{i:03d}.dcm", tissue(seed=i), z, InstanceNumber=i + 1, **elements)
    return folder
