"""`raypipe run` and `raypipe inspect` as far as they go without Ray."""

from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from raypipe.batch.output import JOB_FILE, Output
from raypipe.cli import app, main
from raypipe.cli.display import show_rows
from tests.batch.result_folder import result_folder, write_rows


@pytest.fixture
def output(tmp_path: Path) -> Output:
    """Three series: one is done, two have failed."""
    output = result_folder(tmp_path / "out", {"x_0": "a"})
    (Path(output.path) / JOB_FILE).unlink()
    table = {"series_key": ["a", "b", "c"], "status": ["ok"] * 3}
    instances = pa.array([[{"byte_size": 1}]] * 3)
    output.write_table("manifest/part-00000.parquet", pa.table(table | {"instances": instances}))
    write_rows(output, "x_1", "bc", status="failed", reason="quarantined")
    return output


def test_a_dry_run_takes_no_failed_rows_back(output: Output) -> None:
    before = {p: p.read_bytes() for p in Path(output.path).rglob("*") if p.is_file()}
    arguments = ["run", "-i", output.manifest_uri, "-o", output.uri, "--retry-failed", "--dry-run"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    assert "2 failed series would be done again" in printed.output
    assert {p: p.read_bytes() for p in Path(output.path).rglob("*") if p.is_file()} == before


def test_an_interrupted_command_says_how_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("raypipe.config.load_config", interrupted)
    monkeypatch.setattr("sys.argv", ["raypipe", "run", "-i", "in", "-o", "out"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_a_plain_picture_tells_no_size_in_mm(capsys: pytest.CaptureFixture[str]) -> None:
    finding = {
        **{"finding_id": "F1", "label": "renal_cyst", "side": None, "level": None},
        **{"diameter_mm": 41.3, "mean_hu": None, "score": 0.5, "key_slice": 6},
    }
    row = {
        **{"series_key": "beef", "status": "ok", "reason": None, "report": None},
        **{"shape_zyx": [1, 64, 64], "spacing_zyx_mm": [1.0, 1.0, 1.0], "findings": [finding]},
    }
    for flags, shown in ([], True), (["no_geometry", "no_hu"], False):
        show_rows([{**row, "flags": flags}], detailed=True)
        text = capsys.readouterr().out
        assert ("41.3" in text) == shown
        assert "slice from 1" in text and " 7 " in text
