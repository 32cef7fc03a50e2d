"""NIfTI files: what the index needs of their header, and their pixels as a Volume.

In: the first bytes, or the whole content, of a .nii or .nii.gz file. Out: a Header; a Volume.
Does not know: other files. Segmentations are read like everything else; volume.checks tells them.

Which matrix counts: the sform where its code is above 0, else the qform where its code is above 0,
else the voxel sizes alone (flag NO_GEOMETRY). Where both are set and differ by more than a tenth of
a voxel or 0.1 mm anywhere in the grid, the sform still counts and SFORM_QFORM_DIFFER is set; this
is nibabel's and ITK's choice for codes that scanners write. RAS+ becomes LPS by turning the signs
of the first two rows.
"""

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.headers import Header
from raypipe.archive.plausible import check_matrix
from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Geometry
from raypipe.types import Flag, HuArray, Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SPATIAL_UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_DIFFER_MM = 0.1
_HEADER_BYTES = 1024
_LONGEST_HEADER = 64 << 20
"""Header and extensions together; voxels begin within it."""
_LONGEST_EDGE = 1 << 20


def nifti_header(first: bytes, order: str, size: int, *, compressed: bool) -> Header:
    """The Header of a NIfTI-1 (size 348) or NIfTI-2 (size 540) file from its first bytes."""
    if size == 348:
        dim = struct.unpack(f"{order}8h", first[40:56])
        zooms = struct.unpack(f"{order}8f", first[76:108])
        datatype = struct.unpack(f"{order}h", first[70:72])[0]
        units = first[123]
    else:
        datatype = struct.unpack(f"{order}h", first[12:14])[0]
        dim = struct.unpack(f"{order}8q", first[16:80])
        zooms = struct.unpack(f"{order}8d", first[104:168])
        units = struct.unpack(f"{order}i", first[500:504])[0]
    facts: dict[str, Any] = {"transfer_syntax": "nifti.gz" if compressed else "nifti"}
    fault = _dimension_fault(dim) or _type_fault(datatype)
    if fault:
        return Header(
            kind="nifti", reason=fault.reason.value, message=fault.message, alone=True, **facts
        )
    unit = _SPATIAL_UNITS_MM.get(units & 7, 1.0)
    x, y, z = (abs(float(v)) * unit for v in zooms[1:4])
    nz = dim[3] if dim[0] >= 3 else 1
    z, y, x = (v if math.isfinite(v) and v > 0 else 1.0 for v in (z, y, x))
    return Header(kind="nifti", shape_zyx=(nz, dim[2], dim[1]), spacing_zyx_mm=(z, y, x), **facts)


def _dimension_fault(dim: tuple[int, ...]) -> SeriesError | None:
    rank = dim[0]
    if not 2 <= rank <= 7 or any(n < 1 for n in dim[1 : rank + 1]):
        return SeriesError(Reason.HEADER_UNREADABLE, "NIfTI dim is not valid")
    if max(dim[1 : rank + 1]) > _LONGEST_EDGE:
        return SeriesError(Reason.TOO_LARGE, f"NIfTI dim holds more than {_LONGEST_EDGE} voxels")
    volumes = math.prod(dim[4 : rank + 1]) if rank > 3 else 1
    if volumes > 1:
        return SeriesError(Reason.SHAPE_MISMATCH, f"one file holds {volumes} volumes")
    return None


def _type_fault(datatype: int) -> SeriesError | None:
    if datatype in (128, 2304):
        return SeriesError(Reason.UNSUPPORTED_COLOR, "NIfTI voxels are colours")
    if datatype in (32, 1792, 2048):
        return SeriesError(Reason.NOT_CT, "NIfTI voxels are complex numbers")
    return None


def read_nifti(content: bytes, *, max_voxels: int) -> Volume:
    """Decode a NIfTI file.

    Args:
        content: the whole file, gzip-compressed or not.
        max_voxels: refuse larger volumes before their pixels are expanded.

    Raises:
        SeriesError: HEADER_UNREADABLE, SHAPE_MISMATCH, UNSUPPORTED_COLOR, NOT_CT, TOO_LARGE,
            GEOMETRY_INVALID, or PIXELS_UNREADABLE.
    """
    import nibabel
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    zipped = content[:2] == b"\x1f\x8b"
    first = _gunzip(content, _HEADER_BYTES) if zipped else content
    try:
        kind = nibabel.Nifti2Image if _is_nifti2(first) else nibabel.Nifti1Image
        header_class: Any = kind.header_class
        bare = io.BytesIO(first[: header_class.sizeof_hdr])  # extensions say nothing of voxels
        header = header_class.from_fileobj(bare, check=False)
        dim = tuple(int(n) for n in header["dim"])
        datatype = int(header["datatype"])
    except (HeaderDataError, WrapStructError, ValueError, struct.error) as error:
        raise SeriesError(Reason.HEADER_UNREADABLE, "the NIfTI header is damaged") from error
    fault = _dimension_fault(dim) or _type_fault(datatype)
    if fault:
        raise fault
    shape_xyz = tuple(dim[i] if i <= dim[0] else 1 for i in (1, 2, 3))
    voxels = math.prod(shape_xyz)  # of Python's integers, which do not wrap around
    if voxels > max_voxels:
        raise SeriesError(Reason.TOO_LARGE, f"{voxels} voxels, limit {max_voxels}")
    dtype, offset = _layout(header)
    if zipped:
        content = _gunzip(content, offset + voxels * dtype.itemsize)
    stored = _stored_voxels(content, dtype, offset, shape_xyz)
    affine, flags = _affine(header)
    hu, clipped = _to_hu(stored, float(header["scl_slope"]), float(header["scl_inter"]))
    if clipped:
        flags.append(Flag.HU_CLIPPED)
    if hu.shape[0] == 1:
        flags.append(Flag.SINGLE_SLICE)
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine)
    return Volume(hu=hu, geometry=geometry, flags=tuple(flags))


def _is_nifti2(content: bytes) -> bool:
    return content[4:8] == b"n+2\0"


def _gunzip(content: bytes, needed: int) -> bytes:
    """Expand gzip data as far as is needed: what lies behind may be without end."""
    parts, rest, total = [], content, 0
    try:
        while rest and total < needed:  # gzip files may be several streams one after another
            expander = zlib.decompressobj(wbits=31)
            limit = needed - total + 1  # one more, so that a checksum at the end is looked at
            part = expander.decompress(rest, limit)
            if not expander.eof and len(part) < limit:
                raise SeriesError(Reason.PIXELS_UNREADABLE, "the gzip data ends early")
            parts.append(part)
            total += len(part)
            rest = expander.unused_data.lstrip(b"\0")
    except zlib.error as error:
        raise SeriesError(Reason.PIXELS_UNREADABLE, "the gzip data is damaged") from error
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _layout(header: Any) -> tuple[np.dtype[Any], int]:
    """Type of a voxel, and where the first one begins."""
    try:
        dtype = np.dtype(header.get_data_dtype())
        offset = int(header.get_data_offset())
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SeriesError(Reason.PIXELS_UNREADABLE, "NIfTI datatype or vox_offset") from error
    if dtype.kind not in "iuf":
        raise SeriesError(Reason.PIXELS_UNREADABLE, "the NIfTI datatype is no number")
    if not 0 <= offset <= _LONGEST_HEADER:
        raise SeriesError(
            Reason.HEADER_UNREADABLE, f"NIfTI vox_offset is from 0 to {_LONGEST_HEADER}"
        )
    return dtype, offset


def _stored_voxels(
    content: bytes, dtype: np.dtype[Any], offset: int, shape_xyz: tuple[int, ...]
) -> NDArray[Any]:
    """The voxels as stored, (z, y, x), without a copy."""
    count = math.prod(shape_xyz)
    if len(content) < offset + count * dtype.itemsize:
        have, need = len(content) - offset, count * dtype.itemsize
        raise SeriesError(Reason.PIXELS_UNREADABLE, f"{have} bytes of voxels, {need} needed")
    flat = np.frombuffer(content, dtype=dtype, count=count, offset=offset)
    return flat.reshape(shape_xyz[::-1])  # Fortran order of (x, y, z) is C order of (z, y, x)


def _affine(header: Any) -> tuple[NDArray[np.float64], list[Flag]]:
    """Index (z, y, x) -> LPS mm, and what was noticed."""
    flags: list[Flag] = []
    sform = header.get_sform(coded=True)[0]
    if sform is not None and not np.all(np.isfinite(sform)):
        raise SeriesError(Reason.GEOMETRY_INVALID, "the NIfTI sform is not finite")
    unit = _SPATIAL_UNITS_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    qform = _qform(header, unit)
    if sform is not None and _is_flat(sform, unit):
        sform = None  # a code without a matrix
    if sform is not None and qform is not None and _differ(sform, qform, header):
        flags.append(Flag.SFORM_QFORM_DIFFER)
    ras = sform if sform is not None else qform
    if ras is None:
        flags.append(Flag.NO_GEOMETRY)
        zooms = [abs(float(v)) or 1.0 for v in header["pixdim"][1:4]]
        ras = np.diag([-zooms[0], -zooms[1], zooms[2], 1.0])
    lps = _RAS_TO_LPS @ np.asarray(ras, dtype=np.float64)
    lps[:3] *= unit
    check_matrix("the NIfTI matrix", lps)
    return lps[:, [2, 1, 0, 3]], flags


def _is_flat(matrix: NDArray[np.float64], unit_mm: float) -> bool:
    """Whether a voxel has no volume; one of a file in metres is small, and no less real."""
    return abs(float(np.linalg.det(matrix[:3, :3] * unit_mm))) < 1e-9


def _qform(header: Any, unit_mm: float) -> NDArray[np.float64] | None:
    """The qform where it is set and valid."""
    from nibabel.spatialimages import HeaderDataError

    try:
        qform: NDArray[np.float64] | None = header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError, ArithmeticError):  # such as a quaternion longer than 1
        return None
    if qform is None or not np.all(np.isfinite(qform)) or _is_flat(qform, unit_mm):
        return None
    return qform


def _differ(sform: NDArray[np.float64], qform: NDArray[np.float64], header: Any) -> bool:
    last = np.maximum(np.asarray(header["dim"][1:4], dtype=np.float64) - 1.0, 0.0)
    corners = np.array(
        [[i, j, k, 1.0] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]
    )
    gap = np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max()
    voxel = np.linalg.norm(sform[:3, :3], axis=0).min()
    return bool(gap > max(_DIFFER_MM, 0.1 * voxel))


def _to_hu(stored: NDArray[Any], slope: float, intercept: float) -> tuple[HuArray, bool]:
    """Stored voxels as int16 HU, and whether any had to be clipped."""
    scaled = np.isfinite(slope) and slope != 0.0  # NIfTI: a slope of 0 means no scaling
    slope, intercept = (
        (slope, intercept if np.isfinite(intercept) else 0.0) if scaled else (1.0, 0.0)
    )
    plain = slope == 1.0 and intercept == 0.0
    integral = stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2
    unsigned_16 = stored.dtype.kind == "u" and stored.dtype.itemsize == 2
    if plain and integral and (not unsigned_16 or stored.max() <= 32767):
        return np.ascontiguousarray(stored.astype(np.int16)), False
    hu = np.empty(stored.shape, dtype=np.int16)
    clipped = False
    for z in range(stored.shape[0]):
        values = stored[z].astype(np.float64)
        if not np.all(np.isfinite(values)):
            values = np.nan_to_num(values, nan=-1024.0, posinf=32767.0, neginf=-32768.0)
            clipped = True
        values = np.rint(values * slope + intercept)
        if values.min() < -32768 or values.max() > 32767:
            clipped = True
            np.clip(values, -32768, 32767, out=values)
        hu[z] = values
    return hu, clipped
