"""The planes on which a phantom's slices are stored.

In: a Phantom, the tilt of the gantry. Out: one Frame a slice.
Does not know: DICOM's encoding.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.phantom.anatomy import Phantom


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One slice as it is to be stored: HU, position and directions in LPS."""

    hu: NDArray[np.int16] = field(repr=False)
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]


def make_frames(phantom: Phantom, gantry_tilt_deg: float) -> list[Frame]:
    """The slices with their planes; on sheared planes where the gantry is tilted."""
    geometry = phantom.volume.geometry
    axes = geometry.affine_zyx_to_lps[:3, :3] / np.array(geometry.spacing_zyx_mm)
    origins = geometry.to_lps_mm([(k, 0, 0) for k in range(geometry.shape_zyx[0])])
    straight = [
        Frame(hu=hu, position=origin, row=axes[:, 2], column=axes[:, 1])
        for hu, origin in zip(phantom.volume.hu, origins, strict=True)
    ]
    if gantry_tilt_deg == 0:
        return straight
    return [_tilted(phantom, frame, gantry_tilt_deg) for frame in straight]


def _tilted(phantom: Phantom, frame: Frame, tilt_deg: float) -> Frame:
    """The slice through the same middle whose plane is turned about the row direction."""
    geometry = phantom.volume.geometry
    _, ny, nx = geometry.shape_zyx
    angle = np.deg2rad(tilt_deg)
    normal = np.cross(frame.row, frame.column)
    column = np.cos(angle) * frame.column + np.sin(angle) * normal
    dy, dx = geometry.spacing_zyx_mm[1:]
    middle = frame.position + frame.column * dy * (ny - 1) / 2
    position = middle - column * dy * (ny - 1) / 2
    rows, columns = np.meshgrid(np.arange(ny) * dy, np.arange(nx) * dx, indexing="ij")
    points = position + rows[..., None] * column + columns[..., None] * frame.row
    index = np.moveaxis(geometry.to_index(points), -1, 0)
    hu = ndimage.map_coordinates(
        phantom.volume.hu.astype(np.float32), index, order=1, mode="constant", cval=-1000.0
    )
    return Frame(
        hu=np.asarray(np.rint(hu), np.int16), position=position, row=frame.row, column=column
    )


def with_noise(phantom: Phantom, seed: int, deviation_hu: float) -> Phantom:
    """The same body under another seed's noise: a cheap way to many distinct series."""
    rng = np.random.default_rng([seed, 7])
    noise = rng.standard_normal(phantom.volume.hu.shape, np.float32) * np.float32(deviation_hu)
    hu = np.asarray(np.clip(np.rint(phantom.volume.hu + noise), -1024, 3071), np.int16)
    return replace(
        phantom,
        volume=replace(phantom.volume, hu=hu),
        spec=phantom.spec.model_copy(update={"seed": seed}),
    )
