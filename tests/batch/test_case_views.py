"""raypipe/batch/case_views.py: series that cannot be shown, pictures without a scale."""

from dataclasses import replace
from typing import Any

import pytest

from raypipe.batch.case_views import CaseViewer
from raypipe.batch.evaluation import Cohort, load_cohort
from raypipe.evaluate.config import DetectionEvaluationConfig
from tests.batch.finished_run import FinishedRun, finished_run

MEASURES = DetectionEvaluationConfig(match_iou=0.1, threshold=0.5)
FAILED: dict[str, Any] = {
    "status": "failed",
    "reason": "decoder_timeout",
    **dict.fromkeys(("affine_zyx_to_lps", "shape_zyx", "report", "findings")),
}


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return finished_run()


@pytest.fixture(scope="module")
def cohort(run: FinishedRun) -> Cohort:
    return load_cohort(run.output, str(run.truth), run.config)


def _viewer(run: FinishedRun, cohort: Cohort, **changes: dict[str, Any]) -> CaseViewer:
    rows = {key: {**row, **changes.get(key, {})} for key, row in cohort.rows.items()}
    return CaseViewer(run.output, replace(cohort, rows=rows), run.config, MEASURES)


def test_a_failed_series_is_not_shown_though_it_can_be_read_again(
    run: FinishedRun, cohort: Cohort
) -> None:
    viewer = _viewer(run, cohort, **dict.fromkeys(cohort.rows, FAILED))
    assert viewer.of_labels(cohort.labels) == {} and viewer.cases() == []


def test_a_picture_is_drawn_without_a_scale(run: FinishedRun, cohort: Cohort) -> None:
    flagged = {"flags": ["no_geometry"]}
    for changes, has_scale in (({}, True), (dict.fromkeys(cohort.rows, flagged), False)):
        (view,) = _viewer(run, cohort, **changes).of_labels(cohort.labels, 1).values()
        assert (view.spacing_yx_mm is not None) == has_scale
