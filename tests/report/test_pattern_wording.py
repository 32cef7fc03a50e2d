"""German stands for every language that its file of terms writes by patterns."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.report.config import ReportConfig
from raypipe.report.phrase import first, pick
from raypipe.report.reporter import Reporter, ReportInput
from raypipe.report.request import build_request
from raypipe.report.sections import findings_slots, impression_slots, report_phrase
from raypipe.report.verify import verify
from raypipe.types import Flag
from tests.report.finding_sets import make_context, make_finding, plan_of, report_inputs
from tests.report.random_engine import RandomEngine

GERMAN = ReportConfig(language="de")
INPUT = ReportInput(
    (
        make_finding(1, level="upper third", attributes={"margin": "spiculated"}),
        make_finding(2, "pleural_effusion", side="left", diameter_mm=4.63, mean_hu=8.0),
        make_finding(3, diameter_mm=7.0, mean_hu=None),
    ),
    make_context(contrast=True, kvp=120.0, thickness_mm=2.5),
)


def test_a_report_in_german() -> None:
    (report,) = Reporter(ReportConfig(language="de", engine="template")).describe([INPUT])
    assert [s.text for s in report.findings[:3]] == [
        "Lungenrundherd im Oberfeld rechts, Größe 12 mm, spikuliert, mittlere Dichte 35 HE [F1].",
        "Lungenrundherd rechts, Größe 7 mm [F3].",
        "Pleuraerguss links, Größe 4,6 mm, mittlere Dichte 8 HE [F2].",
    ]
    assert [s.text for s in report.impression] == [
        "Pleuraerguss links, Größe 4,6 mm [F2].",
        "Lungenrundherde rechts, Anzahl 2, größter Durchmesser 12 mm [F1] [F3].",
    ]
    assert report.technique == (
        "CT Thorax mit Kontrastmittel, 120 kV. 100 Schichten, Abstand 2,5 mm, Dicke 2,5 mm, "
        "Pixel 0,78 mm. Gelesen von einem automatischen Modell."
    )
    assert not report.needs_review


def test_nothing_found_in_german() -> None:
    nothing = ReportInput((), make_context(body_part="abdomen", flags=(Flag.NO_GEOMETRY,)))
    (report,) = Reporter(ReportConfig(language="de", engine="template")).describe([nothing])
    assert report.findings[0].text.startswith("Kein Nachweis von: ")
    assert report.impression[0].text.startswith("Kein auffälliger Befund")
    assert "ohne Maßstab" in report.technique and not report.needs_review


def test_the_request_is_german() -> None:
    request = build_request(plan_of(INPUT, GERMAN), GERMAN)
    system, user = request.messages
    assert "auf Deutsch" in system.content
    assert "[F2] Pleuraerguss; links; 4,6 mm; 8 HE" in user.content
    assert request.example.startswith("BEFUND:\n") and "BEURTEILUNG:\n" in request.example


def test_planted_errors_are_seen_in_german() -> None:
    plan = plan_of(INPUT, GERMAN)
    true = first(report_phrase(plan))
    assert verify(plan, true).replaced == ()
    for old, new in (
        ("Oberfeld rechts", "Oberfeld links"), ("Oberfeld", "Unterfeld"), ("4,6 mm", "4,6 cm"),
        ("spikuliert", "rund"), ("35 HE", "36 HE"), ("Anzahl 2", "Anzahl 3"),
        ("Pleuraerguss links", "Kein Pleuraerguss links"), (" links", ""),
        ("Lungenrundherd", "Nierenstein"), ("[F2]", "[F3]"), ("[F1]", "[F9]"),
        ("Pleuraerguss links", "V. a. Pleuraerguss links"), ("Größe 12 mm", "Größe 7 mm"),
        ("Pleuraerguss links", "Unveränderter Pleuraerguss links"),
        ("12 mm", "12 mm, zuvor 8 mm"), ("links, Größe", "links, Biopsie empfohlen, Größe"),
    ):  # fmt: skip
        assert old in true
        assert verify(plan, true.replace(old, new, 1)).replaced, (old, new)


@settings(max_examples=100)
@given(report_inputs(detected_only=True), st.randoms(use_true_random=False))
def test_every_german_report_of_the_grammar_is_true(one: ReportInput, rng: random.Random) -> None:
    plan = plan_of(one, GERMAN)
    verified = verify(plan, pick(report_phrase(plan), rng.randrange))
    assert verified.replaced == () and verified.open == ()
    for slot in (*findings_slots(plan), *impression_slots(plan)):
        text = pick(slot.phrase, rng.randrange)
        assert "  " not in text and " ," not in text and "{" not in text and "None" not in text
    reporter = Reporter(ReportConfig(language="de", findings_limit=2), RandomEngine(rng))
    (report,) = reporter.describe([one])
    assert not report.needs_review and reporter.throughput.replaced == 0
