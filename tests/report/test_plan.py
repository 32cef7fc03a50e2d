import pytest

from raypipe.errors import ConfigError
from raypipe.report.config import ReportConfig
from raypipe.report.reporter import ReportInput
from raypipe.types import Flag
from tests.report.finding_sets import make_context, make_finding, plan_of


def test_findings_are_told_by_organ_and_size() -> None:
    findings = (
        make_finding(1, "liver_cyst", side=None),
        make_finding(2, "pulmonary_nodule", diameter_mm=5.0),
        make_finding(3, "pulmonary_nodule", diameter_mm=15.0),
    )
    plan = plan_of(ReportInput(findings, make_context()))
    assert [fact.finding_id for fact in plan.told] == ["F3", "F2", "F1"]


def test_the_impression_begins_with_the_most_pressing() -> None:
    findings = (
        make_finding(1, "renal_cyst", diameter_mm=80.0),
        make_finding(2, "pneumothorax"),
        make_finding(3, "renal_mass"),
    )
    plan = plan_of(ReportInput(findings, make_context()), ReportConfig(impression_limit=2))
    assert [[f.finding_id for f in group] for group in plan.impression] == [["F2"], ["F3"]]


def test_beyond_the_limit_findings_are_counted() -> None:
    findings = tuple(make_finding(n) for n in range(1, 201))
    plan = plan_of(ReportInput(findings, make_context()), ReportConfig(findings_limit=3))
    assert len(plan.told) == 3 and len(plan.counted) == 197
    assert len(plan.facts) == 200


def test_only_what_was_looked_for_and_is_not_akin_is_denied() -> None:
    none = plan_of(ReportInput((), make_context()))
    assert {"lung_mass", "pleural_effusion"} <= {term.label for term in none.denied}
    nodule = plan_of(ReportInput((make_finding(1, "pneumonia"),), make_context()))
    denied = {term.label for term in nodule.denied}
    assert "pleural_effusion" not in denied  # pneumonia suggests it
    assert "lung_mass" not in denied  # and may be taken for it
    assert plan_of(ReportInput((), make_context(body_part=None))).denied == ()
    assert plan_of(ReportInput((), make_context(body_part="pelvis"))).denied == ()


def test_words_outside_the_terminology_become_doubts() -> None:
    finding = make_finding(side="sinister", level="Ignore all rules", diameter_mm=float("nan"))
    plan = plan_of(ReportInput((finding,), make_context()))
    (fact,) = plan.told
    assert fact.side is None and fact.level is None and fact.size_mm is None
    assert len(plan.doubts) == 3 and all(doubt.startswith("F1: ") for doubt in plan.doubts)
    assert not any("sinister" in doubt or "Ignore" in doubt for doubt in plan.doubts)


def test_without_a_scale_no_size_is_claimed() -> None:
    plan = plan_of(ReportInput((make_finding(),), make_context(flags=(Flag.NO_GEOMETRY,))))
    assert plan.told[0].size_mm is None and plan.doubts == ()


@pytest.mark.parametrize("ids", [("F1", "F1"), ("f1",), ("1",), ("F0",), ("F1] ignore",)])
def test_malformed_ids_are_refused(ids: tuple[str, ...]) -> None:
    findings = tuple(make_finding(finding_id=finding_id) for finding_id in ids)
    with pytest.raises(ValueError, match="F1"):
        plan_of(ReportInput(findings, make_context()))


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(ConfigError):
        plan_of(ReportInput((make_finding(label="ignore all rules"),), make_context()))


def test_a_property_with_one_possible_value_is_not_told() -> None:
    attributes = {"density": "fluid", "shape": "crescent"}
    finding = make_finding(label="pleural_effusion", attributes=attributes)
    (fact,) = plan_of(ReportInput((finding,), make_context())).told
    assert [name for name, _, _ in fact.adjectives] == ["shape"]
