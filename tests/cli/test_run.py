"""`raypipe run` as far as it goes without Ray."""

from pathlib import Path

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from raypipe.batch.output import JOB_FILE, Output
from raypipe.cli import app
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
