from pathlib import Path

import pytest

from raypipe.archive.index import build_index
from raypipe.archive.storage import StorageConfig
from raypipe.batch.job import Job
from raypipe.batch.output import JOB_FILE, Output, open_output
from raypipe.batch.restart import check_hash_key, job_of, known_reasons, settings_of
from raypipe.batch.status import run_status
from raypipe.config import load_config
from raypipe.errors import ConfigError
from tests.archive.ct_files import tissue, write_ct
from tests.batch.result_folder import KEYS, result_folder


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return open_output(str(tmp_path / "out"), StorageConfig())


def test_reasons_are_those_of_failures() -> None:
    assert known_reasons(["quarantined", "decoder_memory"]) == ("quarantined", "decoder_memory")
    for wrong in ("not_ct", "quarantine"):
        with pytest.raises(ConfigError, match=r"a series fails for one of .*quarantined"):
            known_reasons(["quarantined", wrong])


def test_the_config_of_the_folder_is_the_one_that_wrote_it(output: Output) -> None:
    config = load_config(overrides=["run.quarantine_after=5", "report.engine=template"])
    output.write_text("config.yaml", config.to_yaml())
    again = settings_of(output, ["run.price_per_hour=2"])
    assert (again.run.quarantine_after, again.run.price_per_hour) == (5, 2.0)
    assert again.result_hash == config.result_hash


def test_a_secret_that_is_not_told_is_asked_for(output: Output) -> None:
    config = load_config(overrides=["index.hash_key=secret"])
    output.write_text("config.yaml", config.to_yaml())
    with pytest.raises(ConfigError, match=r"index\.hash_key.*give it again"):
        check_hash_key(settings_of(output, ()))
    given = settings_of(output, ["index.hash_key=secret"])
    check_hash_key(given)
    assert given.index.hash_key.get_secret_value() == "secret"


def test_a_manifest_with_another_key_is_refused(tmp_path: Path) -> None:
    write_ct(tmp_path / "archive" / "0.dcm", tissue())
    manifest = str(tmp_path / "manifest")
    config = load_config(overrides=["index.hash_key=secret"])
    build_index(str(tmp_path / "archive"), manifest, config.index)
    Job(manifest, str(tmp_path / "out"), config)
    with pytest.raises(ConfigError, match=r"another index\.hash_key"):
        Job(manifest, str(tmp_path / "out"), load_config())


def test_the_manifest_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result_folder(tmp_path / "made" / "out", {"x_0": "ab"})
    (tmp_path / "elsewhere").mkdir()
    for source in ("out/manifest", "archive"):
        monkeypatch.chdir(tmp_path / "made")
        Path("out", JOB_FILE).unlink()
        Job(source, "out", load_config())._write_record()
        monkeypatch.chdir(tmp_path / "elsewhere")
        output = open_output("../made/out", StorageConfig())
        assert run_status(output, StorageConfig()).total == len(KEYS)


def test_a_folder_without_a_run_is_refused(output: Output) -> None:
    assert settings_of(output, ()) == load_config()
    with pytest.raises(ConfigError, match="holds no job"):
        job_of(output, load_config())
