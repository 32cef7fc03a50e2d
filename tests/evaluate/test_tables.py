"""Tables say what the evaluation says."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import DetectionEvaluation, evaluate_detection
from raypipe.evaluate.measures import MACRO
from raypipe.evaluate.records import ClaimSeries, TruthSeries
from raypipe.evaluate.tables import (
    MEASURE_SCHEMA,
    evaluation_markdown,
    write_evaluation,
)
from tests.evaluate.cohorts import random_cohort

CONFIG = DetectionEvaluationConfig(bootstrap=20)


def rows_of(markdown: str, heading: str) -> list[list[str]]:
    section = markdown.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_files_hold_every_measure(tmp_path: Path) -> None:
    truths, claims = random_cohort(0)
    result = evaluate_detection(truths, claims, CONFIG)
    as_json, parquet, text = write_evaluation(result, tmp_path / "new")
    assert DetectionEvaluation.model_validate_json(as_json.read_text()) == result
    table = pq.read_table(parquet)
    assert table.schema.equals(MEASURE_SCHEMA)
    assert table.to_pylist() == [m.model_dump() for m in result.measures]
    assert text.read_text() == evaluation_markdown(result)


def test_markdown_shows_values_with_intervals() -> None:
    truths, claims = random_cohort(0)
    result = evaluate_detection(truths, claims, CONFIG)
    rows = rows_of(evaluation_markdown(result), "Boxes")
    assert all(len(row) == len(rows[0]) for row in rows)
    macro = dict(zip(rows[0], next(r for r in rows if r[0] == MACRO), strict=True))
    ap = result.measure("box", "ap", MACRO, iou=0.5)
    assert macro["AP at IoU 0.5"] == f"{ap.value:.3f} ({ap.low:.3f} to {ap.high:.3f})"
    assert macro["positives"] == str(result.lesions)


def test_series_without_boxes_have_no_box_tables() -> None:
    truths = [
        TruthSeries(series_key=str(i), image_labels={"cyst": i % 2 == 0, "normal": i % 2 == 1})
        for i in range(6)
    ]
    claims = [
        ClaimSeries(
            series_key=str(i), image_scores={"cyst": max(0.9 - i / 6, 0.0), "normal": i / 6}
        )
        for i in range(6)
    ]
    config = DetectionEvaluationConfig(image_mode="single", bootstrap=0)
    text = evaluation_markdown(evaluate_detection(truths, claims, config))
    assert "## Boxes" not in text
    assert rows_of(text, "Confusion")[2:] == [["cyst", "2", "1"], ["normal", "1", "2"]]


def test_the_threshold_of_labels_is_the_one_that_was_used() -> None:
    truths, claims = random_cohort(0)

    def told(**changes: Any) -> str:
        config = DetectionEvaluationConfig(bootstrap=0, **changes)
        text = evaluation_markdown(evaluate_detection(truths, claims, config))
        return text.split("## Series")[1].split("\n|")[0]

    assert "a score of at least 0.5." in told()
    own = {"cyst": 0.3, "nodule": 0.2, "stone": 0.2}
    assert "its label's threshold (0.2 to 0.3)" in told(thresholds=own)
    assert "a score of at least 0.4." in told(thresholds=own, image_threshold=0.4)
