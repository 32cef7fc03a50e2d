"""vLLM's AsyncLLM behind the engine protocol: continuous batching in an own event loop.

In: a model source and a VllmConfig. Out: an Engine, restarted once where it dies.
Does not know: findings, reports, Ray.

vLLM reads much of its behaviour from the environment; it is set around a start and put back.
The engine runs in child processes; these end with this one, whatever kills it.
"""

import asyncio
import atexit
import math
import os
import threading
import time
import uuid
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from raypipe.errors import EngineError
from raypipe.report.config import VllmConfig
from raypipe.report.engine import Completion, FinishReason, GenerationRequest
from raypipe.report.model_source import ModelSource

T = TypeVar("T")

_CLOSE_TIMEOUT_S = 10.0


class VllmEngine:
    """A vLLM engine.

    Args:
        source: the model.
        config: sizes, type, threads.
        request_timeout_s: time limit of one request, without its wait in the queue.

    Raises:
        EngineError: the engine could not start.
    """

    def __init__(
        self, source: ModelSource, config: VllmConfig, request_timeout_s: float = 600.0
    ) -> None:
        self._source = source
        self._config = config
        self._request_timeout_s = request_timeout_s
        self._engine: Any = None
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

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Answer all requests, decoded together; see Engine.

        Where the engine dies, it is started again once and the unanswered requests are repeated.
        Several threads may call it at a time; their requests are decoded together.
        """
        if self._closed:
            raise EngineError("the vLLM engine is closed")
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
            from vllm.v1.engine.async_llm import AsyncLLM

            try:
                arguments = AsyncEngineArgs(**engine_arguments(self._source, self._config))
                self._engine = AsyncLLM.from_engine_args(arguments)
            except Exception as error:
                raise EngineError(
                    f"the vLLM engine did not start ({type(error).__name__}: {error}); set "
                    "report.vllm.log_level to INFO to see why"
                ) from error

    async def _stop(self) -> None:
        engine, self._engine = self._engine, None
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
        waves = math.ceil(len(requests) / self._config.max_num_seqs)
        timeout_s = self._request_timeout_s * waves

        async def answer(index: int) -> None:
            completion = await self._answer(requests[index], timeout_s)
            if completion is not None:
                done[index] = completion

        await asyncio.gather(*(answer(i) for i in range(len(requests)) if i not in done))

    async def _answer(self, request: GenerationRequest, timeout_s: float) -> Completion | None:
        """One completion; None where the engine died."""
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        started = time.perf_counter()
        last: list[Any] = []
        try:
            tokens = await self._prompt_tokens(request)
            stream = self._engine.generate(
                {"prompt_token_ids": tokens}, _sampling(request), uuid.uuid4().hex
            )
            await asyncio.wait_for(_drain(stream, last), timeout_s)
        except TimeoutError:
            return _completion(last, FinishReason.TIMEOUT, started)
        except EngineDeadError:
            return None
        except (VLLMError, ValueError):  # refused: too long, or a grammar that is none
            if self._engine.errored:
                return None
            return _completion(last, FinishReason.ERROR, started)
        ended = last[-1].outputs[0].finish_reason if last else None
        reason = FinishReason(ended) if ended in ("stop", "length") else FinishReason.ERROR
        return _completion(last, reason, started)

    async def _prompt_tokens(self, request: GenerationRequest) -> list[int]:
        tokenizer = self._engine.get_tokenizer()
        text = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in request.messages],
            add_generation_prompt=True,
            tokenize=False,
        )
        return list(tokenizer.encode(text, add_special_tokens=False))


async def _drain(stream: Any, last: list[Any]) -> None:
    async for output in stream:
        last[:] = [output]


def _completion(last: list[Any], reason: FinishReason, started: float) -> Completion:
    answer = last[-1].outputs[0] if last else None
    return Completion(
        text=answer.text if answer else "",
        tokens=len(answer.token_ids) if answer else 0,
        finish_reason=reason,
        seconds=time.perf_counter() - started,
    )


def _sampling(request: GenerationRequest) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    grammar = request.grammar
    return SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        seed=request.seed,
        output_kind=RequestOutputKind.FINAL_ONLY,
        structured_outputs=StructuredOutputsParams(grammar=grammar) if grammar else None,
    )


def engine_arguments(source: ModelSource, config: VllmConfig) -> dict[str, Any]:
    """The arguments of vLLM's AsyncEngineArgs."""
    from vllm.platforms import current_platform

    from raypipe.report.parent_watch import ParentWatch

    on_cpu = current_platform.is_cpu()
    dtype = config.dtype
    if dtype == "auto":
        dtype = "float32" if on_cpu else "bfloat16"
    arguments: dict[str, Any] = {
        "model": source.location,
        "dtype": dtype,
        "enforce_eager": on_cpu if config.enforce_eager is None else config.enforce_eager,
        "max_model_len": config.max_model_len,
        "max_num_seqs": config.max_num_seqs,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "tensor_parallel_size": config.tensor_parallel,
        "gpu_memory_utilization": config.memory_share,
        "structured_outputs_config": {"backend": "xgrammar"},
        "additional_config": {"parent_watch": ParentWatch()},
        "disable_log_stats": True,
        "enable_log_requests": False,
    }
    if config.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    return arguments


def start_environment(source: ModelSource, config: VllmConfig) -> dict[str, str]:
    """What vLLM reads from the environment when it starts."""
    threads = config.threads or len(os.sched_getaffinity(0))
    variables = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": config.log_level,
        "VLLM_ENGINE_READY_TIMEOUT_S": str(int(config.start_timeout_s)),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a process with threads may hang
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # engines on one machine must not share one core
        "OMP_NUM_THREADS": str(threads),
        # Threads that sleep at a barrier: a fifth slower on idle cores, but several times faster
        # where other stages use the same ones, as they do in a pipeline.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
        # The model beside the scheduler: a worker process of its own costs a CPU engine 700 MiB
        # and a third of its speed. (Two GPUs and more get worker processes all the same.)
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if source.local:
        variables |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    return variables


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put all of the environment back afterwards."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
