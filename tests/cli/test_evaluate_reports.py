"""`raypipe evaluate reports` on tables and on a finished run."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from raypipe.cli.evaluate import app
from raypipe.errors import ConfigError
from raypipe.evaluate.text import TextEvaluation
from tests.batch.finished_run import finished_run

NODULE = "There is a 12 mm pulmonary nodule in the right lung."
CLEAR = "No pulmonary nodule. No pneumothorax."


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(
        app, ["reports", *map(str, arguments), "--bootstrap", "20"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


def read(folder: Path) -> TextEvaluation:
    return TextEvaluation.model_validate_json((folder / "reports.json").read_text())


def table(file: Path, **columns: list[str]) -> Path:
    pq.write_table(pa.table(columns), file)
    return file


def test_tables_of_texts_and_references(tmp_path: Path) -> None:
    texts = tmp_path / "systems.csv"
    rows = [("1", "a", NODULE), ("2", "a", CLEAR), ("1", "b", CLEAR), ("2", "b", CLEAR)]
    lines = [f'{key},{system},"{text}"' for key, system, text in rows]
    texts.write_text("\n".join(["key,system,text", *lines, '3,a,"not, in b"']) + "\n")
    other = table(tmp_path / "other.parquet", key=["1", "2"], text=[f"{NODULE} Pneumothorax.", ""])
    truth = table(tmp_path / "truth.parquet", key=["1", "2"], text=[NODULE, CLEAR])
    output = run(texts, other, "--references", truth, "-o", tmp_path / "e")
    assert "left out: 1 reports of a" in output
    evaluation = read(tmp_path / "e")
    assert evaluation.systems == ("a", "b", "other") and evaluation.reports == 2
    assert evaluation.measure("a", "bleu_4").value == pytest.approx(1.0)
    assert evaluation.measure("b", "omission_rate").value == 1.0
    assert evaluation.measure("other", "hallucination_rate").value == 0.5


def test_known_findings_are_the_truth_of_facts(tmp_path: Path) -> None:
    texts = table(tmp_path / "texts.parquet", key=["1", "2"], text=[NODULE, CLEAR])
    findings = tmp_path / "findings.csv"
    findings.write_text("key,label,side,size_mm\n1,pulmonary_nodule,left,12\n2,,,\n")
    run(texts, "--findings", findings, "-o", tmp_path / "e")
    evaluation = read(tmp_path / "e")
    assert evaluation.measure("texts", "side_error_rate").value == 1.0
    assert evaluation.measure("texts", "omission_rate").value == 0.0
    assert "bleu_1" not in evaluation.names


def test_reports_of_a_run_are_true_to_its_findings(tmp_path: Path) -> None:
    done = finished_run()
    output = run(done.output.uri, "-o", tmp_path / "e")
    evaluation = read(tmp_path / "e")
    assert evaluation.reports == 5 and "the known findings" in output
    (system,) = evaluation.systems
    assert evaluation.counts[system]["present"] > 0
    for name in ("hallucination_rate", "omission_rate", "side_error_rate", "size_error_rate"):
        assert evaluation.measure(system, name).value == 0.0, name
    assert evaluation.measure(system, "fact_precision").value == 1.0
    assert {"reports.md", "reports_errors.png"} <= {f.name for f in (tmp_path / "e").iterdir()}


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    truth = table(tmp_path / "truth.parquet", key=["1"], text=[NODULE])
    cases = [
        (table(tmp_path / "a.parquet", key=["1"], words=["x"]), "the column 'text' is missing"),
        (table(tmp_path / "b.parquet", key=["1", "1"], text=["x", "y"]), "comes twice"),
        (table(tmp_path / "c.parquet", key=["2"], text=["x"]), "no key is in every source"),
        (tmp_path / "none.csv", "there is no such file"),
        (tmp_path, "holds no reports"),
    ]
    for source, problem in cases:
        with pytest.raises(ConfigError, match=problem):
            run(source, "--references", truth, "-o", tmp_path / "e")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("1,pulmonary_nodule,left,,12 mm", r"row 1: size_mm '12 mm' is no length"),
        ("1,pulmonary_nodule,left,,-3", r"row 1: size_mm -3\S* is no length"),
        ("1,pulmonary_nodule,Left,,12", "row 1: side 'Left' is none of left, right, midline"),
        ("1,pulmonary_nodule,left,Upper third,12", "row 1: level 'Upper third' .*upper third"),
        ("1,Pulmonary Nodule,left,,12", "row 1: label 'Pulmonary Nodule' .*pulmonary_nodule"),
        (",pulmonary_nodule,left,,12", "row 1 has no key"),
    ],
)
def test_findings_that_no_text_could_agree_with(tmp_path: Path, line: str, problem: str) -> None:
    texts = table(tmp_path / "texts.parquet", key=["1"], text=[NODULE])
    findings = tmp_path / "findings.csv"
    lines = ["key,label,side,level,size_mm", "1,pulmonary_nodule,right,upper third,12", line]
    findings.write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match=problem):
        run(texts, "--findings", findings, "-o", tmp_path / "e")


def test_rows_without_a_key_are_not_paired(tmp_path: Path) -> None:
    texts, truth = tmp_path / "texts.csv", tmp_path / "truth.csv"
    texts.write_text(f"key,text\n1,{NODULE}\n,{CLEAR}\n")
    truth.write_text(f"key,text\n1,{NODULE}\nNA,Cardiomegaly.\n")
    with pytest.raises(ConfigError, match=r"texts\.csv: row 1 has no key"):
        run(texts, "--references", truth, "-o", tmp_path / "e")
