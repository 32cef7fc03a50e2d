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
Loaders = dict[Path, Any]
SECONDS = 1.0
"""Between two looks at the files."""


@contextmanager
def following(folder: Path, on_point: OnPoint) -> Iterator[None]:
    """Call on_point for every step that is written while the context lasts, in order."""
    files: Loaders = {}
    points(folder, files)  # what an earlier part of the run wrote is not told again
    done = threading.Event()

    def look() -> None:
        for step, values in points(folder, files):
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


def points(folder: Path, files: Loaders | None = None) -> list[tuple[int, dict[str, float]]]:
    """Every step with its values, by step; a step that was done again has its last values.

    Args:
        folder: of the events.
        files: remembers how far each file was read; the next call with it gives what is new.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    files = {} if files is None else files
    found: dict[int, dict[str, float]] = {}
    for file in sorted(folder.glob("events.*"), key=lambda f: f.stat().st_mtime):
        if file not in files:
            files[file] = EventFileLoader(str(file))
        for event in files[file].Load():
            for value in event.summary.value:
                found.setdefault(int(event.step), {})[value.tag] = _number(value)
    return sorted(found.items())


def _number(value: Any) -> float:
    """A scalar of an event, whichever of both layouts it was written in."""
    return float(value.tensor.float_val[0] if value.HasField("tensor") else value.simple_value)
