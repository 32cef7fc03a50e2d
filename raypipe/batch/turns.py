"""Who may work in a process at a time: many together, or one alone.

In: threads that ask for a turn. Out: turns. Does not know: what is worked on.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock that many share or one has; who wants it alone goes before those who come later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._asking = 0
        self._taken = False

    @contextmanager
    def together(self) -> Iterator[None]:
        """A turn beside others."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken and not self._asking)
            self._sharing += 1
        try:
            yield
        finally:
            with self._changed:
                self._sharing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """A turn beside nobody."""
        with self._changed:
            self._asking += 1
            self._changed.wait_for(lambda: not self._taken and not self._sharing)
            self._asking -= 1
            self._taken = True
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
