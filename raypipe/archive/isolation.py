"""Run a call where a crash, a hang or runaway memory costs that call alone.

In: a module-level function, its arguments, limits. Out: what it returns, or SeriesError with
DECODER_CRASHED, DECODER_TIMEOUT or DECODER_MEMORY. Does not know: what the function does.

The function runs in a long-lived child process (archive.decoder_process), which is used again and
again, and killed and replaced upon a fault. Arrays of the result come back as the very memory that
the child wrote them to: nothing is copied here. A process has as many children as it has calls at
a time; they end with it.
"""

import mmap
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import psutil
from pydantic import Field

from raypipe.errors import Reason, SeriesError
from raypipe.settings import Settings

T = TypeVar("T")

POLL_S = 0.02
"""How often the memory of a child at work is looked at."""
START_S = 120.0
"""Longest time that a child may take to start and import."""
ALIGNMENT = 64
"""Arrays begin at multiples of this in the memory that comes back."""

_IDLE: dict[int, list["_Child"]] = {}
_LOCK = threading.Lock()


class IsolationConfig(Settings):
    """What reading one series may cost before it is cut off."""

    mode: Literal["process", "none"] = Field(
        "process",
        description="process: series are read in a child process that a crash, a hang or runaway "
        "memory takes down alone; none: in the process that asks.",
    )
    time_limit_s: float = Field(300.0, gt=0, description="Longest time for a series, in seconds.")
    time_limit_s_per_mb: float = Field(
        1.0, ge=0, description="Added to the time limit for every MB of the stored objects."
    )
    memory_limit_gib: float = Field(
        8.0, gt=0, description="Most memory that reading a series may take, in GiB."
    )

    def seconds(self, byte_size: int) -> float:
        """The time limit of a series of this size."""
        return self.time_limit_s + self.time_limit_s_per_mb * byte_size / 1e6


def isolated(
    function: Callable[..., T],
    *args: Any,
    seconds: float,
    memory_gib: float,
    preload: tuple[str, ...] = (),
) -> T:
    """Call a function in a child process.

    Args:
        function: importable by name.
        args: its arguments, picklable.
        preload: modules that a new child imports before its time counts.
        seconds: cut it off after this time.
        memory_gib: cut it off when the child holds more.

    Raises:
        SeriesError: DECODER_CRASHED, DECODER_TIMEOUT, DECODER_MEMORY, or what the function raises.
        Exception: whatever else the function raises.
    """
    child = _take((function.__module__, *preload))
    try:
        outcome = child.call((function, args), seconds, int(memory_gib * 2**30))
    except BaseException:
        child.kill()  # after a fault, and after Ctrl-C, when an answer may still be under way
        raise
    if child.bloated(int(memory_gib * 2**30)):
        child.kill()
    else:
        with _LOCK:
            _IDLE.setdefault(os.getpid(), []).append(child)
    if isinstance(outcome, BaseException):
        raise outcome
    result: T = outcome
    return result


def end_idle() -> None:
    """End the children of this process that wait for work, and give back their memory."""
    with _LOCK:
        children = _IDLE.pop(os.getpid(), [])
    for child in children:
        child.kill()


def _take(modules: tuple[str, ...]) -> "_Child":
    with _LOCK:
        idle = _IDLE.setdefault(os.getpid(), [])  # a fork must not share its parent's children
        while idle:
            child = idle.pop()
            if child.usable():
                return child
            child.kill()
    return _Child(modules)


class _Child:
    """One child process, which has imported some modules, and the socket to it."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair()
        # The child finds what this process can import, also where only sys.path knows of it.
        found = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
        self._environment = dict(os.environ)
        environment = self._environment | {"PYTHONPATH": found}
        code = "import sys; from raypipe.archive.decoder_process import serve; serve(sys.argv[1:])"
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", code, str(theirs.fileno()), *modules],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        theirs.close()
        self._socket = ours
        self._connection = Connection(os.dup(ours.fileno()))
        self._memory = psutil.Process(self._process.pid)
        if not self._connection.poll(START_S) or not self._ready():
            self.kill()
            raise RuntimeError("the decoder process did not start; its error stands in the log")

    def _ready(self) -> bool:
        try:
            return self._connection.recv_bytes() == b"ready"
        except (EOFError, OSError):
            return False

    def usable(self) -> bool:
        """Whether it still runs, and with the environment of now: credentials may have changed."""
        return self._process.poll() is None and self._environment == os.environ

    def bloated(self, limit: int) -> bool:
        """Whether it kept so much memory that the next call would suffer for this one."""
        return self._resident() > limit // 2

    def call(self, work: Any, seconds: float, memory: int) -> Any:
        """Its outcome: what the call returned, or the exception that it raised."""
        deadline = time.monotonic() + seconds
        try:
            self._connection.send_bytes(pickle.dumps((seconds, work)))
            while not self._connection.poll(POLL_S):
                if self._resident() > memory:
                    raise _over_memory(memory)
                if time.monotonic() > deadline:
                    raise _over_time(seconds)
            return self._outcome()
        except (EOFError, ConnectionError):
            self._explain_death(seconds, memory)

    def _outcome(self) -> Any:
        header = self._connection.recv_bytes()
        (size, views), pickled = pickle.loads(header)
        if not size:
            return pickle.loads(pickled)
        _, descriptors, _, _ = socket.recv_fds(self._socket, 1, 1)
        if not descriptors:  # it died before it sent them
            raise EOFError
        try:
            memory = memoryview(mmap.mmap(descriptors[0], size))
        finally:
            os.close(descriptors[0])
        return pickle.loads(pickled, buffers=[memory[start:end] for start, end in views])

    def _resident(self) -> int:
        try:
            return int(self._memory.memory_info().rss)
        except psutil.Error:
            return 0  # it is gone; reading from it says so

    def _explain_death(self, seconds: float, memory: int) -> NoReturn:
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            code = 0
        if code == -signal.SIGALRM:
            raise _over_time(seconds)
        if code == -signal.SIGKILL:  # not by us: the kernel, when the machine ran out of memory
            raise _over_memory(memory)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise SeriesError(Reason.DECODER_CRASHED, f"the decoder process ended with {name}")

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._socket.close()


def _over_time(seconds: float) -> SeriesError:
    return SeriesError(
        Reason.DECODER_TIMEOUT,
        f"reading took longer than {seconds:.0f} s (archive.isolation.time_limit_s)",
    )


def _over_memory(memory: int) -> SeriesError:
    return SeriesError(
        Reason.DECODER_MEMORY,
        f"reading took more than {memory / 2**30:.2f} GiB (archive.isolation.memory_limit_gib)",
    )
