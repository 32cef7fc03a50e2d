"""Engine processes that never outlive the process that started them.

In: nothing but being unpickled in a child process. Out: that child ends when its parent does.
Does not know: engines.

vLLM's engine runs in child processes that notice no SIGKILL of their parent and would keep their
memory for ever. vLLM hands its config to each of these processes, by pickle; a ParentWatch inside
the config begins to watch as soon as it arrives there, before any weight is read.
"""

import os
import threading
import time

_PERIOD_S = 0.5


class ParentWatch(str):
    """Travels in vLLM's `additional_config` and starts watching wherever it is unpickled.

    A string, because vLLM hashes that part of its config as JSON.

    Args:
        parent: process id of the process that pickled it, None where it was not pickled.
    """

    def __new__(cls, parent: int | None = None) -> "ParentWatch":
        """Start to watch where it arrives in another process."""
        if parent is not None and parent != os.getpid():  # a copy within one process watches nobody
            threading.Thread(
                target=_end_after, args=(parent,), name="parent-watch", daemon=True
            ).start()
        return super().__new__(cls, "parent_watch")

    def __reduce__(self) -> "tuple[type[ParentWatch], tuple[int]]":
        return (ParentWatch, (os.getpid(),))


def _end_after(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PERIOD_S)
    os._exit(1)  # no clean-up: there is nobody left to talk to, and a hang would keep the memory
