"""Systems side by side: values, intervals, differences, tables and figures."""

from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from raypipe.errors import ConfigError
from raypipe.evaluate.facts import known_facts, read_facts
from raypipe.evaluate.text import ReportSet, TextEvaluation, TextEvaluationConfig, evaluate_texts
from raypipe.evaluate.text_tables import (
    TEXT_SCHEMA,
    TITLES,
    evaluation_markdown,
    write_text_evaluation,
)
from raypipe.knowledge.terminology import load_terminology

SIDES = ("left", "right")
TRUTHS = [f"There is a {5 + i} mm {SIDES[i % 2]} pulmonary nodule. Heart normal." for i in range(8)]
KEYS = tuple(f"r{i}" for i in range(8))
INVENTS = [f"{text} Pneumothorax." if i < 2 else text for i, text in enumerate(TRUTHS)]
READ = partial(read_facts, terminology=load_terminology())
FEW = TextEvaluationConfig(bootstrap=100)


@pytest.fixture(scope="module")
def evaluation() -> TextEvaluation:
    reports = ReportSet(
        keys=KEYS,
        systems={"same": TRUTHS, "invents": INVENTS, "silent": ["Heart normal."] * 8},
        references=TRUTHS,
    )
    return evaluate_texts(reports, READ, FEW)


def test_values_and_intervals(evaluation: TextEvaluation) -> None:
    same = evaluation.measure("same", "bleu_4")
    assert (same.value, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))
    assert evaluation.measure("same", "fact_f1").value == 1.0
    rate = evaluation.measure("invents", "hallucination_rate")
    assert rate.value == pytest.approx(2 / 10)  # eight nodules and two that are not there
    assert rate.low is not None and rate.high is not None and rate.low < 0.2 < rate.high
    assert rate.support == 10
    assert evaluation.measure("invents", "hallucinating_reports").value == pytest.approx(2 / 8)
    assert evaluation.measure("silent", "omission_rate").value == 1.0
    assert evaluation.measure("silent", "hallucination_rate").value is None  # it claims nothing


def test_differences_are_to_the_first_system_on_the_same_draws(evaluation: TextEvaluation) -> None:
    assert evaluation.measure("same", "bleu_4").difference is None
    worse = evaluation.measure("invents", "fact_precision")
    assert worse.difference == pytest.approx(worse.value - 1.0)  # type: ignore[operator]
    assert worse.difference_high is not None and worse.difference_high <= 0.0
    nothing = evaluation.measure("invents", "omission_rate")
    assert (nothing.difference, nothing.difference_low, nothing.difference_high) == (0, 0, 0)


def test_files(evaluation: TextEvaluation, tmp_path: Path) -> None:
    files = write_text_evaluation(evaluation, tmp_path)
    assert TextEvaluation.model_validate_json(files[0].read_text()) == evaluation
    table = pq.read_table(files[1])
    assert table.schema.equals(TEXT_SCHEMA)
    assert table.num_rows == len(evaluation.measures) == 3 * len(TITLES)
    page = files[2].read_text()
    assert "| BLEU-4 | 1.000 (1.000 to 1.000) |" in page and "Differences to same" in page
    for figure in files[3:]:
        with Image.open(figure) as image:
            assert min(image.size) > 500


def test_without_references_only_facts_are_measured() -> None:
    facts = [known_facts([("pulmonary_nodule", SIDES[i % 2], None, 5.0 + i)]) for i in range(8)]
    reports = ReportSet(keys=KEYS, systems={"same": TRUTHS}, facts=facts)
    evaluation = evaluate_texts(reports, READ, TextEvaluationConfig(bootstrap=0))
    assert "bleu_4" not in evaluation.names and "the known findings" in evaluation.truth
    f1 = evaluation.measure("same", "fact_f1")
    assert (f1.value, f1.low) == (1.0, None)
    assert "| fact F1 | 1.000 |" in evaluation_markdown(evaluation)


def test_a_report_set_needs_a_truth() -> None:
    with pytest.raises(ConfigError, match="there is no truth"):
        ReportSet(keys=KEYS, systems={"same": TRUTHS})
    with pytest.raises(ValueError, match="has 1 texts, not 8"):
        ReportSet(keys=KEYS, systems={"short": ["x"]}, references=TRUTHS)
