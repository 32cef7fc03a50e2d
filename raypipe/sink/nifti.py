"""A volume, or a map over one, as a NIfTI-1 file.

In: an array (z, y, x) and its grid in LPS.
Out: the bytes of a .nii.gz or the parts of a .nii, axes (x, y, z), RAS in mm.
Does not know: where the file goes. No name and no text of a header is written.
"""

import gzip
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.geometry import Geometry

_LEVEL = 1
"""Of gzip: fast, and nearly as small as the highest."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def nifti_bytes(values: NDArray[Any], geometry: Geometry) -> bytes:
    """The .nii.gz file of an array on a grid; int16 and float32 are stored as they are.

    Args:
        values: (z, y, x), C order.
        geometry: its grid.

    Raises:
        ValueError: the array is not on the grid.
    """
    return gzip.compress(b"".join(nifti_parts(values, geometry)), compresslevel=_LEVEL, mtime=0)


def nifti_parts(values: NDArray[Any], geometry: Geometry) -> tuple[bytes, memoryview]:
    """Header and voxels of the .nii file, to be written one after the other without a copy.

    Args:
        values: (z, y, x), C order.
        geometry: its grid.

    Raises:
        ValueError: the array is not on the grid.
    """
    import nibabel as untyped

    nibabel: Any = untyped
    if values.shape != geometry.shape_zyx:
        raise ValueError(f"nifti: values are {geometry.shape_zyx}, not {values.shape}")
    affine = _LPS_TO_RAS @ geometry.affine_zyx_to_lps[:, [2, 1, 0, 3]]
    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape[::-1])
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1, strip_shears=True)
    header["pixdim"][1:4] = geometry.spacing_zyx_mm[::-1]
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    # C order of (z, y, x) is Fortran order of (x, y, z), so the bytes are used as they lie.
    return header.binaryblock + b"\0" * 4, np.ascontiguousarray(values).data
