"""A server that speaks the OpenAI protocol, behind the engine protocol.

In: its address and the model's name there. Out: an Engine.
Does not know: findings, reports, how the server decodes. The grammar travels in the field that
vLLM's server reads; a server without it answers freely, and the verifier mends what it writes. An
adapter is chosen by its id in place of the model's name, as vLLM's server wants it. The protocol
has no beam search.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raypipe.errors import ConfigError, EngineError
from raypipe.report.config import ServerConfig
from raypipe.report.engine import Candidate, Completion, FinishReason, GenerationRequest


class ServerEngine:
    """A language model on a server.

    Args:
        config: address, key, number of connections.
        model: its name on the server.
        request_timeout_s: time limit of one request.

    Raises:
        ConfigError: the environment variable of the key is not set.
    """

    def __init__(self, config: ServerConfig, model: str, request_timeout_s: float = 600.0) -> None:
        import openai

        self._model = model
        self._client = openai.OpenAI(
            base_url=config.url,
            api_key=_api_key(config),
            timeout=request_timeout_s,
            max_retries=config.retries,
        )
        # shared by concurrent calls, so that together they keep to the limit
        self._pool = ThreadPoolExecutor(config.max_connections, thread_name_prefix="report-server")
        self._closed = False

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self._model

    def name_with(self, adapter: str) -> str:
        """The model's name with an adapter's; "" is none."""
        return f"{self._model} + {adapter}" if adapter else self._model

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Send all requests, `max_connections` at a time; see Engine.

        Raises:
            ConfigError: a request asks for a beam search, or has a visual prefix.
            EngineError: the server is not there or refuses the key.
        """
        if any(request.decoding.method == "beam" for request in requests):
            raise ConfigError(
                "report.decoding.method: the OpenAI protocol has no beam search; take best_of, or "
                "report.engine=vllm"
            )
        if any(request.prefix is not None for request in requests):
            raise ConfigError(
                "report.prefix: the OpenAI protocol takes no embeddings; leave it empty, or take "
                "report.engine=vllm"
            )
        if self._closed:
            raise EngineError("the connections to the report server are closed")
        return list(self._pool.map(self._answer, requests))

    def close(self) -> None:
        """Close the connections; closing twice is fine."""
        self._closed = True
        self._pool.shutdown()
        self._client.close()

    def _answer(self, request: GenerationRequest) -> Completion:
        import openai

        started = time.perf_counter()

        def ended(reason: FinishReason) -> Completion:
            seconds = time.perf_counter() - started
            return Completion(text="", tokens=0, finish_reason=reason, seconds=seconds)

        try:
            answer = self._client.chat.completions.create(**self._body(request))
        except openai.APITimeoutError:
            return ended(FinishReason.TIMEOUT)
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise EngineError(f"report.server: {self._client.base_url} refused the key") from error
        except openai.APIConnectionError as error:
            raise EngineError(
                f"report.server.url: no answer from {self._client.base_url}; is the server up?"
            ) from error
        except openai.APIError:
            return ended(FinishReason.ERROR)
        return _completion(answer, time.perf_counter() - started)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        decoding = request.decoding
        body: dict[str, Any] = {
            "model": request.adapter or self._model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": decoding.temperature,
            "seed": decoding.seed,
        }
        if decoding.method == "best_of":
            body |= {"n": decoding.width, "logprobs": True}
        if request.grammar is not None:
            body["extra_body"] = {"structured_outputs": {"grammar": request.grammar}}
        return body


def _completion(answer: Any, seconds: float) -> Completion:
    """The choices of an answer; of several, the whole ones by falling likelihood."""
    whole = [choice for choice in answer.choices if choice.finish_reason == "stop"]
    ranked: tuple[Candidate, ...] = ()
    if len(answer.choices) > 1:
        found = [Candidate(text=c.message.content or "", log_probability=_mean(c)) for c in whole]
        ranked = tuple(sorted(found, key=lambda candidate: -candidate.log_probability))
    first = whole[0] if whole else answer.choices[0]
    reasons = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
    return Completion(
        text=ranked[0].text if ranked else first.message.content or "",
        tokens=answer.usage.completion_tokens if answer.usage else 0,
        finish_reason=reasons.get(first.finish_reason, FinishReason.ERROR),
        seconds=seconds,
        candidates=ranked,
    )


def _mean(choice: Any) -> float:
    """Log probability a token; 0 where the server does not tell."""
    tokens = choice.logprobs.content if choice.logprobs else None
    return sum(token.logprob for token in tokens) / len(tokens) if tokens else 0.0


def _api_key(config: ServerConfig) -> str:
    if config.api_key_variable is None:
        return "none"  # the client wants one; servers without keys ignore it
    key = os.environ.get(config.api_key_variable)
    if not key:
        raise ConfigError(
            f"report.server.api_key_variable: {config.api_key_variable} is not set; "
            "export it or set the field to null"
        )
    return key
