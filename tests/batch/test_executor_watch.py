"""A run that ends early leaves nobody who writes on."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.data import Datasink

from raypipe.batch.executor_watch import ExecutorWatch, wait_for_writers


class _SlowSink(Datasink[None]):
    """Begins a file, and ends it seconds later whoever asks it to stop."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:
        list(blocks)
        (self._folder / f"{ctx.task_idx}.begun").touch()
        try:
            time.sleep(8)  # not to be interrupted, like a call into a library
        finally:
            (self._folder / f"{ctx.task_idx}.ended").touch()


@pytest.mark.usefixtures("ray_cluster")
def test_rows_that_are_being_written_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(_: Any) -> None:
        if list(tmp_path.glob("*.begun")):
            raise RuntimeError("enough")

    monkeypatch.setattr(ExecutorWatch, "on_step", stop)
    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [ExecutorWatch])
    with pytest.raises(RuntimeError, match="enough"):
        ray.data.range(2, override_num_blocks=2).write_datasink(_SlowSink(tmp_path))
    begun = {path.stem for path in tmp_path.glob("*.begun")}
    assert not list(tmp_path.glob("*.ended")), "Ray Data does not wait itself"
    wait_for_writers()
    assert {path.stem for path in tmp_path.glob("*.ended")} >= begun


@pytest.mark.usefixtures("ray_cluster")
def test_operators_forget_the_blocks_they_gave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: list[int] = []

    class Counting(ExecutorWatch):
        def on_execution_step(self, executor: Any) -> None:
            super().on_execution_step(executor)
            remembered.extend(len(op._output_blocks_stats) for op in _maps(executor))

    context = ray.data.DataContext.get_current()
    monkeypatch.setattr(context, "custom_execution_callback_classes", [Counting])
    many = ray.data.range(300, override_num_blocks=300).map_batches(lambda batch: batch)
    assert many.count() == 300
    assert 0 < max(remembered) <= 64


def _maps(executor: Any) -> list[Any]:
    return [op for op in executor._topology if hasattr(op, "_output_blocks_stats")]
