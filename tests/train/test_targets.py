import pytest
import torch

from raypipe.train.targets import assign, make_grid

GRID = make_grid((4, 8, 16, 32))


def test_grid_covers_the_slice() -> None:
    assert len(GRID.centers_n2) == 64**2 + 32**2 + 16**2 + 8**2
    assert GRID.centers_n2.min() == 2.0 and GRID.centers_n2.max() == 254.0


@pytest.mark.parametrize("edge", [1.0, 3.0, 8.0, 20.0, 60.0, 150.0, 250.0])
def test_every_lesion_gets_a_cell_wherever_it_lies(edge: float) -> None:
    torch.manual_seed(0)
    for center in (torch.rand(50, 2) * 256).tolist():
        boxes = torch.tensor([[*center, edge, edge]])
        index, central = assign(boxes, GRID)
        assert (index == 0).any()
        assert central[index == 0].max() > 0.2
        assert (central[index < 0] == 0).all()


def test_small_boxes_go_to_fine_levels_and_large_ones_to_coarse() -> None:
    for edge, stride in ((6.0, 4.0), (40.0, 8.0), (80.0, 16.0), (220.0, 32.0)):
        index, _ = assign(torch.tensor([[128.0, 128.0, edge, edge]]), GRID)
        assert stride in GRID.stride_n[index == 0]
        assert (GRID.stride_n[index == 0] <= 2 * stride).all()


def test_the_smaller_of_two_lesions_gets_the_contested_cell() -> None:
    boxes = torch.tensor([[100.0, 100.0, 36.0, 36.0], [100.0, 100.0, 34.0, 34.0]])
    index, _ = assign(boxes, GRID)
    assert set(index.tolist()) == {-1, 1}


def test_centreness_falls_from_the_centre() -> None:
    index, central = assign(torch.tensor([[130.0, 130.0, 20.0, 20.0]]), GRID)
    own = torch.nonzero(index == 0).squeeze(1)
    away = (GRID.centers_n2[own] - 130.0).norm(dim=1)
    order = away.argsort()
    assert central[own[order[0]]] > 0.9
    assert central[own[order[0]]] > central[own[order[-1]]]


def test_no_lesions_no_cells() -> None:
    index, central = assign(torch.zeros(0, 4), GRID)
    assert (index == -1).all() and (central == 0).all()
