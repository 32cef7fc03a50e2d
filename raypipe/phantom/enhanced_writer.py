"""Write a phantom as one multi-frame Enhanced CT object.

In: a Phantom, a folder, DicomOptions. Out: one file.
Does not know: how the archive reader works.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from raypipe.phantom.anatomy import Phantom
from raypipe.phantom.dicom_writer import (
    DicomOptions,
    WrittenSeries,
    base_dataset,
    make_uid,
    save,
    stored_pixels,
)
from raypipe.phantom.frames import Frame, make_frames

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ENHANCED_CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2.1"


def write_enhanced(
    phantom: Phantom, folder: Path | str, options: DicomOptions | None = None
) -> WrittenSeries:
    """Write every slice as a frame of one object; options about single slices do not apply."""
    options = options or DicomOptions()
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frames = make_frames(phantom, options.gantry_tilt_deg)
    ds = base_dataset(phantom, options)
    ds.SOPClassUID = ENHANCED_CT_IMAGE_STORAGE
    ds.SOPInstanceUID = make_uid(phantom, options, "enhanced")
    ds.InstanceNumber = 1
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.NumberOfFrames = len(frames)
    ds.SharedFunctionalGroupsSequence = [_shared_groups(ds, frames[0])]
    ds.PerFrameFunctionalGroupsSequence = [
        _frame_groups(frame, number) for number, frame in enumerate(frames, start=1)
    ]
    for keyword in (
        "PixelSpacing",
        "SliceThickness",
        "RescaleIntercept",
        "RescaleSlope",
        "RescaleType",
        "WindowCenter",
        "WindowWidth",
        "KVP",
        "GantryDetectorTilt",
    ):
        if keyword in ds:
            del ds[keyword]
    ds.PixelData = np.stack([stored_pixels(f.hu, options) for f in frames]).tobytes()
    ds["PixelData"].VR = "OW"
    path = folder / f"ENHANCED{options.extension}"
    save(ds, path, options.transfer_syntax)
    return WrittenSeries(
        paths=(path,),
        study_uid=str(ds.StudyInstanceUID),
        series_uid=str(ds.SeriesInstanceUID),
        instance_uids=(str(ds.SOPInstanceUID),),
    )


def _shared_groups(ds: "Dataset", frame: Frame) -> "Dataset":
    from pydicom.dataset import Dataset

    groups, measures, orientation, values, kind = (Dataset() for _ in range(5))
    measures.PixelSpacing = ds.PixelSpacing
    measures.SliceThickness = ds.SliceThickness
    orientation.ImageOrientationPatient = [round(float(v), 10) for v in (*frame.row, *frame.column)]
    values.RescaleIntercept = ds.RescaleIntercept
    values.RescaleSlope = ds.RescaleSlope
    values.RescaleType = "HU"
    kind.FrameType = ds.ImageType
    kind.PixelPresentation = "MONOCHROME"
    kind.VolumetricProperties = "VOLUME"
    kind.VolumeBasedCalculationTechnique = "NONE"
    groups.PixelMeasuresSequence = [measures]
    groups.PlaneOrientationSequence = [orientation]
    groups.PixelValueTransformationSequence = [values]
    groups.CTImageFrameTypeSequence = [kind]
    return groups


def _frame_groups(frame: Frame, number: int) -> "Dataset":
    from pydicom.dataset import Dataset

    groups, position, content = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [round(float(v), 8) for v in frame.position]
    content.StackID = "1"
    content.InStackPositionNumber = number
    content.DimensionIndexValues = [1, number]
    groups.PlanePositionSequence = [position]
    groups.FrameContentSequence = [content]
    return groups
