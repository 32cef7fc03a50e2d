import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.report.config import ReportConfig
from raypipe.report.phrase import first, pick
from raypipe.report.reporter import ReportInput
from raypipe.report.sections import report_phrase
from raypipe.report.sentence_checks import cited_ids
from raypipe.report.verify import check, finished, read_back, repaired, verify
from raypipe.types import Sentence
from tests.report.finding_sets import make_context, make_finding, plan_of, report_inputs

TWO = ReportInput(
    (
        make_finding(1, level="upper third", attributes={"margin": "spiculated"}),
        make_finding(2, "pleural_effusion", side="left", diameter_mm=40.0, mean_hu=8.0),
    ),
    make_context(),
)
TRUE = (
    "FINDINGS:\n"
    "There is a spiculated pulmonary nodule in the upper third of the right lung, measuring 12 mm, "
    "with a mean attenuation of 35 HU [F1].\n"
    "A 40 mm left-sided pleural effusion is seen [F2].\n"
    "IMPRESSION:\n"
    "Left-sided pleural effusion, 40 mm [F2].\n"
    "Right pulmonary nodule, 12 mm [F1]."
)


def test_a_true_report_is_kept_word_for_word() -> None:
    plan = plan_of(TWO)
    text = TRUE
    verified = verify(plan, text)
    assert verified.replaced == () and verified.open == ()
    said = [s.text for s in (*verified.findings, *verified.impression)]
    assert said == [line for line in text.splitlines() if not line.isupper() and ":" not in line]
    assert [s.finding_ids for s in verified.findings] == [("F1",), ("F2",)]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("right lung", "left lung", "F1: the side differs"),
        ("right lung", "lung", "F1: the side differs"),
        ("upper third", "lower third", "F1: the level differs"),
        ("in the upper third of the", "in the", "F1: the level differs"),
        ("measuring 12 mm", "measuring 21 mm", "F1: the size differs"),
        ("measuring 12 mm", "measuring 12 cm", "F1: the size differs"),
        (", measuring 12 mm", "", "F1: the size differs"),
        ("35 HU", "-35 HU", "F1: the attenuation differs"),
        ("spiculated", "lobulated", "F1: the margin differs"),
        ("spiculated ", "", "F1: a property is missing"),
        ("pulmonary nodule in", "lung mass in", "F1: names another finding"),
        ("pulmonary nodule in", "lesion in", "F1: does not name its finding"),
        ("There is a spic", "There is no spic", "F1: denies a finding that it cites"),
        ("There is a spic", "There is possibly a spic", "F1: doubts its finding"),
        ("is seen [F2]", "and a rib fracture are seen [F2]", "F2: names another finding"),
        ("is seen [F2]", "is seen [F3]", "F2: is missing"),
        ("seen [F2].", "seen [F2].\nThere is a rib fracture.", "a sentence was left out"),
        ("Right pulmonary nodule, 12 mm", "Left pulmonary nodule, 12 mm", "F1: the side differs"),
        ("Left-sided pleural effusion, 40 mm [F2].\n", "", "F2: is missing"),
    ],
)
def test_a_planted_error_is_seen_and_mended(old: str, new: str, problem: str) -> None:
    assert old in TRUE
    verified = verify(plan_of(TWO), TRUE.replace(old, new, 1))
    assert any(problem in found for found in verified.replaced), verified.replaced
    assert verified.open == ()
    assert [s.finding_ids for s in verified.findings] == [("F1",), ("F2",)]
    assert all("rib fracture" not in s.text for s in verified.findings)


@pytest.mark.parametrize(
    "false",
    [
        "No pleural effusion was detected.",
        "No abnormality was detected by the model.",
        "The patient is healthy.",
        "There is a rib fracture.",
        "Follow-up in 3 months is advised.",
        "The model detected no.",
        "There is a finding.",
    ],
)
def test_a_false_statement_without_findings_is_replaced(false: str) -> None:
    one = ReportInput((make_finding(1, "pleural_effusion"),), make_context())
    plan = plan_of(one)
    true = first(report_phrase(plan))
    (denial,) = [line for line in true.splitlines() if line.startswith("No ")]
    verified = verify(plan, true.replace(denial, false))
    assert verified.replaced and verified.open == ()
    assert denial in [s.text for s in verified.findings]


@pytest.mark.parametrize("text", ["", "IMPRESSION:", "\n\n", "[F1]", "FINDINGS:\n[F1-F99999999]"])
def test_any_text_gives_a_true_report(text: str) -> None:
    plan = plan_of(TWO)
    verified = verify(plan, text)
    fixed = verify(plan, first(report_phrase(plan)))
    assert (verified.findings, verified.impression) == (fixed.findings, fixed.impression)
    assert verified.replaced and verified.open == ()


def test_nothing_found_is_said_only_where_it_is_true() -> None:
    plan = plan_of(ReportInput((), make_context(body_part=None)))
    text = first(report_phrase(plan))
    verified = verify(plan, text)
    assert verified.replaced == () and verified.impression[0].finding_ids == ()
    invented = verify(plan, text + "\nLeft lung mass, 30 mm [F1].")
    assert invented.replaced and all("mass" not in s.text for s in invented.impression)


def test_counted_findings_keep_their_ids() -> None:
    labels = ("pulmonary_nodule", "liver_cyst", "renal_cyst")  # told in another order than found
    findings = tuple(make_finding(n, labels[n % 3], diameter_mm=3.0 + n) for n in range(1, 31))
    plan = plan_of(ReportInput(findings, make_context()), ReportConfig(findings_limit=2))
    verified = verify(plan, first(report_phrase(plan)))
    assert verified.open == () and verified.replaced == ()
    assert len(verified.findings[-1].finding_ids) == 28
    assert {i for s in verified.findings for i in s.finding_ids} == set(plan.facts)


def test_counted_findings_are_cited_by_number_whatever_their_order() -> None:
    findings = (make_finding(1, "liver_cyst"), make_finding(2, "lung_mass"), make_finding(3))
    for language in ("en", "de"):
        config = ReportConfig(findings_limit=1, language=language)
        plan = plan_of(ReportInput(findings, make_context()), config)
        assert [fact.finding_id for fact in plan.counted] == ["F3", "F1"]
        verified = verify(plan, first(report_phrase(plan)))
        assert verified.findings[-1].finding_ids == ("F1", "F3") and verified.open == ()


def test_doubts_of_the_plan_ask_for_a_review() -> None:
    plan = plan_of(ReportInput((make_finding(side="sinister"),), make_context()))
    verified = verify(plan, first(report_phrase(plan)))
    assert verified.open == ("F1: its side is not of the terminology",)


def test_citations_are_read() -> None:
    assert cited_ids("x [F2] y [F7-F9].") == ["F2", "F7", "F8", "F9"]
    assert cited_ids("x F2 [f3] [F-1]") == []


@settings(max_examples=150)
@given(report_inputs(), st.randoms(use_true_random=False))
def test_every_report_of_the_grammar_is_true(one: ReportInput, rng: random.Random) -> None:
    plan = plan_of(one)
    verified = verify(plan, pick(report_phrase(plan), rng.randrange))
    assert verified.replaced == () and verified.open == ()


@settings(max_examples=100)
@given(report_inputs(max_findings=4), report_inputs(max_findings=4))
def test_the_report_of_another_series_never_gets_through(
    mine: ReportInput, other: ReportInput
) -> None:
    plan = plan_of(mine)
    verified = verify(plan, first(report_phrase(plan_of(other))))
    assert verified.open == ()
    assert [i for s in verified.findings for i in s.finding_ids] == [
        fact.finding_id for fact in plan.told
    ]


def test_what_is_claimed_and_denied_is_a_contradiction() -> None:
    plan = plan_of(TWO)
    good = verify(plan, TRUE)
    assert check(plan, good.findings, good.impression) == []
    denial = Sentence(text="No pleural effusion was detected.")
    problems = check(plan, (*good.findings, denial), good.impression)
    assert "pleural_effusion is both claimed and denied" in problems
    nothing = Sentence(text="No abnormality was detected by the model.")
    problems = check(plan, good.findings, (*good.impression, nothing))
    assert "says that there is nothing and claims a finding" in problems


def test_the_last_check_trusts_no_sentence() -> None:
    plan = plan_of(TWO)
    good = verify(plan, TRUE)
    stored_wrong = replace(good.findings[0], finding_ids=("F2",))
    assert "a sentence cites other findings than it is stored with" in check(
        plan, (stored_wrong, good.findings[1]), good.impression
    )
    assert "F2: cited 0 times in the findings" in check(plan, good.findings[:1], good.impression)
    assert "F2: cited 2 times in the findings" in check(
        plan, (*good.findings, good.findings[1]), good.impression
    )
    assert "F1: not once in the impression" in check(plan, good.findings, good.impression[:1])


def test_a_second_answer_takes_the_place_of_what_was_wrong_where_it_is_right() -> None:
    plan = plan_of(TWO)
    wrong = TRUE.replace("right lung", "left lung").replace("40 mm left", "4 mm left")
    draft = read_back(plan, wrong)
    assert [line.slot.finding_ids for line in draft.wrong] == [("F1",), ("F2",)]
    right = TRUE.splitlines()[1]
    once = repaired(draft, f"{right}\nA 4 mm left-sided pleural effusion is seen [F2].")
    assert once.findings[0].text == right and once.repairs == ("F1: the side differs",)
    assert [line.slot.finding_ids for line in once.wrong] == [("F2",)]
    for useless in ("", "\n\n", "nonsense", f"{TRUE.splitlines()[2]}\n{right}"):
        assert repaired(draft, useless) == draft
    verified = finished(once)
    assert verified.repaired == ("F1: the side differs",)
    assert verified.replaced == ("F2: the size differs",) and verified.open == ()


def test_the_true_line_is_kept_whatever_stands_before_it() -> None:
    plan = plan_of(TWO)
    false = "There is a pulmonary nodule in the left lung, measuring 12 mm [F1]."
    verified = verify(plan, TRUE.replace("FINDINGS:\n", f"FINDINGS:\n{false}\n"))
    assert verified.findings[0].text == TRUE.splitlines()[1]
    assert verified.replaced == ("a sentence was left out that no finding asks for",)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("There is a spiculated", "There is _no_ spiculated", "F1: denies a finding that it cites"),
        ("There is a spic", "Can not exclude a spic", "F1: doubts its finding"),
        ("nodule in", "nodules in", "F1: speaks of several where there is one"),
        ("measuring 12 mm", "measuring <12 mm", "F1: says something that cannot be read"),
        ("measuring 12 mm", "measuring 1,200 mm", "F1: counts what is one"),
        ("measuring 12 mm", "measuring 11.6 mm", "F1: the size differs"),
        ("35 HU", "\u201335 HU", "F1: the attenuation differs"),
        ("35 HU", "35.4 HU", "F1: the attenuation differs"),
        ("35 HU", "1" * 400 + " HU", "F1: the attenuation differs"),
        ("35 HU [F1]", "35 HU [F01]", "F1: is missing"),
        ("35 HU [F1]", "35 HU [F1" + "1" * 5000 + "]", "F1: is missing"),
    ],
)
def test_an_error_in_small_signs_is_seen_and_mended(old: str, new: str, problem: str) -> None:
    assert old in TRUE
    verified = verify(plan_of(TWO), TRUE.replace(old, new, 1))
    assert any(problem in found for found in verified.replaced), verified.replaced
    assert verified.open == ()


REST = "The remaining findings are described above."


def test_a_statement_without_findings_has_its_own_place() -> None:
    nothing = plan_of(ReportInput((), make_context()))
    text = first(report_phrase(nothing))
    denial, none = text.splitlines()[1], text.splitlines()[3]
    for old, new in ((none, REST), (none, denial), (denial, none), (denial, REST)):
        head, tail = text.split("\nIMPRESSION:")
        wrong = (
            f"{head}\nIMPRESSION:{tail.replace(old, new)}"
            if old == none
            else (f"{head.replace(old, new)}\nIMPRESSION:{tail}")
        )
        verified = verify(nothing, wrong)
        assert verified.replaced, (old, new)
        assert [s.text for s in (*verified.findings, *verified.impression)] == [denial, none]


def test_the_rest_is_spoken_of_only_where_there_is_one() -> None:
    plan = plan_of(TWO)
    assert verify(plan, f"{TRUE}\n{REST}").replaced
    good = verify(plan, TRUE)
    assert "speaks of further findings where there are none" in check(
        plan, good.findings, (*good.impression, Sentence(text=REST))
    )
    short = plan_of(TWO, ReportConfig(impression_limit=1))
    left_out = "Right pulmonary nodule, 12 mm [F1]."
    assert verify(short, TRUE.replace(left_out, REST)).replaced == ()
