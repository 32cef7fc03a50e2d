"""The C library's allocator, told to keep what volumes and activations free.

In: nothing. Out: a setting of this process. Does not know: what is computed.

glibc gives every large block back to the system as soon as it is free. One series needs blocks of
the same sizes as the next, and one slice too, so each would be fetched again, page by page: half
the time of the preprocessing and a tenth of the network's on CPU. The price is that an idle process
keeps up to a GiB.
"""

import ctypes
from functools import cache

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_KEPT_BYTES = 1 << 30


@cache
def keep_freed_memory() -> None:
    """Keep freed blocks for the next request; nothing where the C library cannot be told.

    Once in a process: later calls cost nothing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
