"""A chest with a bright block at a known place, in a file with unusual axes.

In: pictures of the page. Out: a phantom, its NIfTI, the finding that the block is, and whether a
picture shows the block in its box.
Does not know: the browser, the service.
"""

import dataclasses
import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from raypipe.phantom import Phantom, PhantomSpec, make_phantom, write_nifti

BLOCK_HU = 2500
CHOSEN = (0x4D, 0xD7, 0xFF)
"""Colour of the box of the chosen finding."""


def phantom_with_block() -> Phantom:
    """A chest with a cube of 30 mm in the front of its left lung."""
    phantom = make_phantom(
        PhantomSpec(
            region="chest",
            shape_zyx=(28, 128, 128),
            spacing_zyx_mm=(6.0, 3.0, 3.0),
            lesions=(),
            seed=3,
        )
    )
    hu, geometry = phantom.volume.hu.copy(), phantom.volume.geometry
    lps = geometry.to_lps_mm(np.argwhere(hu < -700))
    lung = lps[(lps[:, 0] > 50) & (lps[:, 0] < 110) & (lps[:, 1] < 0) & (lps[:, 1] > -70)]
    centre = geometry.to_lps_mm(np.rint(geometry.to_index(np.median(lung, axis=0))))
    places = geometry.to_lps_mm(np.moveaxis(np.indices(hu.shape), 0, -1))
    hu[(np.abs(places - centre) <= 15.0).all(axis=-1)] = BLOCK_HU
    return dataclasses.replace(phantom, volume=dataclasses.replace(phantom.volume, hu=hu))


def odd_axes(phantom: Phantom, path: Path) -> Path:
    """Written with other axes: the first runs to the back, then to the feet, then to the right."""
    plain = nibabel.load(write_nifti(phantom, path.with_name("plain.nii.gz")))
    turn = ornt_transform(io_orientation(plain.affine), axcodes2ornt("PIR"))
    nibabel.save(plain.as_reoriented(turn), path)
    return path


def block_finding(volume: bytes, level: str) -> dict[str, Any]:
    """A finding around the block, on the grid of the volume that the service sends."""
    xyz = nibabel.Nifti1Image.from_bytes(gzip.decompress(volume)).get_fdata()
    places = np.argwhere(xyz.transpose(2, 1, 0) >= BLOCK_HU - 1)
    lower, upper = places.min(axis=0), places.max(axis=0) + 1
    return {
        "finding_id": "F1",
        "label": "block",
        "box_lower_zyx": lower.tolist(),
        "box_upper_zyx": upper.tolist(),
        "size_zyx_mm": [30.0, 30.0, 30.0],
        "diameter_mm": 30.0,
        "mean_hu": None,
        "side": "left",
        "level": level,
        "score": 0.9,
        "probability": None,
        "key_slice": int(places[:, 0].mean()),
        "attributes": [],
    }


def chosen_box(shot: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom of the chosen box in pixels; its label is narrower than it."""
    painted = np.abs(shot - np.array(CHOSEN)).max(axis=2) < 40
    if not painted.any():
        return None
    columns, rows = painted.sum(axis=0), painted.sum(axis=1)
    x = np.flatnonzero(columns > 0.7 * columns.max())
    y = np.flatnonzero(rows > 0.7 * rows.max())
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def assert_block_in_box(shot: np.ndarray) -> None:
    """White inside the chosen box, dark around it."""
    left, top, right, bottom = chosen_box(shot)
    grey = shot.mean(axis=2)
    # Half of the outermost voxel is interpolated with what lies beside it; a voxel is a tenth.
    across, down = (right - left) // 10 + 3, (bottom - top) // 10 + 3
    inside = grey[top + down : bottom - down, left + across : right - across]
    assert inside.size > 400
    assert (inside > 235).mean() > 0.97
    beside = [grey[top:bottom, left - 14 : left - 6], grey[top:bottom, right + 7 : right + 15]]
    assert np.median(np.concatenate(beside, axis=1)) < 120
