"""What vLLM is started with: its arguments, and what it reads from the environment.

In: a model source and a VllmConfig. Out: keyword arguments, environment variables.
Does not know: requests.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from raypipe.cores import usable_cores
from raypipe.report.config import VllmConfig
from raypipe.report.model_source import ModelSource

MOST_LOG_PROBABILITIES = 128
"""Tokens that one step may ask the log probability of; vLLM takes no more."""

_CPU_BLOCK_TOKENS = 32
"""Tokens of a block of the key-value cache on a CPU, the fewest that vLLM takes there. Only whole
blocks of a prompt's beginning are found again: vLLM's own 128 are more than the part that all
prompts share. Texts stay the same; a third more tokens/s.
"""
_LINEAR = (
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"),
    *("gate_proj", "up_proj", "gate_up_proj", "down_proj"),
)
"""What adapters may change beside a visual prefix. vLLM 0.32 embeds only the tokens of a batch that
has embeddings, and its LoRA of the embedding, taking these for the whole batch, kills the engine.
"""


def engine_arguments(
    source: ModelSource, config: VllmConfig, max_loras: int = 0, *, prefix: bool = False
) -> dict[str, Any]:
    """The arguments of vLLM's AsyncEngineArgs; `max_loras` 0 leaves LoRA out."""
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
        "max_logprobs": MOST_LOG_PROBABILITIES,
        "disable_log_stats": True,
        "enable_log_requests": False,
    }
    if on_cpu:
        arguments["block_size"] = _CPU_BLOCK_TOKENS
    if not config.prefix_caching:
        arguments["enable_prefix_caching"] = False
    if max_loras:
        arguments |= {
            "enable_lora": True,
            "max_loras": max_loras,
            "max_lora_rank": config.max_lora_rank,
        }
    if prefix:
        arguments["enable_prompt_embeds"] = True
        if max_loras:
            arguments["lora_target_modules"] = list(_LINEAR)
    if config.kv_cache_gib is not None:
        arguments["kv_cache_memory_bytes"] = int(config.kv_cache_gib * 2**30)
    return arguments


def start_environment(source: ModelSource, config: VllmConfig) -> dict[str, str]:
    """What vLLM reads from the environment when it starts."""
    threads = config.threads or usable_cores()
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
