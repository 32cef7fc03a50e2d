import numpy as np
import pytest

from raypipe.train.slices_config import SliceAugmentConfig, ViewConfig
from raypipe.train.slices_views import body_box, part_box, plain_views, varied_views
from raypipe.types import HuArray

STILL = SliceAugmentConfig(
    shift=0, zoom=0, stretch=0, rotation_deg=0, gamma=0, gain=0, offset=0, noise=0
)
VIEW = ViewConfig(size_yx=(128, 256))


@pytest.fixture
def stack() -> HuArray:
    """A body from row 60 to 200 and column 40 to 220, a bright corner in it, a table below."""
    y, x = np.mgrid[:256, :256]
    hu = np.full((256, 256), -160, np.int16)
    hu[((y - 130) / 70) ** 2 + ((x - 130) / 90) ** 2 < 1] = 40
    hu[80:90, 150:160] = 200
    hu[230:232] = 100
    return np.stack([hu] * 3)


def test_the_body_is_found_without_the_table(stack: HuArray) -> None:
    assert body_box(stack[1]) == pytest.approx((60, 200, 40, 220), abs=3)
    assert body_box(np.full((256, 256), -1000, np.int16)) == (0, 256, 0, 256)


def test_the_part_is_cut_from_the_body(stack: HuArray) -> None:
    view = ViewConfig(part_yx=(0.5, 1.0, 0.0, 0.5))
    assert part_box(stack[1], view) == pytest.approx((130, 200, 40, 130), abs=3)
    whole = ViewConfig(crop_to_body=False)
    assert part_box(stack[1], whole) == (0, 256, 0, 256)
    with pytest.raises(ValueError, match="must rise"):
        ViewConfig(part_yx=(0.5, 0.5, 0, 1))


def test_the_whole_slice_at_its_own_size_stays_as_it_is(stack: HuArray) -> None:
    view = ViewConfig(crop_to_body=False)
    np.testing.assert_allclose(plain_views(stack[None], view)[0], stack, atol=0.01)


def test_views_have_the_asked_size_and_keep_hu(stack: HuArray) -> None:
    seen = plain_views(stack[None], VIEW)
    assert seen.shape == (1, 3, 128, 256)
    assert seen[0, 1, 64, 128] == pytest.approx(40)
    assert seen[0, 1].max() > 150


def test_no_variation_is_the_plain_view(stack: HuArray) -> None:
    boxes = [part_box(stack[1], VIEW)]
    same = varied_views(stack[None], boxes, VIEW, STILL, [1])
    np.testing.assert_allclose(same, plain_views(stack[None], VIEW), atol=1e-2)


def test_a_seed_gives_one_view_and_two_seeds_two(stack: HuArray) -> None:
    boxes = [part_box(stack[1], VIEW)] * 3
    stacks = np.stack([stack[1:2]] * 3)
    seen = varied_views(stacks, boxes, VIEW, SliceAugmentConfig(), [5, 5, 6])
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] - seen[2]).abs().mean() > 5


def test_slices_are_mirrored_only_where_that_is_allowed(stack: HuArray) -> None:
    boxes, plain = [part_box(stack[1], VIEW)], plain_views(stack[None], VIEW)
    flip = STILL.model_copy(update={"flip": True})
    mirrored = [
        bool(
            np.allclose(
                varied_views(stack[None], boxes, VIEW, flip, [seed])[0], plain[0].flip(2), atol=0.1
            )
        )
        for seed in range(12)
    ]
    assert 2 < sum(mirrored) < 10


def test_bone_and_air_stay_beyond_the_window(stack: HuArray) -> None:
    stack = stack.copy()
    stack[:, 80:90, 150:160], stack[:, :30, :30] = 900, -1000
    whole = ViewConfig(crop_to_body=False)
    shades = STILL.model_copy(update={"gamma": 0.4, "gain": 0.2, "offset": 0.1})
    for seed in range(5):
        seen = varied_views(stack[None], [(0, 256, 0, 256)], whole, shades, [seed])[0, 1]
        assert seen[85, 155] > 750 and seen[10, 10] < -850
