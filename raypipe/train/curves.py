"""The curves of a run while it trains, read from the files that its first worker writes.

In: a folder of TensorBoard events. Out: calls with a step and its values. Does not know: Ray, what
the values mean.

Reading files needs no channel to the workers, so it shows a run on any machine whose output folder
is seen here.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

OnPoint = Callable[[int, dict[str, float]], None]
SECONDS = 1.0
"""Between two looks at the files."""


@contextmanager
def following(folder: Path, on_point: OnPoint) -> Iterator[None]:
    """Call on_point for every step that is written while the context lasts, in order."""
    seen = {step for step, _ in points(folder)}
    done = threading.Event()

    def look() -> None:
        for step, values in points(folder):
            if step not in seen:
                seen.add(step)
                on_point(step, values)

    def watch() -> None:
        while not done.wait(SECONDS):
            look()

    thread = threading.Thread(target=watch, name="curves", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        look()


def points(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Every step with its values, by step; a step that was done again has its last values."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[int, dict[str, float]] = {}
    files = sorted(folder.glob("events.*"), key=lambda file: file.stat().st_mtime)
    for event in (event for file in files for event in EventFileLoader(str(file)).Load()):
        for value in event.summary.value:
            found.setdefault(int(event.step), {})[value.tag] = _number(value)
    return sorted(found.items())


def _number(value: Any) -> float:
    """A scalar of an event, whichever of both layouts it was written in."""
    return float(value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value)
