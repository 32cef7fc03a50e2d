"""The real engine with the real model; one engine serves all tests but the last."""

import os
import signal
from dataclasses import replace

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.errors import EngineError
from raypipe.report.config import ReportConfig
from raypipe.report.engine import FinishReason, GenerationRequest, Message
from raypipe.report.model_source import ModelSource, find_model
from raypipe.report.reporter import Reporter, ReportInput
from raypipe.report.request import build_request
from raypipe.report.vllm_engine import VllmEngine, environment, start_environment
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


def _processes(parent: psutil.Process) -> list[psutil.Process]:
    return [p for p in parent.children(recursive=True) if "EngineCore" in " ".join(p.cmdline())]


def test_reports_are_written_by_the_model(vllm_engine: VllmEngine) -> None:
    reporter = Reporter(CONFIG, vllm_engine)
    reports = reporter.describe(INPUTS)
    assert [r.model for r in reports] == ["SmolLM2-135M-Instruct"] * 3
    assert all(r.tokens > 20 and not r.needs_review for r in reports)
    assert reporter.throughput.replaced == 0 and reporter.throughput.failed == 0
    assert reports[2].impression[-1].finding_ids == ()


@settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(report_inputs(max_findings=4, detected_only=True), min_size=10, max_size=10))
def test_random_finding_sets_give_true_reports(
    vllm_engine: VllmEngine, inputs: list[ReportInput]
) -> None:
    reporter = Reporter(CONFIG, vllm_engine)
    for one, report in zip(inputs, reporter.describe(inputs), strict=True):
        assert not report.needs_review, report.review_reasons
        cited = [i for s in report.findings for i in s.finding_ids]
        assert sorted(cited) == sorted(f.finding_id for f in one.findings)
    assert reporter.throughput.replaced == 0


def test_the_text_does_not_depend_on_the_batch(vllm_engine: VllmEngine) -> None:
    many = _requests() * 4
    together = [c.text for c in vllm_engine.generate(many)]
    alone = [vllm_engine.generate([request])[0].text for request in _requests()]
    assert together == alone * 4


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


def test_a_killed_engine_comes_back_and_close_stops_it(vllm_engine: VllmEngine) -> None:
    # last of the file, because it restarts the shared engine
    (process,) = _processes(psutil.Process())
    process.send_signal(signal.SIGKILL)
    (completion,) = vllm_engine.generate(_requests()[2:])
    assert completion.finish_reason is FinishReason.STOP
    (again,) = _processes(psutil.Process())
    assert again.pid != process.pid
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
