"""Write a phantom as DICOM: plain CT Image Storage, with the oddities of real archives on request.

In: a Phantom, a folder, DicomOptions. Out: files, and the UIDs that they carry.
Does not know: how the archive reader works. The faults that make a file unreadable stand in
broken_writer.py, multi-frame objects in enhanced_writer.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from raypipe.phantom.anatomy import Phantom
from raypipe.phantom.frames import Frame, make_frames
from raypipe.settings import Settings

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

TransferSyntax = Literal["explicit", "implicit", "deflated", "rle", "jpeg2000"]
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


class DicomOptions(Settings):
    """How a phantom is stored."""

    transfer_syntax: TransferSyntax = Field(default="explicit", description="encoding of pixels")
    signed: bool = Field(default=True, description="stored pixels are int16, else uint16")
    rescale_slope: float = Field(default=1.0, gt=0, description="HU per stored unit")
    rescale_intercept: float | None = Field(
        default=None, description="HU of the stored value 0; None: 0 if signed, else -1024"
    )
    padding_value: int | None = Field(
        default=None, description="stored value outside the circle of reconstruction"
    )
    gantry_tilt_deg: float = Field(
        default=0.0, gt=-35, lt=35, description="slices are resampled on sheared planes, degrees"
    )
    uneven_spacing: bool = Field(
        default=False, description="the second half holds every other slice only"
    )
    dropped_slices: tuple[int, ...] = Field(default=(), description="indices not written")
    duplicated_slices: tuple[int, ...] = Field(
        default=(), description="indices written twice, under a second instance UID"
    )
    reverse: bool = Field(default=False, description="write from the last slice to the first")
    extension: str = Field(default=".dcm", description="of the file names; may be empty")
    empty_series_uid: bool = Field(default=False, description="SeriesInstanceUID has no value")
    empty_thickness: bool = Field(default=False, description="SliceThickness has no value")
    series_number: int = Field(default=1, ge=0, description="also part of the UIDs")
    patient: int | None = Field(
        default=None, ge=0, description="number of the synthetic patient; None: the seed"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        low = -32768 if self.signed else 0
        high = 32767 if self.signed else 65535
        if self.padding_value is not None and not low <= self.padding_value <= high:
            raise ValueError(f"padding_value {self.padding_value} does not fit {low}..{high}")
        return self

    @property
    def intercept(self) -> float:
        """HU of the stored value 0."""
        if self.rescale_intercept is not None:
            return self.rescale_intercept
        return 0.0 if self.signed else -1024.0


@dataclass(frozen=True, kw_only=True)
class WrittenSeries:
    """What was written.

    Args:
        paths: in the order of instance_uids.
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID, "" where it was left empty.
        instance_uids: one a slice written, from the grid's first slice on.
    """

    paths: tuple[Path, ...]
    study_uid: str = ""
    series_uid: str = ""
    instance_uids: tuple[str, ...] = ()


def write_dicom(
    phantom: Phantom, folder: Path | str, options: DicomOptions | None = None
) -> WrittenSeries:
    """Write one file a slice into a folder, which is made where needed.

    UIDs depend on the phantom's spec and the options alone.
    """
    options = options or DicomOptions()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frames = make_frames(phantom, options.gantry_tilt_deg)
    shared = base_dataset(phantom, options)
    paths, uids = [], []
    for number, (index, copy) in enumerate(_order(len(frames), options), start=1):
        uid = make_uid(phantom, options, "instance", index, copy)
        path = folder / f"IM{number:05d}{options.extension}"
        write_frame(path, shared, frames[index], (uid, number), options)
        paths.append(path)
        uids.append(uid)
    if options.reverse:
        paths.reverse()
        uids.reverse()
    return WrittenSeries(
        paths=tuple(paths),
        study_uid=str(shared.StudyInstanceUID),
        series_uid=str(shared.SeriesInstanceUID),
        instance_uids=tuple(uids),
    )


def _order(count: int, options: DicomOptions) -> list[tuple[int, int]]:
    """(index, copy) of the slices, as they are written."""
    kept = [i for i in range(count) if i not in options.dropped_slices]
    if options.uneven_spacing:
        kept = [i for i in kept if i < count // 2 or (i - count // 2) % 2 == 1]
    order = []
    for i in kept:
        order.append((i, 0))
        if i in options.duplicated_slices:
            order.append((i, 1))
    return order[::-1] if options.reverse else order


def make_uid(phantom: Phantom, options: DicomOptions, *parts: object) -> str:
    """A UID that depends on nothing but its arguments."""
    from pydicom.uid import generate_uid

    sources = [phantom.spec.model_dump_json(), options.model_dump_json(), *map(str, parts)]
    return str(generate_uid(entropy_srcs=["raypipe phantom", *sources]))


def study_uid(patient: int) -> str:
    """The UID of the one study of a synthetic patient."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["raypipe phantom study", str(patient)]))


def base_dataset(phantom: Phantom, options: DicomOptions) -> "Dataset":
    """What every instance of the series shares. Names and dates are plainly synthetic."""
    from pydicom.dataset import Dataset

    spec = phantom.spec
    patient = options.patient if options.patient is not None else spec.seed
    ds = Dataset()
    ds.SOPClassUID = CT_IMAGE_STORAGE
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20000101"
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = "120000"
    ds.AccessionNumber = f"SYN{patient:06d}"
    ds.Modality = "CT"
    ds.Manufacturer = "raypipe phantom"
    ds.StudyDescription = "Synthetic phantom"
    ds.SeriesDescription = f"Synthetic {spec.region}"
    ds.PatientName = f"Phantom^Synthetic {patient:06d}"
    ds.PatientID = f"PHANTOM-{patient:06d}"
    ds.PatientBirthDate = "19000101"
    ds.PatientSex = "O"
    ds.BodyPartExamined = {"chest_abdomen": "CHEST", "head": "HEAD"}.get(
        spec.region, spec.region.upper()
    )
    if spec.contrast != "none":
        ds.ContrastBolusAgent = "SYNTHETIC"
    ds.SliceThickness = None if options.empty_thickness else phantom.volume.thickness_mm
    ds.KVP = 120
    ds.GantryDetectorTilt = options.gantry_tilt_deg
    ds.ConvolutionKernel = spec.kernel.upper()
    ds.PatientPosition = "HFS"
    ds.StudyInstanceUID = study_uid(patient)
    ds.SeriesInstanceUID = "" if options.empty_series_uid else make_uid(phantom, options, "series")
    ds.StudyID = "1"
    ds.SeriesNumber = options.series_number
    ds.FrameOfReferenceUID = make_uid(phantom, options, "frame of reference")
    ds.PositionReferenceIndicator = ""
    _add_pixel_module(ds, phantom.volume.hu.shape[1:], phantom, options)
    return ds


def _add_pixel_module(
    ds: "Dataset", shape_yx: Sequence[int], phantom: Phantom, options: DicomOptions
) -> None:
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = "MONOCHROME2"
    ds.Rows, ds.Columns = int(shape_yx[0]), int(shape_yx[1])
    ds.PixelSpacing = [decimal(v) for v in phantom.volume.geometry.spacing_zyx_mm[1:]]
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit = 15
    ds.PixelRepresentation = int(options.signed)
    if options.padding_value is not None:
        ds.add_new("PixelPaddingValue", "SS" if options.signed else "US", options.padding_value)
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.RescaleIntercept = decimal(options.intercept)
    ds.RescaleSlope = decimal(options.rescale_slope)
    ds.RescaleType = "HU"


def decimal(value: float) -> str:
    """A decimal string of at most 16 characters, as the standard allows."""
    for digits in range(12, 3, -1):
        text = f"{value:.{digits}g}"
        if len(text) <= 16:
            return text
    raise AssertionError(f"{value} has no decimal string")


def stored_pixels(hu: NDArray[np.int16], options: DicomOptions) -> NDArray[np.integer]:
    """HU as they are stored, padding included."""
    kind = np.int16 if options.signed else np.uint16
    limits = np.iinfo(kind)
    raw = np.rint((hu.astype(np.float64) - options.intercept) / options.rescale_slope)
    stored = np.clip(raw, limits.min, limits.max).astype(kind)
    if options.padding_value is not None:
        stored[outside_circle(hu.shape[-2:])] = options.padding_value
    return stored


def outside_circle(shape_yx: Sequence[int]) -> NDArray[np.bool_]:
    """The pixels of a slice that lie outside the circle of reconstruction."""
    y, x = (np.arange(n) - (n - 1) / 2 for n in shape_yx)
    return np.asarray(np.hypot(y[:, None], x[None, :]) > 0.5 * min(shape_yx))


def write_frame(
    path: Path, shared: "Dataset", frame: Frame, name: tuple[str, int], options: DicomOptions
) -> None:
    """Write one instance; name is its SOPInstanceUID and its number."""
    from pydicom.dataset import Dataset

    ds = Dataset()
    ds.update(shared)
    ds.SOPInstanceUID, ds.InstanceNumber = name
    ds.ImagePositionPatient = [decimal(v) for v in frame.position]
    ds.ImageOrientationPatient = [decimal(round(float(v), 10)) for v in (*frame.row, *frame.column)]
    ds.SliceLocation = decimal(float(frame.position @ np.cross(frame.row, frame.column)))
    ds.PixelData = stored_pixels(frame.hu, options).tobytes()
    ds["PixelData"].VR = "OW"
    save(ds, path, options.transfer_syntax)


def save(ds: "Dataset", path: Path, transfer_syntax: TransferSyntax) -> None:
    """Encode a dataset whose PixelData is native, and write it with its file meta."""
    from pydicom import dcmwrite, uid

    meta = _file_meta(ds)
    meta.TransferSyntaxUID = {
        "implicit": uid.ImplicitVRLittleEndian,
        "deflated": uid.DeflatedExplicitVRLittleEndian,
    }.get(transfer_syntax, uid.ExplicitVRLittleEndian)
    ds.file_meta = meta
    if transfer_syntax == "rle":
        ds.compress(uid.RLELossless, generate_instance_uid=False)
    elif transfer_syntax == "jpeg2000":
        ds.compress(uid.JPEG2000Lossless, generate_instance_uid=False)
    dcmwrite(path, ds, enforce_file_format=True)


def _file_meta(ds: "Dataset") -> "FileMetaDataset":
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = ds.SOPClassUID
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    meta.ImplementationClassUID = UID("1.2.826.0.1.3680043.8.498.1")
    meta.ImplementationVersionName = "RAYPIPE_PHANTOM"
    return meta
