"""A server that speaks the OpenAI protocol, behind the engine protocol.

In: its address and the model's name there. Out: an Engine.
Does not know: findings, reports, how the server decodes. The grammar travels in the field that
vLLM's server reads; a server without it answers freely, and the verifier mends what it writes.
"""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raypipe.errors import ConfigError, EngineError
from raypipe.report.config import ServerConfig
from raypipe.report.engine import Completion, FinishReason, GenerationRequest


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
        self._connections = config.max_connections

    @property
    def name(self) -> str:
        """The model's name on the server."""
        return self._model

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        """Send all requests, `max_connections` at a time; see Engine."""
        with ThreadPoolExecutor(max_workers=self._connections) as pool:
            return list(pool.map(self._answer, requests))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _answer(self, request: GenerationRequest) -> Completion:
        import openai

        started = time.perf_counter()

        def ended(reason: FinishReason, text: str = "", tokens: int = 0) -> Completion:
            seconds = time.perf_counter() - started
            return Completion(text=text, tokens=tokens, finish_reason=reason, seconds=seconds)

        try:
            answer = self._client.chat.completions.create(**self._body(request))
        except openai.APITimeoutError:
            return ended(FinishReason.TIMEOUT)
        except openai.AuthenticationError as error:
            raise EngineError(f"report.server: {self._client.base_url} refused the key") from error
        except openai.APIConnectionError as error:
            raise EngineError(
                f"report.server.url: no answer from {self._client.base_url}; is the server up?"
            ) from error
        except openai.APIError:
            return ended(FinishReason.ERROR)
        choice = answer.choices[0]
        reasons = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH}
        tokens = answer.usage.completion_tokens if answer.usage else 0
        reason = reasons.get(choice.finish_reason, FinishReason.ERROR)
        return ended(reason, choice.message.content or "", tokens)

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.grammar is not None:
            body["extra_body"] = {"structured_outputs": {"grammar": request.grammar}}
        return body


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
