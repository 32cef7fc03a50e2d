"""Engine processes that never outlive the process that started them.

In: nothing but being unpickled in a child process. Out: that child ends when its parent does.
Does not know: engines.

vLLM's engine runs in child processes that notice no SIGKILL of their parent and would keep their
memory for ever. vLLM hands its config to each of these processes, by pickle; a ParentWatch inside
the config begins to watch as soon as it arrives there, before any weight is read.
"""

import multiprocessing
import os
import threading
from multiprocessing.connection import wait


class ParentWatch:
    """Travels in vLLM's `additional_config` and starts watching wherever it is unpickled."""

    def __reduce__(self) -> "tuple[type[ParentWatch], tuple[bool]]":
        return (ParentWatch, (True,))

    def __init__(self, arrived: bool = False) -> None:
        if arrived:
            end_with_parent()

    def compute_hash(self) -> str:
        """What vLLM's config asks of its parts; watching changes no result."""
        return "parent_watch"


def end_with_parent() -> bool:
    """Watch the parent in a thread; false where there is none (not a multiprocessing child)."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return False
    threading.Thread(
        target=_end_after, args=(parent.sentinel,), name="parent-watch", daemon=True
    ).start()
    return True


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)  # no clean-up: there is nobody left to talk to, and a hang would keep the memory
