"""What becomes of calls while vLLM does not start again; no model is loaded."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from raypipe.errors import EngineError
from raypipe.report import vllm_engine
from raypipe.report.config import VllmConfig
from raypipe.report.engine import GenerationRequest, Message
from raypipe.report.model_source import ModelSource
from raypipe.report.vllm_engine import VllmEngine

REQUEST = GenerationRequest(
    messages=(Message(role="user", content="x"),), grammar=None, max_tokens=9
)


class _Vllm:
    """An engine that lives, or died after it had started."""

    def __init__(self, *, alive: bool) -> None:
        self.errored = not alive

    def get_tokenizer(self) -> Any:
        return SimpleNamespace(
            apply_chat_template=lambda *_, **__: "x", encode=lambda *_, **__: [1]
        )

    async def generate(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        if self.errored:
            raise ValueError("dead")
        answer = SimpleNamespace(text="a nodule", finish_reason="stop", token_ids=[1, 2])
        yield SimpleNamespace(outputs=[answer])

    def shutdown(self, timeout: float) -> None:
        """Nothing runs."""


def test_a_restart_that_fails_is_tried_again_by_the_next_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = [_Vllm(alive=False), None, None, _Vllm(alive=True)]

    async def start(self: VllmEngine) -> None:
        engine = starts.pop(0)
        if engine is None:
            raise EngineError("the vLLM engine did not start")
        self._engine = engine

    monkeypatch.setattr(VllmEngine, "_start", start)
    monkeypatch.setattr(vllm_engine, "sampling", lambda request: None)
    engine = VllmEngine(ModelSource(name="tiny", location=".", local=True), VllmConfig())
    try:
        for _ in range(2):
            with pytest.raises(EngineError, match="did not start"):
                engine.generate([REQUEST])
        assert [c.text for c in engine.generate([REQUEST] * 2)] == ["a nodule"] * 2
    finally:
        engine.close()
