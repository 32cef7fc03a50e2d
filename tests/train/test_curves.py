from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from raypipe.train.curves import following, points


def _write(folder: Path, step: int, **values: float) -> None:
    writer = SummaryWriter(str(folder))
    for name, value in values.items():
        writer.add_scalar(name, value, step)
    writer.close()


def test_points_are_read_by_step(tmp_path: Path) -> None:
    assert points(tmp_path / "none") == []
    _write(tmp_path, 20, loss=0.5)
    _write(tmp_path, 10, loss=1.0, map50=0.25)
    assert points(tmp_path) == [(10, {"loss": 1.0, "map50": 0.25}), (20, {"loss": 0.5})]


def test_only_what_is_new_is_told(tmp_path: Path) -> None:
    """A run that goes on does not tell its first part again."""
    _write(tmp_path, 10, loss=1.0)
    told: list[tuple[int, dict[str, float]]] = []
    with following(tmp_path, lambda step, values: told.append((step, values))):
        _write(tmp_path, 20, loss=0.5)
        _write(tmp_path, 30, loss=0.25)
    assert told == [(20, {"loss": 0.5}), (30, {"loss": 0.25})]
