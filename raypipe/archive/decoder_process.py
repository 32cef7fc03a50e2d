"""The child of archive.isolation: calls functions one after the other, and may die of any of them.

In: over a socket, (time limit, (function, arguments)). Out: the outcome over the same socket; the
memory of its arrays as one file descriptor. Does not know: what the functions do.

It ends when its parent does, also in the middle of a call that hangs in native code: an alarm
that no handler catches goes off a little after the time limit.
"""

import importlib
import os
import pickle
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from raypipe.archive.isolation import ALIGNMENT
from raypipe.errors import Reason, SeriesError

_GRACE_S = 5.0
"""How long after the limit the child ends itself; its parent is faster, if there is one."""
_ORPHAN_CHECK_S = 5.0
_WRITE_BYTES = 1 << 30


def serve(arguments: Sequence[str]) -> None:
    """Work for the process at the other end of a socket until it is gone.

    Args:
        arguments: the descriptor of the socket, and modules to import beforehand.
    """
    ours = socket.socket(fileno=int(arguments[0]))
    connection = Connection(os.dup(ours.fileno()))
    parent = os.getppid()
    for module in arguments[1:]:
        importlib.import_module(module)
    connection.send_bytes(b"ready")
    _silence()
    while _waiting(connection, parent):
        try:
            seconds, (function, args) = pickle.loads(connection.recv_bytes())
        except (EOFError, ConnectionError):
            return
        signal.setitimer(signal.ITIMER_REAL, seconds + _GRACE_S)
        outcome = _outcome(function, args)
        try:
            _answer(ours, connection, outcome)
        except ConnectionError:
            return
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        del outcome, function, args  # an idle child holds no volume


def _waiting(connection: Connection, parent: int) -> bool:
    """Wait for work; False where there will be none."""
    while not connection.poll(_ORPHAN_CHECK_S):
        if os.getppid() != parent:
            return False
    return True


def _silence() -> None:
    """Native decoders write to stderr what a log must not hold."""
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _outcome(function: Any, args: Any) -> Any:
    try:
        return function(*args)
    except MemoryError:
        return SeriesError(Reason.DECODER_MEMORY, "an allocation for this series failed")
    except Exception as error:  # noqa: BLE001 - the caller decides what it means
        return _portable(error)


def _portable(error: Exception) -> Exception:
    """The error, or one that travels and says its type."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - anything may be wrong with the pickling of an exception
        return RuntimeError(type(error).__name__)
    return error


def _answer(ours: socket.socket, connection: Connection, outcome: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(outcome, protocol=5, buffer_callback=buffers.append)
    views, size = [], 0
    for buffer in buffers:
        length = buffer.raw().nbytes
        views.append((size, size + length))
        size += -(-length // ALIGNMENT) * ALIGNMENT
    if not size:
        connection.send_bytes(pickle.dumps(((size, views), pickled)))
        return
    try:
        descriptor = _filled(size, [start for start, _ in views], buffers)
    except OSError:
        told = SeriesError(Reason.DECODER_MEMORY, "no memory to hand this series over in")
        _answer(ours, connection, told)
        return
    try:
        connection.send_bytes(pickle.dumps(((size, views), pickled)))
        socket.send_fds(ours, [b"m"], [descriptor])
    finally:
        os.close(descriptor)


def _filled(size: int, starts: Sequence[int], buffers: Sequence[pickle.PickleBuffer]) -> int:
    """A memory file that holds buffers at their starts."""
    descriptor = _memory_file(size)
    try:
        for start, buffer in zip(starts, buffers, strict=True):
            _write(descriptor, start, buffer.raw())
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _memory_file(size: int) -> int:
    """A file in memory that has no name and goes with its last descriptor."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("raypipe-series")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)  # noqa: PTH108 - its name is never used again
    os.truncate(descriptor, size)
    return descriptor


def _write(descriptor: int, at: int, content: memoryview) -> None:
    while content.nbytes:
        written = os.pwrite(descriptor, content[:_WRITE_BYTES], at)
        content, at = content[written:], at + written
