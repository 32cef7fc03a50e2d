"""The real engine with the real model; one engine serves all tests but the last."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from raypipe.errors import ConfigError, EngineError
from raypipe.report.adapter import AdapterSource, describe_adapter
from raypipe.report.config import DecodingConfig, ReportConfig
from raypipe.report.engine import Decoding, FinishReason, GenerationRequest, Message
from raypipe.report.model_source import ModelSource, find_model
from raypipe.report.reporter import Reporter, ReportInput
from raypipe.report.request import build_request
from raypipe.report.vllm_engine import VllmEngine
from raypipe.report.vllm_settings import engine_arguments, environment, start_environment
from tests.report.adapters import merged_text, write_adapter
from tests.report.conftest import SMALL
from tests.report.finding_sets import make_context, make_finding, plan_of, report_inputs

pytestmark = pytest.mark.slow

CONFIG = ReportConfig(vllm=SMALL)
INPUTS = [
    ReportInput(
        (make_finding(1), make_finding(2, "pleural_effusion", side="left")), make_context()
    ),
    ReportInput((make_finding(1, "renal_cyst", side="left"),), make_context(body_part="abdomen")),
    ReportInput((), make_context(body_part="head")),
]


def _requests() -> list[GenerationRequest]:
    return [build_request(plan_of(one, CONFIG), CONFIG) for one in INPUTS]


def test_prompts_share_whole_blocks_of_the_cache() -> None:
    from transformers import AutoTokenizer

    source = find_model("smollm2")
    tokenizer = AutoTokenizer.from_pretrained(source.location)
    prompts = [
        tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in request.messages], return_dict=False
        )
        for request in _requests()
    ]
    shared = [len(set(tokens)) == 1 for tokens in zip(*prompts, strict=False)].index(False)
    block = engine_arguments(source, SMALL)["block_size"]
    assert shared // block >= 1


FREE = GenerationRequest(
    messages=(Message(role="user", content="Describe a pulmonary nodule in one sentence."),),
    grammar=None,
    max_tokens=24,
)


@pytest.fixture(scope="module")
def adapters(
    vllm_engine: VllmEngine, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, AdapterSource]:
    """Two adapters of random weights, and one that changes nothing; the engine knows them."""
    folder = tmp_path_factory.mktemp("adapters")
    model = find_model("smollm2").location
    made = {
        "chest-v1": write_adapter(folder / "chest-v1", model, seed=1),
        "chest-v2": write_adapter(folder / "chest-v2", model, seed=2),
        "nothing": write_adapter(folder / "nothing", model, scale=0.0),
    }
    sources = {name: describe_adapter(name, path) for name, path in made.items()}
    for source in sources.values():
        vllm_engine.add_adapter(source)
    return sources


def _text(engine: VllmEngine, adapter: str | None, request: GenerationRequest = FREE) -> str:
    return engine.generate([replace(request, adapter=adapter)])[0].text


def _processes(parent: psutil.Process) -> list[psutil.Process]:
    return [p for p in parent.children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]


def test_reports_are_written_by_the_model(vllm_engine: VllmEngine) -> None:
    reporter = Reporter(CONFIG, vllm_engine)
    reports = reporter.describe(INPUTS)
    assert [r.model for r in reports] == ["SmolLM2-135M-Instruct"] * 3
    assert all(r.tokens > 20 and not r.needs_review for r in reports)
    assert reporter.throughput.replaced == 0 and reporter.throughput.failed == 0
    assert reports[2].impression[-1].finding_ids == ()


@settings(max_examples=2, suppress_health_check=list(HealthCheck))
@given(st.lists(report_inputs(max_findings=3, detected_only=True), min_size=8, max_size=8))
def test_random_finding_sets_give_true_reports(
    vllm_engine: VllmEngine, inputs: list[ReportInput]
) -> None:
    reporter = Reporter(CONFIG, vllm_engine)
    for one, report in zip(inputs, reporter.describe(inputs), strict=True):
        assert not report.needs_review, report.review_reasons
        cited = [i for s in report.findings for i in s.finding_ids]
        assert sorted(cited) == sorted(f.finding_id for f in one.findings)
    assert reporter.throughput.replaced == 0


@pytest.fixture(scope="module")
def alone(vllm_engine: VllmEngine) -> list[str]:
    """What each request gets when there is no other."""
    return [vllm_engine.generate([request])[0].text for request in _requests()]


def test_the_text_does_not_depend_on_the_batch(vllm_engine: VllmEngine, alone: list[str]) -> None:
    many = _requests() * 2
    together = [c.text for c in vllm_engine.generate(many)]
    assert together == alone * 2


def test_concurrent_calls_get_their_own_answers(vllm_engine: VllmEngine, alone: list[str]) -> None:
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(vllm_engine.generate, [request] * 2) for request in _requests()]
        texts = [[c.text for c in call.result()] for call in calls]
    assert texts == [[text] * 2 for text in alone]
    assert vllm_engine._in_flight == 0


def test_an_adapter_changes_the_text_and_its_id_names_it(
    vllm_engine: VllmEngine, adapters: dict[str, AdapterSource]
) -> None:
    base, first, second = (_text(vllm_engine, a) for a in (None, "chest-v1", "chest-v2"))
    assert len({base, first, second}) == 3
    model, folder = find_model("smollm2").location, adapters["chest-v1"].folder
    assert merged_text(model, folder, FREE.messages[0].content, FREE.max_tokens) == first
    assert _text(vllm_engine, "nothing") == base
    # several adapters in one batch give what each gives alone
    mixed = [replace(FREE, adapter=a) for a in ("chest-v2", None, "chest-v1")]
    assert [c.text for c in vllm_engine.generate(mixed)] == [second, base, first]
    source = adapters["chest-v1"]
    assert vllm_engine.name_with("chest-v1") == (
        f"SmolLM2-135M-Instruct + chest-v1 ({source.weights_hash})"
    )
    with pytest.raises(ConfigError, match="no adapter 'chest-v9'"):
        _text(vllm_engine, "chest-v9")


def test_an_adapter_that_does_not_fit_is_refused(vllm_engine: VllmEngine, tmp_path: Path) -> None:
    model = find_model("smollm2").location
    high = describe_adapter("high", write_adapter(tmp_path / "high", model, rank=32))
    with pytest.raises(ConfigError, match="max_lora_rank is 8"):
        vllm_engine.add_adapter(high)
    broken = write_adapter(tmp_path / "broken", model)
    (broken / "adapter_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ConfigError, match="does not fit"):
        vllm_engine.add_adapter(describe_adapter("broken", broken))
    assert vllm_engine.generate([FREE])[0].finish_reason is not FinishReason.ERROR
    with pytest.raises(ConfigError, match="no adapter 'broken'"):
        _text(vllm_engine, "broken")


def test_several_draws_are_true_and_ranked(vllm_engine: VllmEngine) -> None:
    best_of = Decoding(method="best_of", temperature=1.5, width=4, seed=3)
    request = replace(_requests()[1], decoding=best_of)
    (completion,) = vllm_engine.generate([request])
    (again,) = vllm_engine.generate([request])
    chances = [c.log_probability for c in completion.candidates]
    assert len(chances) == 4 and chances == sorted(chances, reverse=True) and chances[0] < 0
    assert len({c.text for c in completion.candidates}) > 1
    assert completion.text == completion.candidates[0].text
    assert [c.text for c in again.candidates] == [c.text for c in completion.candidates]
    config = CONFIG.model_copy(update={"decoding": DecodingConfig(method="best_of")})
    reports = Reporter(config, vllm_engine).describe(INPUTS[1:])
    assert not any(report.needs_review for report in reports)


def test_a_beam_search_keeps_to_the_grammar(vllm_engine: VllmEngine) -> None:
    request = _requests()[1]
    assert request.grammar is not None
    beam = Decoding(method="beam", width=3)
    (completion,) = vllm_engine.generate([replace(request, decoding=beam)])
    assert completion.finish_reason is FinishReason.STOP and completion.candidates
    grammar = Grammar.from_ebnf(request.grammar)
    for candidate in completion.candidates:
        assert _is_grammar_accept_string(grammar, candidate.text), candidate.text
    chances = [c.log_probability for c in completion.candidates]
    assert chances == sorted(chances, reverse=True) and chances[0] < 0
    no_grammar = replace(request, decoding=beam, grammar="root ::= (")
    assert vllm_engine.generate([no_grammar])[0].finish_reason is FinishReason.ERROR


def test_a_request_that_fails_costs_only_itself(vllm_engine: VllmEngine) -> None:
    good = _requests()[2]
    cut = replace(good, max_tokens=5)
    too_long = replace(good, messages=(Message(role="user", content="long " * 9000),))
    no_grammar = replace(good, grammar="root ::= (")
    completions = vllm_engine.generate([cut, good, too_long, no_grammar])
    assert [c.finish_reason for c in completions] == [
        FinishReason.LENGTH,
        FinishReason.STOP,
        FinishReason.ERROR,
        FinishReason.ERROR,
    ]
    assert completions[0].tokens == 5 and completions[1].tokens > 5


def test_a_time_limit_ends_a_request(
    vllm_engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_engine, "_request_timeout_s", 0.05)
    message = Message(role="user", content="Count to a million.")
    endless = GenerationRequest(messages=(message,), grammar=None, max_tokens=2000)
    assert vllm_engine.generate([endless])[0].finish_reason is FinishReason.TIMEOUT


def test_the_environment_is_put_back(vllm_engine: VllmEngine) -> None:
    assert not {n for n in os.environ if n.startswith("VLLM_")} & set(
        start_environment(find_model("smollm2"), SMALL)
    )
    before = dict(os.environ)
    with environment({"RAYPIPE_A": "1", "PATH": "x"}):
        os.environ["RAYPIPE_B"] = "2"
        assert os.environ["PATH"] == "x"
    assert dict(os.environ) == before


def test_a_killed_engine_comes_back_and_close_stops_it(
    vllm_engine: VllmEngine, adapters: dict[str, AdapterSource]
) -> None:
    # last of the file, because it restarts the shared engine
    adapted = _text(vllm_engine, "chest-v1")
    (process,) = _processes(psutil.Process())
    process.send_signal(signal.SIGKILL)
    (completion,) = vllm_engine.generate(_requests()[2:])
    assert completion.finish_reason is FinishReason.STOP
    (again,) = _processes(psutil.Process())
    assert again.pid != process.pid
    assert _text(vllm_engine, "chest-v1") == adapted  # another engine, the same id
    vllm_engine.close()
    vllm_engine.close()
    _, alive = psutil.wait_procs([again], timeout=30)
    assert alive == []
    with pytest.raises(EngineError, match="closed"):
        vllm_engine.generate(_requests())


def test_an_engine_that_cannot_start_says_so() -> None:
    source = ModelSource(location="/no/such/model", name="none", local=True)
    with pytest.raises(EngineError, match="did not start"):
        VllmEngine(source, SMALL)
