"""The audit finds what is wrong with an output folder, and nothing where all is well."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from raypipe.archive.storage import StorageConfig
from raypipe.batch.output import Output, open_output
from raypipe.batch.verify import Audit, verify
from raypipe.cli import app
from raypipe.errors import ConfigError
from tests.batch.result_folder import KEYS, result_folder, write_ids, write_rows

FILES = {"x_0": KEYS[:3], "x_1": KEYS[3:]}


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return result_folder(tmp_path, FILES)


def _audit(output: Output) -> Audit:
    return verify(output, StorageConfig())


def test_a_whole_folder_has_no_problems(output: Output) -> None:
    audit = _audit(output)
    assert audit.problems == {}
    assert (audit.series_in_manifest, audit.rows, audit.files) == (8, 8, 2)


def test_each_kind_of_fault_is_told_apart(output: Output) -> None:
    write_rows(output, "x_0", "abx")  # c is gone, x nobody asked for
    write_rows(output, "x_2", "a")  # a second time, and not committed
    audit = _audit(output)
    assert (audit.missing, audit.double, audit.orphan) == (("c",), ("a",), ("x",))
    assert (audit.uncommitted, audit.lost) == (("x",), ("c",))
    assert audit.problems == dict.fromkeys(
        ("missing", "double", "orphan", "uncommitted", "lost"), 1
    )


def test_other_columns_are_told(output: Output) -> None:
    path = Path(output.results) / "x_1-0.parquet"
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.drop_columns(["flags"]).append_column("more", table["status"]), path)
    assert _audit(output).other_schema == {"x_1-0.parquet": "columns flags, more"}
    pq.write_table(table.set_column(0, "series_key", table[0].cast(pa.large_string())), path)
    assert _audit(output).other_schema == {"x_1-0.parquet": "columns series_key"}


def test_a_file_that_is_cut_off_is_damaged(output: Output) -> None:
    path = Path(output.results) / "x_1-0.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    audit = _audit(output)
    assert audit.damaged == {"x_1-0.parquet": "it is not a whole Parquet file"}
    assert audit.missing == KEYS[3:]


def test_a_changed_bit_is_found_or_has_changed_no_value(output: Output) -> None:
    """Anywhere in the file: pages have checksums; headers and footer hold more than the values."""
    path = Path(output.results) / "x_1-0.parquet"
    whole, table = path.read_bytes(), pq.read_table(path, partitioning=None)
    rng, found, checksums = random.Random(1), 0, 0
    for _ in range(150):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        audit = _audit(output)
        if audit.problems:
            found += 1
            checksums += any("checksum" in why for why in audit.damaged.values())
        else:
            assert pq.read_table(path, partitioning=None).equals(table)
    assert found > 90 and checksums > 20, "a third of this small file is values"


def test_what_a_run_has_not_committed_yet_is_no_fault(output: Output) -> None:
    write_ids(output, "x_9.pending", "a")
    write_rows(output, "x_9", "a")
    audit = _audit(output)
    assert audit.problems == {}
    assert audit.in_flight == ("x_9-0.parquet",)


def test_a_limited_run_owes_its_part_alone(tmp_path: Path) -> None:
    output = result_folder(tmp_path, {"x_0": "ab"})
    output.write_text("job.json", f'{{"manifest": "{output.manifest_uri}", "limit": 2}}')
    assert _audit(output).problems == {}
    output.write_text("job.json", f'{{"manifest": "{output.manifest_uri}", "limit": 3}}')
    assert _audit(output).missing == ("c",)


def test_a_folder_without_a_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no job"):
        _audit(open_output(str(tmp_path), StorageConfig()))


def test_the_command_ends_with_1_upon_any_fault(output: Output) -> None:
    runner = CliRunner()
    good = runner.invoke(app, ["verify", output.uri])
    assert good.exit_code == 0 and "there once" in good.stdout
    write_rows(output, "x_2", "a")
    bad = runner.invoke(app, ["verify", output.uri, "--json"])
    assert bad.exit_code == 1
    assert Audit.model_validate_json(bad.stdout).double == ("a",)
    assert runner.invoke(app, ["verify", output.uri]).exit_code == 1
