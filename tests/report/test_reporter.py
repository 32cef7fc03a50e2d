import pytest

from raypipe.errors import EngineError
from raypipe.report.config import ReportConfig, VllmConfig
from raypipe.report.engine import Completion, EchoEngine, FinishReason, GenerationRequest
from raypipe.report.reporter import TEMPLATE_NAME, Reporter, ReportInput
from tests.report.finding_sets import make_context, make_finding

NODULE = ReportInput((make_finding(),), make_context())
NOTHING = ReportInput((), make_context())


class BrokenEngine(EchoEngine):
    """Ends every second request before its time."""

    def generate(self, requests: list[GenerationRequest]) -> list[Completion]:  # type: ignore[override]
        reasons = [FinishReason.STOP, FinishReason.LENGTH]
        return [
            Completion(text=r.example, tokens=5, finish_reason=reasons[i % 2], seconds=1.0)
            for i, r in enumerate(requests)
        ]


class DeadEngine(EchoEngine):
    def generate(self, requests: object) -> list[Completion]:
        raise EngineError("dead")


def test_the_template_reporter_needs_no_model() -> None:
    reporter = Reporter(ReportConfig(engine="template"))
    found, nothing = reporter.describe([NODULE, NOTHING])
    assert found.model == TEMPLATE_NAME and found.tokens == 0 and not found.needs_review
    assert found.technique.startswith("CT of the chest.")
    assert [s.finding_ids for s in found.findings] == [("F1",), ()]
    assert [s.text for s in found.impression] == ["Right pulmonary nodule, 12 mm [F1]."]
    assert [s.text for s in nothing.impression] == ["No abnormality was detected by the model."]
    assert reporter.throughput.reports == 2
    reporter.close()


def test_all_inputs_are_one_submission() -> None:
    engine = EchoEngine()
    reporter = Reporter(ReportConfig(), engine)
    reports = reporter.describe([NODULE, NOTHING, NODULE])
    assert len(engine.requests) == 3 and len(reports) == 3
    assert reports[0] == reports[2] and reports[0].model == engine.name
    assert reporter.throughput.tokens == sum(report.tokens for report in reports) > 0
    assert reporter.describe([]) == []


def test_a_request_that_fails_costs_only_itself() -> None:
    reporter = Reporter(ReportConfig(), BrokenEngine())
    whole, cut = reporter.describe([NODULE, NODULE])
    assert not whole.needs_review and whole.model == BrokenEngine.name
    assert cut.needs_review and "length" in cut.review_reasons[0]
    assert cut.model == TEMPLATE_NAME and cut.findings == whole.findings
    assert reporter.throughput.failed == 1


def test_a_dead_engine_raises() -> None:
    with pytest.raises(EngineError):
        Reporter(ReportConfig(), DeadEngine()).describe([NODULE])


def test_what_a_model_invents_never_leaves() -> None:
    def lie(request: GenerationRequest) -> str:
        return request.example.replace("right", "left").replace("No pleural", "A pleural")

    reporter = Reporter(ReportConfig(), EchoEngine(lie))
    (report,) = reporter.describe([NODULE])
    text = " ".join(s.text for s in (*report.findings, *report.impression))
    assert "left" not in text and "right" in text and "A pleural" not in text
    assert not report.needs_review and reporter.throughput.replaced == 2


def test_a_small_model_tells_fewer_findings_one_by_one() -> None:
    findings = tuple(make_finding(n) for n in range(1, 17))
    engine = EchoEngine()
    small = ReportConfig(vllm=VllmConfig(max_model_len=1600))
    (report,) = Reporter(small, engine).describe([ReportInput(findings, make_context())])
    assert 1 < len(report.findings) < 16
    assert {i for s in report.findings for i in s.finding_ids} == {f.finding_id for f in findings}
    assert engine.requests[0].max_tokens < 1600


def test_warming_up_counts_nothing() -> None:
    engine = EchoEngine()
    reporter = Reporter(ReportConfig(), engine)
    reporter.warm_up()
    assert len(engine.requests) == 1 and reporter.throughput.tokens == 0


def test_an_engine_of_the_caller_is_not_closed() -> None:
    class Counting(EchoEngine):
        closed = 0

        def close(self) -> None:
            self.closed += 1

    engine = Counting()
    Reporter(ReportConfig(), engine).close()
    assert engine.closed == 0
