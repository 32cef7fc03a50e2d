"""`raypipe evaluate detection` on a finished run."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from raypipe.cli.evaluate import app
from raypipe.evaluate.detection import DetectionEvaluation
from raypipe.evaluate.measures import MACRO, MICRO
from tests.batch.finished_run import FinishedRun, finished_run
from tests.tiny_detector import fast_settings


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return finished_run()


def arguments(run: FinishedRun, output: Path, *more: str) -> list[str]:
    settings = [word for setting in fast_settings() for word in ("--set", setting)]
    return ["detection", run.output.uri, str(run.truth), "-o", str(output), *settings, *more]


def test_tables_figures_and_summary(run: FinishedRun, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, arguments(run, tmp_path, "--bootstrap", "20"))
    assert done.exit_code == 0, done.output
    evaluation = DetectionEvaluation.model_validate_json((tmp_path / "evaluation.json").read_text())
    assert evaluation.series == 5
    assert evaluation.lesions == sum(len(truth.lesions) for truth in run.truths)
    # findings lie where the lesions are, on axial, oblique and coronal grids alike
    assert evaluation.measure("box", "ap", MACRO, iou=0.5).value == 1.0
    assert evaluation.measure("box", "recall", MICRO, iou=0.1).value == 1.0
    assert f"{evaluation.series} series, {evaluation.lesions} lesions" in done.output
    assert "mAP, IoU 0.50 to 0.95" in done.output
    for name in ("curves", "froc", "reliability", "confusion", "classes", "cases"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert min(image.size) > 500
    assert {"evaluation.md", "measures.parquet"} <= {file.name for file in tmp_path.iterdir()}


def test_without_pictures_the_archive_is_not_read(run: FinishedRun, tmp_path: Path) -> None:
    truth = json.loads(run.truth.read_text())
    for series in truth:
        series["lesions"] = []
    told = tmp_path / "none.json"
    told.write_text(json.dumps(truth))
    done = CliRunner().invoke(
        app,
        ["detection", run.output.uri, str(told), "-o", str(tmp_path / "e"), "--no-pictures",
         "--bootstrap", "0"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    evaluation = DetectionEvaluation.model_validate_json(
        (tmp_path / "e" / "evaluation.json").read_text()
    )
    assert evaluation.lesions == 0
    false = evaluation.measure("box", "false_positives", MICRO, iou=0.1).value
    assert false == evaluation.claims > 0
    assert not (tmp_path / "e" / "cases.png").exists()
