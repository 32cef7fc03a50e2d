"""The LoRA adapters that a vLLM engine knows: id -> weights and the number that vLLM wants.

In: adapter sources. Out: vLLM's LoRARequest of an id. Does not know: engines, requests.

vLLM tells adapters apart by a number; other weights under an old id get a new one, so that what
is in its cache is never taken for them. Several threads may use a table.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from raypipe.errors import ConfigError
from raypipe.report.adapter import AdapterSource


class AdapterTable:
    """Adapters by id.

    Args:
        max_rank: that an adapter may have.
        adapters: known from the start.
    """

    def __init__(self, max_rank: int, adapters: Iterable[AdapterSource] = ()) -> None:
        self._max_rank = max_rank
        self._adapters: dict[str, tuple[AdapterSource, int]] = {}
        self._before: dict[str, tuple[AdapterSource, int]] = {}
        self._last_number = 0
        self._lock = threading.Lock()
        for adapter in adapters:
            self.add(adapter)

    def __len__(self) -> int:
        return len(self._adapters)

    @property
    def sources(self) -> list[AdapterSource]:
        """All adapters."""
        with self._lock:
            return [source for source, _ in self._adapters.values()]

    def add(self, adapter: AdapterSource) -> None:
        """Know an adapter by its id from now on; equal weights keep their number.

        Raises:
            ConfigError: its rank is too high.
        """
        if adapter.rank > self._max_rank:
            raise ConfigError(
                f"report.adapter {adapter.adapter_id!r} has rank {adapter.rank}; "
                f"report.vllm.max_lora_rank is {self._max_rank}: raise it"
            )
        with self._lock:
            known = self._adapters.get(adapter.adapter_id)
            if known is not None and known[0].weights_hash == adapter.weights_hash:
                return
            self._last_number += 1
            self._adapters[adapter.adapter_id] = (adapter, self._last_number)
            if known is not None:
                self._before[adapter.adapter_id] = known

    def drop(self, adapter: AdapterSource) -> None:
        """Forget an adapter, unless other weights have taken its id; what it replaced is back."""
        with self._lock:
            if self._adapters.get(adapter.adapter_id, (None, 0))[0] == adapter:
                del self._adapters[adapter.adapter_id]
                if adapter.adapter_id in self._before:
                    self._adapters[adapter.adapter_id] = self._before.pop(adapter.adapter_id)

    def find(self, adapter_id: str) -> AdapterSource:
        """The adapter of an id; ConfigError where there is none."""
        return self._entry(adapter_id)[0]

    def request(self, adapter_id: str | None) -> Any:
        """The LoRARequest of an id, None for none."""
        if adapter_id is None:
            return None
        from vllm.lora.request import LoRARequest

        source, number = self._entry(adapter_id)
        return LoRARequest(
            lora_name=f"{source.adapter_id}-{source.weights_hash}",
            lora_int_id=number,
            lora_path=str(source.folder),
        )

    def _entry(self, adapter_id: str) -> tuple[AdapterSource, int]:
        with self._lock:
            if adapter_id not in self._adapters:
                raise ConfigError(
                    f"report.adapter: the engine has no adapter {adapter_id!r}; it has "
                    f"{sorted(self._adapters) or 'none'}"
                )
            return self._adapters[adapter_id]


class AdapterTurns:
    """Lets requests with and without an adapter take turns, as vLLM on a CPU needs it.

    vLLM 0.32 marks a request without an adapter by the index -1, which its CPU kernels take for the
    last adapter as soon as one batch holds both kinds: the wrong weights answer, in silence.
    """

    def __init__(self) -> None:
        self._free = asyncio.Condition()
        self._adapted = False
        self._active = 0

    @asynccontextmanager
    async def turn(self, adapted: bool) -> AsyncIterator[None]:
        """Wait until no request of the other kind is decoded; many of one kind run together."""
        async with self._free:
            await self._free.wait_for(lambda: not self._active or self._adapted == adapted)
            self._adapted = adapted
            self._active += 1
        try:
            yield
        finally:
            async with self._free:
                self._active -= 1
                self._free.notify_all()
