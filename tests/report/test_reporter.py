import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from raypipe.errors import EngineError
from raypipe.report.config import DecodingConfig, ReportConfig, VllmConfig
from raypipe.report.engine import (
    Candidate,
    Completion,
    EchoEngine,
    FinishReason,
    GenerationRequest,
)
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

    engine = EchoEngine(lie)
    reporter = Reporter(ReportConfig(), engine)
    (report,) = reporter.describe([NODULE])
    text = " ".join(s.text for s in (*report.findings, *report.impression))
    assert "left" not in text and "right" in text and "A pleural" not in text
    assert not report.needs_review and reporter.throughput.replaced >= 3
    assert reporter.throughput.repaired == 0 and len(engine.requests) == 2


def test_what_was_refused_is_asked_for_once_more_and_alone() -> None:
    def learns(request: GenerationRequest) -> str:
        whole = request.example.startswith("FINDINGS:")
        return request.example.replace("right", "left", 1) if whole else request.example

    engine = EchoEngine(learns)
    reporter = Reporter(ReportConfig(), engine)
    two = ReportInput((*NODULE.findings, make_finding(2, "lung_mass")), make_context())
    mended, fine = reporter.describe([two, NOTHING])
    _, _, repair = engine.requests
    assert repair.example.count("\n") == 0 and repair.example.endswith("[F2].")
    assert "[F2]" in repair.messages[1].content and "[F1]" not in repair.messages[1].content
    assert repair.grammar is not None and engine.requests[0].grammar is not None
    assert len(repair.grammar) < len(engine.requests[0].grammar) / 2
    assert (reporter.throughput.repaired, reporter.throughput.replaced) == (1, 0)
    assert not mended.needs_review and not fine.needs_review
    assert mended.model == engine.name and mended.tokens > len(repair.example.split())


def test_repair_can_be_left_out() -> None:
    engine = EchoEngine(lambda request: "nonsense")
    reporter = Reporter(ReportConfig(repair=False), engine)
    (report,) = reporter.describe([NODULE])
    assert len(engine.requests) == 1 and not report.needs_review
    (fixed,) = Reporter(ReportConfig(engine="template")).describe([NODULE])
    assert report.findings == fixed.findings and report.impression == fixed.impression


class SeveralAnswers(EchoEngine):
    """Gives several candidates, the likeliest of which is false."""

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        self.requests += requests
        out = []
        for request in requests:
            assert request.decoding.width > 1
            seen = request.example.replace("There is a right", "A right")
            seen = seen.replace(", m", " is seen, m", 1)
            texts = [
                request.example.replace("right", "left"),
                request.example.replace("There is a right", "A right").replace(
                    ", m", " is seen, m"
                ),
                request.example,
            ]
            candidates = tuple(Candidate(text=t, log_probability=-n) for n, t in enumerate(texts))
            out.append(
                Completion(
                    text=texts[0],
                    tokens=9,
                    finish_reason=FinishReason.STOP,
                    seconds=0.0,
                    candidates=candidates,
                )
            )
        return out


@pytest.mark.parametrize("method", ["best_of", "beam"])
def test_the_likeliest_candidate_without_errors_is_taken(method: str) -> None:
    config = ReportConfig(decoding=DecodingConfig.model_validate({"method": method}))
    engine = SeveralAnswers()
    reporter = Reporter(config, engine)
    (report,) = reporter.describe([NODULE])
    assert report.findings[0].text.startswith("A right pulmonary nodule is seen, measuring 12 mm")
    assert reporter.throughput.replaced == 0 and len(engine.requests) == 1


def test_every_sentence_keeps_its_score() -> None:
    findings = (make_finding(1, score=0.9), make_finding(2, score=0.41, diameter_mm=4.0))
    counted = make_finding(3, "gallstone", score=0.3, side=None, diameter_mm=2.0)
    one = ReportInput((*findings, counted), make_context())
    config = ReportConfig(engine="template", findings_limit=2)
    (report,) = Reporter(config).describe([one])
    scores = {s.finding_ids: s.score for s in (*report.findings, *report.impression)}
    assert scores[("F1",)] == 0.9 and scores[("F2",)] == 0.41 and scores[("F1", "F2")] == 0.41
    assert scores[("F3",)] == 0.3
    assert scores[()] is None


def test_the_adapter_of_the_config_is_asked_for_and_named() -> None:
    engine = EchoEngine()
    config = ReportConfig(adapters={"chest-v1": "/weights"}, adapter="chest-v1")
    (report,) = Reporter(config, engine).describe([NODULE])
    assert engine.requests[0].adapter == "chest-v1"
    assert report.model == f"{engine.name} + chest-v1"


def test_several_threads_get_their_own_reports() -> None:
    class Slow(EchoEngine):
        """Answers late and never two calls in the order in which they came."""

        def __init__(self) -> None:
            super().__init__()
            self.most = self.now = 0
            self.lock = threading.Lock()

        def generate(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
            with self.lock:
                self.now += 1
                self.most = max(self.most, self.now)
            time.sleep(0.002 * (len(requests[0].example) % 7))
            answers = super().generate(requests)
            with self.lock:
                self.now -= 1
            return answers

    engine = Slow()
    reporter = Reporter(ReportConfig(), engine)
    sizes = [float(size) for size in range(3, 63)]
    inputs = [ReportInput((make_finding(diameter_mm=mm),), make_context()) for mm in sizes]
    with ThreadPoolExecutor(6) as pool:
        reports = list(pool.map(lambda one: reporter.describe([one, one]), inputs))
    assert engine.most > 1
    for mm, (first, second) in zip(sizes, reports, strict=True):
        assert first == second and f"{mm:.0f} mm [F1]" in first.impression[0].text
    assert reporter.throughput.reports == 2 * len(sizes)
    assert reporter.throughput.tokens == sum(r.tokens for pair in reports for r in pair)


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
