"""Functions that do to their process what damaged series do to decoders."""

import ctypes
import errno
import os
import signal
import time

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import Reason, SeriesError


def crash() -> None:
    """A real access to an address that is not there."""
    ctypes.string_at(0)


def end_with(number: int) -> None:
    os.kill(os.getpid(), number)


def hang() -> None:
    """Never come back, and hold the interpreter's lock meanwhile, as native code may."""
    ctypes.PyDLL(None).sleep(1000)


def eat() -> None:
    """Take 64 MiB more every few milliseconds."""
    held = []
    while True:
        held.append(np.ones(8 << 20))
        time.sleep(0.005)


def no_memory() -> None:
    raise MemoryError


def volumes(n: int) -> dict[str, NDArray[np.int16]]:
    """Arrays of several sizes, one of them empty."""
    return {
        "big": np.arange(n, dtype=np.int16).reshape(1, -1),
        "none": np.zeros((0, 3), dtype=np.int16),
        "small": np.arange(7, dtype=np.int16),
    }


def volume_whose_handing_over(end: str) -> NDArray[np.int16]:
    """Memory that runs out while the child copies its result."""
    from raypipe.archive import decoder_process

    def write(*_: object) -> None:
        if end == "kills":
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "no space")

    decoder_process._write = write
    return np.ones(1000, dtype=np.int16)


def refuse() -> None:
    raise SeriesError(Reason.SLICE_GAP, "3 slices are missing")


def divide() -> None:
    raise ZeroDivisionError("DOE^JANE")


class OddError(Exception):
    """An exception that cannot be made again from what pickle keeps."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__("odd")


def odd() -> None:
    raise OddError(1, 2)


def process_id() -> int:
    return os.getpid()


def kill_parent_then_hang() -> None:
    os.kill(os.getppid(), signal.SIGKILL)
    hang()
