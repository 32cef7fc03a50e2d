"""Read any series of a manifest.

In: a SeriesRef. Out: a SliceStack (DICOM), or a Volume (NIfTI and pictures, which carry a grid).
Does not know: what a good volume is.
"""

from pydantic import Field

from raypipe.archive.headers import quiet_pydicom
from raypipe.archive.isolation import IsolationConfig, isolated
from raypipe.archive.storage import StorageConfig, read_bytes
from raypipe.errors import Reason, SeriesError, source_changed
from raypipe.settings import Settings
from raypipe.types import Kind, SeriesRef, SliceStack, Volume


class ArchiveConfig(Settings):
    """How series are read."""

    storage: StorageConfig = Field(StorageConfig(), description="How objects are reached.")
    isolation: IsolationConfig = Field(
        IsolationConfig(), description="What cuts off a decoder that crashes, hangs or swells."
    )
    max_object_gib: float = Field(
        4.0, gt=0, description="Largest stored file or member that is read, in GiB."
    )
    max_voxels: int = Field(
        2_000_000_000,
        ge=1,
        description="Largest series that is decoded, in voxels of two bytes.",
    )


def read_series(ref: SeriesRef, config: ArchiveConfig) -> SliceStack | Volume:
    """Decode one series, in a process of its own unless the config says otherwise.

    Raises:
        SeriesError: anything that is wrong with its objects, or what it did to its decoder.
    """
    limits = config.isolation
    if limits.mode == "none":
        return decode_series(ref, config)
    seconds = limits.seconds(sum(i.byte_size for i in ref.instances))
    return isolated(
        decode_series,
        ref,
        config,
        seconds=seconds,
        memory_gib=limits.memory_limit_gib,
        preload=("raypipe.archive.dicom",),
    )


def decode_series(ref: SeriesRef, config: ArchiveConfig) -> SliceStack | Volume:
    """Decode one series here and now.

    Raises:
        SeriesError: anything that is wrong with its objects.
    """
    largest = max(i.byte_size for i in ref.instances) / 2**30
    if largest > config.max_object_gib:
        raise SeriesError(
            Reason.TOO_LARGE,
            f"an object of {largest:.1f} GiB, archive.max_object_gib is {config.max_object_gib:g}: "
            f"raise it, or store the series in smaller parts",
        )
    if ref.kind is Kind.DICOM:
        from raypipe.archive.dicom import read_dicom

        with quiet_pydicom():
            return read_dicom(ref, config.storage, max_voxels=config.max_voxels)
    content = read_bytes(ref.instances[0].uri, config.storage)
    if len(content) != ref.instances[0].byte_size:
        raise source_changed(ref.instances[0].byte_size, len(content))
    if ref.kind is Kind.NIFTI:
        from raypipe.archive.nifti import read_nifti

        return read_nifti(content, max_voxels=config.max_voxels)
    from raypipe.archive.images import read_image

    return read_image(content, max_voxels=config.max_voxels)
