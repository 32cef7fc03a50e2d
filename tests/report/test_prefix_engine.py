"""Embeddings in front of a prompt, by the real engine with the real model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from raypipe.errors import ConfigError
from raypipe.report import vllm_engine as engines
from raypipe.report.adapter import describe_adapter
from raypipe.report.engine import Decoding, FinishReason, GenerationRequest, Message
from raypipe.report.model_source import find_model
from raypipe.report.vllm_engine import VllmEngine
from tests.report.adapters import write_adapter

pytestmark = pytest.mark.slow

FREE = GenerationRequest(
    messages=(Message(role="user", content="Describe a pulmonary nodule in one sentence."),),
    grammar=None,
    max_tokens=20,
)
AHEAD = "The patient has a very large liver. "


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    with safe_open(f"{find_model('smollm2').location}/model.safetensors", "np") as file:
        return file.get_tensor("model.embed_tokens.weight").astype(np.float32)


def _text(engine: VllmEngine, request: GenerationRequest) -> str:
    (completion,) = engine.generate([request])
    assert completion.finish_reason is not FinishReason.ERROR
    return completion.text


def test_the_embeddings_of_a_text_are_as_good_as_its_tokens(
    vllm_engine: VllmEngine, table: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = vllm_engine._engine.get_tokenizer().encode(AHEAD, add_special_tokens=False)
    by_embeddings = _text(vllm_engine, replace(FREE, prefix=table[tokens]))
    plain = engines._prompt_tokens
    monkeypatch.setattr(engines, "_prompt_tokens", lambda e, r: [*tokens, *plain(e, r)])
    by_tokens = _text(vllm_engine, FREE)
    monkeypatch.undo()
    assert by_embeddings == by_tokens != _text(vllm_engine, FREE)


def test_an_empty_prefix_changes_nothing_and_a_full_one_does(
    vllm_engine: VllmEngine, table: np.ndarray
) -> None:
    base = _text(vllm_engine, FREE)
    assert _text(vllm_engine, replace(FREE, prefix=table[:0])) == base
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(6, table.shape[1])) * table.std()
    changed = replace(FREE, prefix=noise.astype(np.float32))
    assert _text(vllm_engine, changed) != base
    # with and without a prefix in one batch, each as alone
    together = [c.text for c in vllm_engine.generate([changed, FREE, changed])]
    assert together == [_text(vllm_engine, changed), base, _text(vllm_engine, changed)]


def test_a_prefix_keeps_to_the_grammar_in_every_way_of_decoding(
    vllm_engine: VllmEngine, table: np.ndarray, tmp_path: Path
) -> None:
    model = find_model("smollm2").location
    vllm_engine.add_adapter(describe_adapter("ahead", write_adapter(tmp_path / "ahead", model)))
    words = 'root ::= "It is " ("smooth" | "spiculated" | "lobulated") "."'
    request = replace(FREE, grammar=words, adapter="ahead", prefix=table[100:108])
    for decoding in (
        Decoding(),
        Decoding(method="best_of", temperature=1.0, width=2),
        Decoding(method="beam", width=2),
    ):
        (completion,) = vllm_engine.generate([replace(request, decoding=decoding)])
        assert completion.finish_reason is FinishReason.STOP
        assert _is_grammar_accept_string(Grammar.from_ebnf(words), completion.text)


def test_an_engine_without_a_prefix_refuses_one(
    vllm_engine: VllmEngine, table: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "_prefix", False)
    with pytest.raises(ConfigError, match="started without a visual prefix"):
        vllm_engine.generate([replace(FREE, prefix=table[:2])])
