"""Readings taken again and again beside other work.

In: what to read, how often. Out: the readings so far. Does not know: what they mean.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def sampled(read: Callable[[], T], every_s: float) -> Iterator[list[T]]:
    """A list that a thread fills with a reading every so many seconds until the end."""
    readings: list[T] = []
    stop = threading.Event()

    def keep_reading() -> None:
        while not stop.wait(every_s):
            readings.append(read())

    thread = threading.Thread(target=keep_reading, daemon=True)
    thread.start()
    try:
        yield readings
    finally:
        stop.set()
        thread.join()
