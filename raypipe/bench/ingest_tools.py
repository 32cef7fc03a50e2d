"""The tools that ingest is measured against, an S3 server and a folder of many small files.

In: paths. Out: what each tool makes of them. Does not know: clocks.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.archive.storage import StorageConfig, filesystem_for
from raypipe.errors import ConfigError
from raypipe.phantom import DicomOptions, PhantomSpec, make_phantom, write_dicom
from raypipe.sink.nifti import nifti_parts
from raypipe.types import SeriesRef, Volume
from raypipe.volume.assemble import VolumeConfig, to_volume

_LIMIT_S = 600
_REPAIR = VolumeConfig(missing_slices="interpolate", duplicate_slices="keep_first")


def ours(ref: SeriesRef, config: ArchiveConfig) -> Volume:
    """Read a series; gaps are filled, as the peers do without a word."""
    return to_volume(read_series(ref, config), _REPAIR)


def to_file(volume: Volume, path: Path) -> None:
    """Write an uncompressed NIfTI file."""
    with path.open("wb") as file:
        file.writelines(nifti_parts(volume.hu, volume.geometry))


def by_dcm2niix(source: Path, out: Path) -> None:
    """Convert a folder to uncompressed NIfTI."""
    binary = Path(sys.executable).parent / "dcm2niix"
    command = [str(binary), "-b", "n", "-z", "n", "-w", "1", "-f", "dcm2niix", "-o", str(out)]
    subprocess.run([*command, str(source)], check=True, capture_output=True, timeout=_LIMIT_S)


def by_simple_itk(paths: Sequence[Path]) -> None:
    """Read files into memory."""
    import SimpleITK

    sitk: Any = SimpleITK
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    reader.Execute()


def by_dicom2nifti(source: Path, path: Path) -> None:
    """Convert a folder to uncompressed NIfTI."""
    import dicom2nifti

    dicom2nifti.dicom_series_to_nifti(str(source), str(path), reorient_nifti=False)


def same_voxels(volume: Volume, out: Path) -> bool | None:
    """Whether dcm2niix's file holds our voxels; None where one of us changed the grid.

    It turns rows and keeps the padding value.
    """
    import nibabel

    path = min(out.glob("dcm2niix*.nii"), key=lambda p: len(p.name))
    image: Any = nibabel.load(path)
    if image.shape[::-1] != volume.hu.shape:  # series of several phases become four-dimensional
        return None
    theirs: NDArray[np.float64] = np.asarray(image.get_fdata()).transpose(2, 1, 0)[:, ::-1]
    lowest = int(volume.hu.min())
    return bool(
        any(
            np.abs(np.maximum(turned, lowest) - volume.hu).max() <= 1
            for turned in (theirs, theirs[::-1])
        )
    )


def copied(ref: SeriesRef, prefix: str, storage: StorageConfig) -> SeriesRef:
    """A local series copied to S3."""
    filesystem, path = filesystem_for(prefix, storage)
    instances = []
    for instance in ref.instances:
        source = Path(instance.uri)
        filesystem.pipe_file(f"{path}/{source.name}", source.read_bytes())
        instances.append(replace(instance, uri=f"{prefix}/{source.name}"))
    return replace(ref, instances=tuple(instances))


@contextmanager
def s3_server() -> Iterator[StorageConfig]:
    """An S3 server of our own in a process of its own (moto: an emulator, data in memory)."""
    keys = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}
    before = {name: os.environ.get(name) for name in keys}
    os.environ.update(keys)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            server = subprocess.Popen(
                [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", "0"],
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        try:
            storage = StorageConfig(s3_endpoint=_address(log))
            filesystem_for("s3://bench", storage)[0].mkdir("bench")
            yield storage
        finally:
            server.kill()
            server.wait()
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name)
                else:
                    os.environ[name] = value


def _address(log: Path) -> str:
    """The address that a server's log tells, once it does."""
    for _ in range(600):
        found = re.search(rb"http://127\.0\.0\.1:\d+", log.read_bytes())
        if found:
            return found[0].decode()
        time.sleep(0.1)
    raise ConfigError("bench ingest: the S3 server did not start")


def read_header(path: Path) -> Any:
    """The header of one file, as a plain loop reads it."""
    import pydicom

    return pydicom.dcmread(path, stop_before_pixels=True)


def small_files(folder: Path, files: int) -> list[Path]:
    """Instances of 16 x 16 pixels, written by changing the UIDs of one in place."""
    import pydicom

    phantom = make_phantom(PhantomSpec(shape_zyx=(1, 16, 16), spacing_zyx_mm=(5.0, 20.0, 20.0)))
    with tempfile.TemporaryDirectory() as work:
        write_dicom(phantom, Path(work), DicomOptions())
        (path,) = (p for p in Path(work).rglob("*") if p.is_file())
        header = pydicom.dcmread(path)
        written = []
        for number in range(files):
            series, slice_number = divmod(number, 200)
            header.SeriesInstanceUID = f"1.2.826.0.1.3680043.8.498.{series + 1}"
            header.SOPInstanceUID = f"{header.SeriesInstanceUID}.{slice_number + 1}"
            header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
            header.ImagePositionPatient[2] = slice_number * 5.0
            target = folder / f"{series:06d}" / f"{slice_number:03d}"
            target.parent.mkdir(parents=True, exist_ok=True)
            header.save_as(target)
            written.append(target)
    return written
