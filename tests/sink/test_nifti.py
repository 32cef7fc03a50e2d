"""Volumes as NIfTI: the same voxels at the same places, also on oblique grids."""

import gzip

import numpy as np
import pytest

from raypipe.archive.nifti import read_nifti
from raypipe.geometry import Geometry
from raypipe.sink.nifti import nifti_bytes

OBLIQUE = np.array(
    [
        [0.3, 0.1, -0.69, -120.0],
        [1.2, -0.7, 0.05, 33.5],
        [4.8, 0.2, 0.1, -900.25],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


@pytest.mark.parametrize("affine", [np.diag([5.0, 0.7, 0.6, 1.0])[:, [2, 1, 0, 3]], OBLIQUE])
def test_voxels_and_places_survive(affine: np.ndarray) -> None:
    hu = np.random.default_rng(0).integers(-1024, 3000, (3, 4, 5), dtype=np.int16)
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=affine)
    content = nifti_bytes(hu, geometry)
    again = read_nifti(content, max_voxels=1000)
    assert np.array_equal(again.hu, hu)
    assert geometry.same_grid(again.geometry, tolerance_mm=1e-3)
    assert content == nifti_bytes(hu, geometry)


def test_maps_keep_their_type() -> None:
    import nibabel

    values = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    geometry = Geometry(shape_zyx=values.shape, affine_zyx_to_lps=np.eye(4))
    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(nifti_bytes(values, geometry)))
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj), values.transpose(2, 1, 0))


def test_an_array_that_is_not_on_the_grid_is_refused() -> None:
    geometry = Geometry(shape_zyx=(1, 2, 3), affine_zyx_to_lps=np.eye(4))
    with pytest.raises(ValueError, match="values are"):
        nifti_bytes(np.zeros((3, 2, 1), np.int16), geometry)
