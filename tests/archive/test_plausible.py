"""raypipe/archive/plausible.py: what a grid in a patient can be, and what only a damaged one is."""

from typing import Any

import numpy as np
import pytest

from raypipe.archive.plausible import check_matrix, check_position_mm, check_spacing_mm
from raypipe.errors import Reason, SeriesError


def matrix(*columns: tuple[float, float, float], origin: float = 0.0) -> Any:
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    affine[0, 3] = origin
    return affine


TILTED = matrix((0.7, 0, 0), (0, 0.7, 0), (0, 3 * np.tan(np.radians(30)), 3))


def test_what_scanners_make_passes() -> None:
    check_spacing_mm("PixelSpacing", (0.05, 0.05))
    check_position_mm("ImagePositionPatient", (-250.0, 1e5, 0.0))
    check_matrix("matrix", TILTED)
    check_matrix("matrix", matrix((0, 0, 5), (-0.9, 0, 0), (0, -0.9, 0)))


@pytest.mark.parametrize(
    "affine",
    [
        matrix((1, 0, 0), (0, 1, 0), (0, 0, 0)),
        matrix((1, 0, 0), (1, 1e-3, 0), (0, 0, 1)),
        matrix((1, 0, 0), (0, 1, 0), (0, 0, 1e-30)),
        matrix((1e300, 0, 0), (0, 1, 0), (0, 0, 1)),
        matrix((1, 0, 0), (0, 1, 0), (0, 0, 1), origin=1e9),
        matrix((1, 0, 0), (0, 1, 0), (0, 0, 1), origin=float("nan")),
    ],
    ids=["flat", "parallel", "tiny", "huge", "far", "nan"],
)
def test_what_cannot_be_is_refused(affine: Any) -> None:
    with pytest.raises(SeriesError) as caught:
        check_matrix("the NIfTI matrix", affine)
    assert caught.value.reason is Reason.GEOMETRY_INVALID
    assert caught.value.message.startswith("the NIfTI matrix")


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-6, 1e6, float("nan"), float("inf")])
def test_spacings_that_cannot_be(value: float) -> None:
    with pytest.raises(SeriesError, match=r"from 0\.01 to 1000 is possible"):
        check_spacing_mm("PixelSpacing", (1.0, value))
