"""Read any series of a manifest.

In: a SeriesRef. Out: a SliceStack (DICOM), or a Volume (NIfTI and pictures, which carry a grid).
Does not know: what a good volume is.
"""

from pydantic import Field

from raypipe.archive.headers import quiet_pydicom
from raypipe.archive.storage import StorageConfig, read_bytes
from raypipe.settings import Settings
from raypipe.types import Kind, SeriesRef, SliceStack, Volume


class ArchiveConfig(Settings):
    """How series are read."""

    storage: StorageConfig = Field(StorageConfig(), description="How objects are reached.")
    max_voxels: int = Field(
        2_000_000_000,
        ge=1,
        description="Largest series that is decoded, in voxels of two bytes.",
    )


def read_series(ref: SeriesRef, config: ArchiveConfig) -> SliceStack | Volume:
    """Decode one series.

    Raises:
        SeriesError: anything that is wrong with its objects.
    """
    if ref.kind is Kind.DICOM:
        from raypipe.archive.dicom import read_dicom

        with quiet_pydicom():
            return read_dicom(ref, config.storage, max_voxels=config.max_voxels)
    content = read_bytes(ref.instances[0].uri, config.storage)
    if ref.kind is Kind.NIFTI:
        from raypipe.archive.nifti import read_nifti

        return read_nifti(content, max_voxels=config.max_voxels)
    from raypipe.archive.images import read_image

    return read_image(content, max_voxels=config.max_voxels)
