"""Write the scout view that comes with a CT series.

In: a Phantom, a folder. Out: one file of ImageType LOCALIZER.
Does not know: how the archive reader works.
"""

from pathlib import Path

import numpy as np

from raypipe.phantom.anatomy import Phantom
from raypipe.phantom.dicom_writer import (
    DicomOptions,
    WrittenSeries,
    base_dataset,
    decimal,
    make_uid,
    save,
    stored_pixels,
)


def write_localizer(
    phantom: Phantom, folder: Path | str, options: DicomOptions | None = None
) -> WrittenSeries:
    """Write the scout view (a projection from the front) as a series of its own."""
    from pydicom.dataset import Dataset

    options = options or DicomOptions(series_number=99)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    geometry = phantom.volume.geometry
    path_mm = np.clip(phantom.volume.hu.astype(np.float32) + 1000, 0, 2500).mean(axis=1)[::-1]
    view = np.asarray(np.clip(path_mm * 1.4 - 700, -1024, 3071), np.int16)
    ds = Dataset()
    ds.update(base_dataset(phantom, options))
    ds.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    ds.SeriesDescription = "Synthetic scout"
    ds.Rows, ds.Columns = view.shape
    dz, _, dx = geometry.spacing_zyx_mm
    ds.PixelSpacing = [decimal(dz), decimal(dx)]
    ds.SOPInstanceUID = make_uid(phantom, options, "localizer")
    ds.InstanceNumber = 1
    corner = geometry.to_lps_mm((geometry.shape_zyx[0] - 1, geometry.shape_zyx[1] / 2, 0))
    ds.ImagePositionPatient = [decimal(v) for v in corner]
    ds.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    ds.PixelData = stored_pixels(view, options).tobytes()
    ds["PixelData"].VR = "OW"
    path = folder / f"SCOUT{options.extension}"
    save(ds, path, options.transfer_syntax)
    return WrittenSeries(
        paths=(path,),
        study_uid=str(ds.StudyInstanceUID),
        series_uid=str(ds.SeriesInstanceUID),
        instance_uids=(str(ds.SOPInstanceUID),),
    )
