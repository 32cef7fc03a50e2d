"""Makes decoders misbehave, in every Python that is started with this folder on PYTHONPATH.

raypipe itself has no such hook. Python imports a module of this name when it starts; it waits for
raypipe.archive.pixels to be imported and wraps the function that decodes. A file that holds
b"poison:KIND" anywhere is poisonous:

    segfault    a real access to an address that is not there, in native code
    hang        native code that never comes back and holds the interpreter's lock
    swell       takes more memory without end
    murder      kills the process that asked for the series, as its own memory or code might
"""

import ctypes
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

_PATCHED = "raypipe.archive.pixels"


def _swell() -> None:
    held = []
    while True:
        held.append(b"x" * (64 << 20))
        time.sleep(0.005)


_KINDS = {
    b"segfault": lambda: ctypes.string_at(0),
    b"hang": lambda: ctypes.PyDLL(None).sleep(100_000),
    b"swell": _swell,
    b"murder": lambda: os.kill(os.getppid(), signal.SIGKILL),
}


def _poison(module: ModuleType) -> None:
    decode = module.stored_frames

    def stored_frames(item: Any) -> Iterator[Any]:
        for kind, misbehave in _KINDS.items():
            if b"poison:" + kind in item.content:
                misbehave()
        yield from decode(item)

    module.stored_frames = stored_frames  # type: ignore[attr-defined]


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _poison(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _PATCHED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        spec.loader = _Loader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
