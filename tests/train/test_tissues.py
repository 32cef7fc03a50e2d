"""What each part of a slice is, dense truth of training."""

import numpy as np
import pytest
import torch

from raypipe.phantom import Lesion, Organ, PhantomSpec, make_phantom
from raypipe.train.dataset import SampleStore
from raypipe.train.tissues import MAP_SIZE, TISSUES, UNKNOWN, moved_tissues, tissue_map, tissue_term


@pytest.fixture(scope="module")
def nodule() -> Lesion:
    phantom = make_phantom(
        PhantomSpec(
            region="chest",
            shape_zyx=(10, 96, 96),
            spacing_zyx_mm=(5.0, 4.0, 4.0),
            seed=4,
            lesions=("pulmonary_nodule",),
        )
    )
    return phantom.lesions[0]


def test_a_lesion_of_one_pixel_hides_its_organ(nodule: Lesion) -> None:
    organs = np.full((256, 256), int(Organ.LUNG_LEFT), np.uint8)
    lesions = np.zeros((256, 256), np.uint8)
    lesions[101, 33] = 1
    codes = tissue_map(organs, lesions, (nodule,), all_organs=True)
    assert codes.shape == (MAP_SIZE, MAP_SIZE)
    assert TISSUES[codes[50, 16]] == "pulmonary_nodule"
    assert (codes == Organ.LUNG_LEFT).sum() == codes.size - 1


def test_of_real_ct_only_the_inserted_lesions_are_known(nodule: Lesion) -> None:
    lesions = np.zeros((256, 256), np.uint8)
    lesions[10:20, 10:20] = 1
    codes = tissue_map(np.zeros_like(lesions), lesions, (nodule,), all_organs=False)
    assert {TISSUES[c] for c in codes[codes != UNKNOWN]} == {"pulmonary_nodule"}
    assert (codes != UNKNOWN).sum() == 25


def test_the_map_moves_with_the_slice() -> None:
    codes = np.zeros((MAP_SIZE, MAP_SIZE), np.uint8)
    codes[40:60, 80:100] = 7  # in pixels of the slice: rows 80 to 120, columns 160 to 200
    aside = torch.tensor([[[1.0, 0.0, 0.25], [0.0, 1.0, 0.0]]])  # 32 pixels to the left
    moved = moved_tissues(codes, aside, 64)
    rows, columns = np.nonzero(moved == 7)
    assert (rows.min(), rows.max() + 1) == (20, 30)
    assert (columns.min(), columns.max() + 1) == (32, 42)
    assert (moved[:, 56:] == UNKNOWN).all()  # outside the slice


def test_unknown_cells_cost_nothing_and_right_ones_little() -> None:
    codes = torch.tensor([[[3, UNKNOWN], [TISSUES.index("gallstone"), 3]]])
    right = torch.zeros(1, len(TISSUES), 2, 2)
    for y, x in ((0, 0), (1, 0), (1, 1)):
        right[0, codes[0, y, x], y, x] = 12.0
    assert float(tissue_term(right, codes, lambda n: n)) < 0.01
    right[0, 5, 0, 1] = 30.0
    assert float(tissue_term(right, codes, lambda n: n)) < 0.01
    right[0, 5, 1, 0] = 30.0  # the only cell of a lesion is half the loss
    assert float(tissue_term(right, codes, lambda n: n)) > 5.0


def test_a_store_keeps_the_tissues_of_its_slices(store: SampleStore) -> None:
    lesions_seen = 0
    for i in range(len(store)):
        sample = store[i]
        names = {TISSUES[c] for c in np.unique(sample.tissues) if c != UNKNOWN}
        for label, box in zip(sample.labels, sample.boxes_m4, strict=True):
            x, y = (int(v / 2) for v in box[:2])
            near = sample.tissues[max(y - 8, 0) : y + 9, max(x - 8, 0) : x + 9]
            lesions_seen += TISSUES.index(label) in near
            assert label in names
    assert lesions_seen > 0.8 * len(store.labels)
