"""The C library's allocator, told to keep what the network frees.

In: nothing. Out: a setting of this process. Does not know: torch.

glibc gives every large block back to the system as soon as it is free. The activations of one
slice are the next one's, so each would be fetched again, page by page: a tenth of the network's
time on CPU. The price is that a process keeps the memory of its largest slice.
"""

import ctypes

_M_TRIM_THRESHOLD = -1  # malloc.h
_M_MMAP_THRESHOLD = -3
_BLOCK_BYTES = 1 << 30
_FREE_BYTES = (1 << 31) - 1


def keep_freed_memory() -> None:
    """Keep freed blocks for the next request; nothing where the C library cannot be told."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _FREE_BYTES)
