"""No report leaves the generator that says what its input lacks, or omits what it has.

Two thousand random finding sets, each through an engine that follows the grammar at random and one
that does not; an oracle that shares no code with the verifier reads what came out.
"""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raypipe.report.config import ReportConfig
from raypipe.report.reporter import Reporter, ReportInput
from tests.report.finding_sets import make_context, make_finding, report_inputs
from tests.report.oracle import untruths
from tests.report.random_engine import RandomEngine, SloppyEngine

CONFIGS = (ReportConfig(), ReportConfig(findings_limit=3, impression_limit=2))
RELAXED = settings(suppress_health_check=list(HealthCheck), database=None)


def _check(one: ReportInput, seed: int, config: ReportConfig) -> None:
    rng = random.Random(seed)
    followed = Reporter(config, RandomEngine(rng))
    (report,) = followed.describe([one])
    assert not report.needs_review, report.review_reasons
    assert followed.throughput.replaced == followed.throughput.repaired == 0
    assert untruths(one, report) == []
    (mended,) = Reporter(config, SloppyEngine(rng)).describe([one])
    assert mended.needs_review or untruths(one, mended) == []


@pytest.mark.slow
@settings(RELAXED, max_examples=2000)
@given(report_inputs(), st.integers(0, 2**32), st.sampled_from(CONFIGS))
def test_two_thousand_finding_sets_give_true_reports(
    one: ReportInput, seed: int, config: ReportConfig
) -> None:
    _check(one, seed, config)


@settings(RELAXED, max_examples=60)
@given(report_inputs(max_findings=4), st.integers(0, 2**32), st.sampled_from(CONFIGS))
def test_finding_sets_give_true_reports(one: ReportInput, seed: int, config: ReportConfig) -> None:
    _check(one, seed, config)


def test_the_oracle_sees_untruths() -> None:
    one = ReportInput((make_finding(1), make_finding(2, "lung_mass", side="left")), make_context())
    (report,) = Reporter(ReportConfig(engine="template")).describe([one])
    assert untruths(one, report) == []
    for other in (
        ReportInput((make_finding(1), make_finding(2, "lung_mass")), one.context),
        ReportInput((make_finding(1), make_finding(2, "gallstone", side="left")), one.context),
        ReportInput((make_finding(1, diameter_mm=13.0), one.findings[1]), one.context),
        ReportInput((make_finding(1, level="upper third"), one.findings[1]), one.context),
        ReportInput((one.findings[0],), one.context),
        ReportInput((*one.findings, make_finding(3)), one.context),
    ):
        try:
            assert untruths(other, report)
        except KeyError:
            continue  # a finding is cited that there is not
