"""Work in a process of its own, so that it inherits no memory, no Ray and no import.

In: a module-level function, arguments. Out: what it returns. Does not know: what it does.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, TypeVar

T = TypeVar("T")


def in_new_process(work: Callable[..., T], *told: Any) -> T:
    """Call a function in a new process, which ends with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(work, *told).result()
