"""Mutation test of the verifier: hundreds of reports for every kind of planted error."""

import random

import pytest
from rich.console import Console
from rich.table import Table

from raypipe.report.phrase import pick
from raypipe.report.reporter import ReportInput
from raypipe.report.sections import report_phrase
from raypipe.report.verify import verify
from tests.report.finding_sets import plan_of, random_input
from tests.report.mutations import KINDS, Case

CASES = 300
LEAST_CAUGHT = 0.99


def _case(rng: random.Random) -> tuple[ReportInput, Case]:
    one = random_input(rng)
    text = pick(report_phrase(plan_of(one)), rng.randrange)
    return one, Case(text, {f.finding_id: f for f in one.findings}, rng)


def _caught(kind: str) -> tuple[int, list[str]]:
    """Planted errors of a kind, and the texts whose error the verifier did not see."""
    rng = random.Random(kind)
    planted, missed = 0, []
    for _ in range(60 * CASES):
        one, case = _case(rng)
        text = KINDS[kind](case)
        if text is None or text == case.text:
            continue
        planted += 1
        verified = verify(plan_of(one), text)
        if not verified.replaced and not verified.open:
            missed.append(text)
        assert not verified.open, "what is mended is true"
        if planted == CASES:
            break
    return planted, missed


@pytest.mark.slow
def test_planted_errors_are_caught(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("planted error", "reports", "caught", "share", title="Verifier, mutation test")
    shares = {}
    for kind in KINDS:
        planted, missed = _caught(kind)
        assert planted == CASES, f"{kind}: only {planted} reports could be spoiled"
        shares[kind] = 1.0 - len(missed) / planted
        caught = planted - len(missed)
        table.add_row(kind.replace("_", " "), str(planted), str(caught), f"{shares[kind]:.1%}")
        if missed:
            table.add_row(f"  first missed: {missed[0]!r}")
    with capsys.disabled():
        Console(width=100).print(table)
    assert len(shares) >= 12
    assert {kind: share for kind, share in shares.items() if share < LEAST_CAUGHT} == {}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_error_is_caught(kind: str) -> None:
    rng = random.Random(f"few {kind}")
    for _ in range(2000):
        one, case = _case(rng)
        text = KINDS[kind](case)
        if text is not None and text != case.text:
            assert verify(plan_of(one), text).replaced, text
            return
    pytest.fail(f"{kind}: no report could be spoiled")
