"""Write a phantom as NIfTI, or one of its slices as a picture.

In: a Phantom, a path. Out: a file.
Does not know: DICOM.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.phantom.anatomy import Phantom


def write_nifti(
    phantom: Phantom, path: Path | str, *, slope: float = 1.0, intercept: float = 0.0
) -> Path:
    """Write .nii or .nii.gz as int16 with sform and qform; LPS becomes RAS, zyx becomes xyz.

    slope, intercept: HU = slope * stored + intercept, kept in the header.
    """
    import nibabel as untyped

    nibabel: Any = untyped

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = phantom.volume.geometry.affine_zyx_to_lps
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps[:, [2, 1, 0, 3]]
    hu = np.ascontiguousarray(phantom.volume.hu.transpose(2, 1, 0))
    if (slope, intercept) == (1.0, 0.0):
        stored = hu
    else:
        stored = np.asarray(np.rint((hu - np.float64(intercept)) / slope), np.int16)
    image = nibabel.Nifti1Image(stored, affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"synthetic phantom"
    image.header.set_slope_inter(slope, intercept)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    if (slope, intercept) != (1.0, 0.0):
        _save_raw(image, stored, path)
    else:
        nibabel.save(image, path)
    return path


def _save_raw(image: Any, stored: NDArray[np.int16], path: Path) -> None:
    """Write header and stored values as they are; nibabel would scale them anew."""
    import gzip

    header = image.header.copy()
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    content = header.binaryblock + b"\0" * 4 + stored.tobytes(order="F")
    if path.name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
    path.write_bytes(content)


def write_image(
    phantom: Phantom,
    path: Path | str,
    *,
    z: int | None = None,
    window_hu: tuple[float, float] = (-160.0, 240.0),
) -> Path:
    """Write slice z (None: the middle) as an 8-bit grey picture; the suffix names the format."""
    from PIL import Image

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    index = phantom.volume.hu.shape[0] // 2 if z is None else z
    low, high = window_hu
    grey = np.clip((phantom.volume.hu[index].astype(np.float32) - low) / (high - low), 0, 1)
    Image.fromarray(np.asarray(np.rint(grey * 255), np.uint8)).save(path)
    return path
