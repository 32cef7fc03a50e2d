"""The C library's allocator, told to keep what volumes and activations free, and to have few heaps.

In: nothing. Out: a setting of this process. Does not know: what is computed.

glibc gives every large block back to the system as soon as it is free. One series needs blocks of
the same sizes as the next, and one slice too, so each would be fetched again, page by page: half
the time of the preprocessing and a tenth of the network's on CPU. The price is that an idle process
keeps up to a GiB.

It also gives every thread a heap of its own, up to eight a core, and Ray's processes have dozens of
threads that each come by now and then: their memory grows for minutes before all heaps are full.

Arrow brings an allocator of its own, whose freed blocks serve Arrow alone: a hundred MiB over the
processes of a job, growing with its length. Told to, it takes from the same heaps as all others.
"""

import ctypes
import os
from functools import cache

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_KEPT_BYTES = 1 << 30
_ARENAS = 2


@cache
def keep_freed_memory() -> None:
    """Keep freed blocks for the next request; nothing where the C library cannot be told.

    Once in a process: later calls cost nothing.
    """
    _set(_M_MMAP_THRESHOLD, _KEPT_BYTES)
    _set(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@cache
def share_heaps() -> None:
    """Two heaps for all threads and for Arrow, here and in every process started from here.

    Who set MALLOC_ARENA_MAX or ARROW_DEFAULT_MEMORY_POOL keeps it.
    """
    import pyarrow as pa

    if "MALLOC_ARENA_MAX" not in os.environ:
        os.environ["MALLOC_ARENA_MAX"] = str(_ARENAS)
        _set(_M_ARENA_MAX, _ARENAS)
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
        pa.set_memory_pool(pa.system_memory_pool())


def _set(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(parameter, value)
