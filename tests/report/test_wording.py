import random

from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.report.phrase import first, pick
from raypipe.report.plan import citation
from raypipe.report.reporter import ReportInput
from raypipe.report.sentence_checks import cited_ids, sentence_problems
from raypipe.report.wording import (
    counted_sentence,
    denied_sentence,
    finding_sentence,
    impression_line,
)
from tests.report.finding_sets import make_context, make_finding, plan_of, report_inputs


def _sentence(**fields: object) -> str:
    plan = plan_of(ReportInput((make_finding(**fields),), make_context()))  # type: ignore[arg-type]
    return first(finding_sentence(plan.told[0]))


def test_the_template_reads_like_a_report() -> None:
    assert _sentence() == (
        "There is a right pulmonary nodule, measuring 12 mm, with a mean attenuation of 35 HU [F1]."
    )
    assert _sentence(level="upper third", mean_hu=None) == (
        "There is a pulmonary nodule in the upper third of the right lung, measuring 12 mm [F1]."
    )
    assert _sentence(label="pleural_effusion", mean_hu=None, attributes={"shape": "crescent"}) == (
        "There is a crescentic right-sided pleural effusion, measuring 12 mm [F1]."
    )
    assert _sentence(label="emphysema", side="midline", mean_hu=None) == (
        "There is emphysema in the midline, measuring 12 mm [F1]."
    )
    attributes = {"density": "part_solid", "margin": "spiculated", "shape": "oval"}
    assert _sentence(side=None, mean_hu=None, attributes=attributes) == (
        "There is a part-solid pulmonary nodule, spiculated and oval, measuring 12 mm [F1]."
    )


def test_impression_lines_count_and_name_the_largest() -> None:
    findings = tuple(make_finding(n, diameter_mm=4.0 + n) for n in (1, 2, 3))
    plan = plan_of(ReportInput(findings, make_context()))
    assert first(impression_line(plan.impression[0])) == (
        "Three pulmonary nodules on the right, the largest measuring 7 mm [F1] [F2] [F3]."
    )
    assert first(impression_line(plan.impression[0][:1])) == "Right pulmonary nodule, 7 mm [F3]."


def test_counted_findings_are_cited_in_ranges() -> None:
    findings = tuple(make_finding(n, "liver_cyst" if n == 9 else "lung_mass") for n in range(1, 10))
    plan = plan_of(ReportInput(findings, make_context()))
    text = counted_sentence(plan.told)
    assert text == ("9 further findings were detected: 8 lung masses and 1 liver cyst [F1-F9].")
    assert cited_ids(text) == [f"F{n}" for n in range(1, 10)]
    assert citation([f for f in plan.told if f.finding_id in ("F2", "F3", "F7")]) == (
        "[F2] [F3] [F7]"
    )


def test_denied_findings_are_listed() -> None:
    plan = plan_of(ReportInput((), make_context(body_part="head")))
    assert first(denied_sentence(plan.denied)).startswith("No subdural haematoma, ")


@settings(max_examples=300)
@given(report_inputs(), st.randoms(use_true_random=False))
def test_every_wording_of_a_fact_reads_back_as_the_fact(
    one: ReportInput, rng: random.Random
) -> None:
    plan = plan_of(one)
    for fact in plan.told:
        text = pick(finding_sentence(fact), rng.randrange)
        assert sentence_problems(plan, text, full=True) == [], text
        assert text[0].isupper() and text.endswith(f"[{fact.finding_id}].")
        assert "  " not in text and " ," not in text and "_" not in text and "None" not in text
    for group in plan.impression:
        text = pick(impression_line(group), rng.randrange)
        assert sentence_problems(plan, text, full=False) == [], text
