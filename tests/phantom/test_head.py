import numpy as np

from raypipe.phantom import Organ, PhantomSpec, make_phantom
from raypipe.phantom.canvas import Region
from raypipe.phantom.head import _part


def region(start: int, stop: int) -> Region:
    part = (slice(start, stop), slice(0, 2), slice(0, 1))
    return Region(fine=part, coarse=part)


def test_a_distance_lies_on_another_region_where_it_was() -> None:
    distance = np.arange(8, dtype=np.float32).reshape(4, 2, 1) - 4.0
    moved = _part(distance, region(3, 7), region(1, 5))[..., 0].tolist()
    assert moved == [[9.0, 9.0], [9.0, 9.0], [-4.0, -3.0], [-2.0, -1.0]]
    assert _part(distance, region(3, 7), region(5, 9))[..., 0].tolist() == [
        [0.0, 1.0],
        [2.0, 3.0],
        [9.0, 9.0],
        [9.0, 9.0],
    ]
    assert (_part(distance, region(3, 7), region(8, 10)) == 9.0).all()


def test_a_head_whose_brain_stem_leaves_the_brains_region_is_made() -> None:
    phantom = make_phantom(
        PhantomSpec(
            region="head", shape_zyx=(40, 256, 256), spacing_zyx_mm=(2.5, 0.803073, 0.803073),
            center_z_mm=-44.22741, contrast="portal", lesions=0, seed=970_137,
        )
    )  # fmt: skip
    assert (phantom.organs == Organ.BRAIN).any()
