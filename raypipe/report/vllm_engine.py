"""vLLM's AsyncLLM behind the engine protocol: continuous batching in an own event loop.

In: a model source, adapters and a VllmConfig. Out: an Engine, restarted once where it dies.
Does not know: findings, reports, Ray.

vLLM reads much of its behaviour from the environment; it is set around a start and put back.
The engine runs in child processes; these end with this one, whatever kills it.
"""

import asyncio
import atexit
import math
import threading
import time
import uuid
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

from raypipe.errors import ConfigError, EngineError
from raypipe.report.adapter import AdapterSource
from raypipe.report.config import VllmConfig
from raypipe.report.engine import Candidate, Completion, FinishReason, GenerationRequest
from raypipe.report.model_source import ModelSource
from raypipe.report.vllm_adapters import AdapterTable, AdapterTurns
from raypipe.report.vllm_requests import Grammars, candidates, prompt_of, sampling, search
from raypipe.report.vllm_settings import engine_arguments, environment, start_environment

T = TypeVar("T")

_CLOSE_TIMEOUT_S = 10.0


class VllmEngine:
    """A vLLM engine.

    Args:
        source: the model.
        config: sizes, type, threads.
        request_timeout_s: time limit of one request, without its wait in the queue.
        adapters: LoRA adapters that requests may name from the start.
        prefix: whether requests may have a visual prefix.

    Raises:
        EngineError: the engine could not start.
        ConfigError: an adapter does not fit the model or the config.
    """

    def __init__(
        self,
        source: ModelSource,
        config: VllmConfig,
        request_timeout_s: float = 600.0,
        adapters: Iterable[AdapterSource] = (),
        *,
        prefix: bool = False,
    ) -> None:
        self._source = source
        self._prefix = prefix
        self._config = config
        self._request_timeout_s = request_timeout_s
        self._adapters = AdapterTable(config.max_lora_rank, adapters)
        self._max_loras = config.max_loras or len(self._adapters)
        self._engine: Any = None
        self._grammars: Grammars | None = None  # of this engine; made for the first beam search
        self._in_flight = 0  # touched in the event loop alone
        self._turns: AdapterTurns | None = None
        self._closed = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="vllm-event-loop", daemon=True
        )
        self._thread.start()
        atexit.register(self.close)  # while vLLM's modules are still there
        try:
            self._run(self._start())
        except BaseException:
            self.close()
            raise

    @property
    def name(self) -> str:
        """The model's name."""
        return self._source.name

    def name_with(self, adapter: str) -> str:
        """The model's name with that of an adapter; "" is none."""
        return f"{self.name} + {self._adapters.find(adapter).name}" if adapter else self.name

    def add_adapter(self, adapter: AdapterSource) -> None:
        """Load one more adapter; requests may name its id from now on, also in place of an old one.

        Raises:
            ConfigError: the engine runs without LoRA, or the adapter does not fit.
        """
        if not self._max_loras:
            raise ConfigError(
                "report.vllm.max_loras is 0 and the engine started without an adapter; set it to "
                "the number of adapters that one batch may hold"
            )
        self._adapters.add(adapter)
        self._run(self._load(adapter))

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Answer all requests, decoded together; see Engine.

        Where the engine dies, it is started again once and the unanswered requests are repeated.
        Several threads may call it at a time; their requests are decoded together.
        """
        if self._closed:
            raise EngineError("the vLLM engine is closed")
        for adapter in {request.adapter for request in requests} - {None}:
            self._adapters.find(str(adapter))
        if not self._prefix and any(request.prefix is not None for request in requests):
            raise ConfigError(
                "report.prefix: the engine started without a visual prefix; set it in the config "
                "that starts the engine"
            )
        done: dict[int, Completion] = {}
        self._run(self._generate(requests, done))
        if len(done) < len(requests):
            self._run(self._restart())
            self._run(self._generate(requests, done))
        if len(done) < len(requests):
            raise EngineError(
                "the vLLM engine died twice on the same requests; raise report.vllm.log_level and "
                "look at the memory of the machine"
            )
        return [done[index] for index in range(len(requests))]

    def close(self) -> None:
        """Stop the engine and its processes; closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self._loop.is_running():
            self._run(self._stop())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_CLOSE_TIMEOUT_S)
        if not self._loop.is_running():
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _start(self) -> None:
        with environment(start_environment(self._source, self._config)):
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM

            try:
                arguments = AsyncEngineArgs(
                    **engine_arguments(
                        self._source, self._config, self._max_loras, prefix=self._prefix
                    )
                )
                self._engine = AsyncLLM.from_engine_args(arguments)
            except Exception as error:
                raise EngineError(
                    f"the vLLM engine did not start ({type(error).__name__}: {error}); set "
                    "report.vllm.log_level to INFO to see why"
                ) from error
        if self._max_loras and current_platform.is_cpu() and self._turns is None:
            self._turns = AdapterTurns()
        for adapter in self._adapters.sources:
            await self._load(adapter)

    async def _stop(self) -> None:
        engine, self._engine, self._grammars = self._engine, None, None
        if engine is not None:
            engine.shutdown(timeout=_CLOSE_TIMEOUT_S)

    async def _restart(self) -> None:
        if self._engine is not None and not self._engine.errored:
            return  # a concurrent call has done it
        await self._stop()
        await self._start()

    async def _generate(
        self, requests: Sequence[GenerationRequest], done: dict[int, Completion]
    ) -> None:
        """Answer what is not yet in `done`; a dead engine leaves gaps."""
        open_requests = [i for i in range(len(requests)) if i not in done]
        self._in_flight += len(open_requests)  # those of concurrent calls wait in the same queue
        waves = math.ceil(self._in_flight / self._config.max_num_seqs)

        async def answer(index: int) -> None:
            timeout_s = self._request_timeout_s * waves
            async with self._turn(requests[index]):
                completion = await self._answer(requests[index], timeout_s)
            if completion is not None:
                done[index] = completion

        try:
            await asyncio.gather(*(answer(i) for i in open_requests))
        finally:
            self._in_flight -= len(open_requests)

    def _turn(self, request: GenerationRequest) -> AbstractAsyncContextManager[None]:
        if self._turns is None:
            return nullcontext()
        return self._turns.turn(request.adapter is not None)

    async def _answer(self, request: GenerationRequest, timeout_s: float) -> Completion | None:
        """One completion; None where the engine died, or is dead since an earlier call."""
        engine = self._engine  # a concurrent call may put a new one in its place
        if engine is None:
            return None
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        started = time.perf_counter()
        last: list[Any] = []
        try:
            tokens = _prompt_tokens(engine, request)
            lora = self._adapters.request(request.adapter)
            if request.decoding.method == "beam":
                self._grammars = self._grammars or Grammars(engine)
                work = search(engine, self._grammars, request, tokens, lora)
                return _of_beams(engine, await asyncio.wait_for(work, timeout_s), started)
            prompt = prompt_of(tokens, request.prefix)
            stream = engine.generate(prompt, sampling(request), uuid.uuid4().hex, lora_request=lora)
            await asyncio.wait_for(_drain(stream, last), timeout_s)
        except TimeoutError:
            return _completion(last, FinishReason.TIMEOUT, started)
        except EngineDeadError:
            return None
        except (VLLMError, ValueError):  # refused: too long, or a grammar that is none
            if engine.errored:
                return None
            return _completion(last, FinishReason.ERROR, started)
        return _completion(last, _reason(last), started, several=request.decoding.width > 1)

    async def _load(self, adapter: AdapterSource) -> None:
        """Load now, so that weights that do not fit fail here and not in a batch."""
        try:
            await self._engine.add_lora(self._adapters.request(adapter.adapter_id))
        except Exception as error:
            self._adapters.drop(adapter)
            raise ConfigError(
                f"report.adapter {adapter.adapter_id!r} does not fit the language model "
                f"{self.name}: {type(error).__name__}"
            ) from error


def _prompt_tokens(engine: Any, request: GenerationRequest) -> list[int]:
    tokenizer = engine.get_tokenizer()
    text = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in request.messages],
        add_generation_prompt=True,
        tokenize=False,
    )
    return list(tokenizer.encode(text, add_special_tokens=False))


async def _drain(stream: Any, last: list[Any]) -> None:
    async for output in stream:
        last[:] = [output]


def _reason(last: Sequence[Any]) -> FinishReason:
    """Why the first whole answer ended, or the first one where none is whole."""
    ended = [answer.finish_reason for answer in last[-1].outputs] if last else []
    if "stop" in ended:
        return FinishReason.STOP
    return FinishReason.LENGTH if "length" in ended else FinishReason.ERROR


def _completion(
    last: Sequence[Any], reason: FinishReason, started: float, *, several: bool = False
) -> Completion:
    answers = last[-1].outputs if last else []
    ranked = candidates(last[-1]) if several and last else ()
    text = answers[0].text if answers else ""
    return Completion(
        text=ranked[0].text if ranked else text,
        tokens=sum(len(answer.token_ids) for answer in answers),
        finish_reason=reason,
        seconds=time.perf_counter() - started,
        candidates=ranked,
    )


def _of_beams(engine: Any, beams: Sequence[Any], started: float) -> Completion:
    """The texts of beams; two ways to cut one text into tokens are one text."""
    tokenizer = engine.get_tokenizer()
    texts: dict[str, float] = {}
    for beam in beams:
        text = tokenizer.decode(list(beam.tokens), skip_special_tokens=True)
        texts.setdefault(text, beam.rank)
    ranked = tuple(Candidate(text=t, log_probability=p) for t, p in texts.items())
    return Completion(
        text=ranked[0].text if ranked else "",
        tokens=sum(len(beam.tokens) for beam in beams),
        finish_reason=FinishReason.STOP if ranked else FinishReason.LENGTH,
        seconds=time.perf_counter() - started,
        candidates=ranked,
    )
