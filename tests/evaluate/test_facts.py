"""Facts of texts: planted errors are counted as what they are, and nothing else."""

import pytest

from raypipe.evaluate.facts import (
    COUNTS,
    FactCounts,
    Size,
    compare_facts,
    known_facts,
    read_facts,
)
from raypipe.knowledge.terminology import load_terminology

TRUE = (
    "There is a 12 mm pulmonary nodule in the upper third of the right lung [F1]. "
    "Small left pleural effusion [F2]. No pneumothorax.\n"
    "1. Pulmonary nodule, 12 mm [F1]."
)


def counted(text: str, truth: str = TRUE) -> FactCounts:
    terms = load_terminology()
    return compare_facts(read_facts(text, terms), read_facts(truth, terms), tolerance_mm=1.0)


def test_facts_of_a_text() -> None:
    facts = read_facts(TRUE, load_terminology())
    assert set(facts.told) == {"pulmonary_nodule", "pleural_effusion"}
    assert facts.denied == {"pneumothorax"}
    nodule = facts.told["pulmonary_nodule"]
    assert (nodule.sides, nodule.levels) == ({"right"}, {"upper third"})
    assert nodule.sizes == (Size(12.0, "right"), Size(12.0, None))
    assert facts.told["pleural_effusion"].sides == {"left"}


def test_a_true_text_has_no_error() -> None:
    same = counted(TRUE)
    assert same.stated == same.stated_right == same.known == same.known_told > 0
    wrong = (same.invented, same.omitted, same.side_wrong, same.level_wrong, same.size_wrong)
    assert wrong == (0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("Small left pleural effusion [F2]. ", "", {"omitted": 1}),
        ("No pneumothorax", "Pneumothorax", {"invented": 1, "reports_inventing": 1}),
        ("Small left pleural effusion", "No pleural effusion", {"omitted": 1}),
        ("Small left", "Small right", {"side_wrong": 1}),
        ("right lung", "left lung", {"side_wrong": 1}),
        ("a 12 mm", "a 21 mm", {"size_wrong": 1}),
        ("a 12 mm", "a 12.4 mm", {}),
        ("a 12 mm", "a 1.2 cm", {}),
        ("upper third", "lower third", {"level_wrong": 1}),
        ("No pneumothorax", "No pneumothorax or pulmonary oedema", {}),
    ],
)
def test_planted_errors(before: str, after: str, expected: dict[str, int]) -> None:
    assert before in TRUE
    found = counted(TRUE.replace(before, after, 1))
    errors = ("invented", "omitted", "side_wrong", "level_wrong", "size_wrong", "reports_inventing")
    assert {name: getattr(found, name) for name in errors if getattr(found, name)} == expected


def test_two_findings_of_a_kind_that_change_places() -> None:
    truth = "A 5 mm pulmonary nodule in the left lung. A 20 mm pulmonary nodule in the right lung."
    swapped = truth.replace("left", "?").replace("right", "left").replace("?", "right")
    assert counted(truth, truth).size_wrong == 0
    assert counted(swapped, truth).size_wrong == 2


def test_the_findings_of_a_run_are_the_whole_truth() -> None:
    known = known_facts([("pulmonary_nodule", "right", None, 12.0)])
    text = read_facts("Right pulmonary nodule of 12 mm. No pneumothorax.", load_terminology())
    counts = compare_facts(text, known, tolerance_mm=1.0)
    assert counts.stated == counts.stated_right == 4  # nodule, side, size, and what is denied
    denies = read_facts("No pulmonary nodule.", load_terminology())
    counts = compare_facts(denies, known, tolerance_mm=1.0)
    assert (counts.stated, counts.stated_right, counts.omitted) == (1, 0, 1)


def test_counts_keep_their_order() -> None:
    counts = counted(TRUE)
    assert dict(zip(COUNTS, counts.row(), strict=True))["present"] == counts.present == 2
