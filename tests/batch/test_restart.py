from pathlib import Path

import pytest

from raypipe.archive.storage import StorageConfig
from raypipe.batch.output import Output, open_output
from raypipe.batch.restart import job_of, known_reasons, settings_of
from raypipe.config import load_config
from raypipe.errors import ConfigError


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
        settings_of(output, ())
    given = settings_of(output, ["index.hash_key=secret"])
    assert given.index.hash_key.get_secret_value() == "secret"


def test_a_folder_without_a_run_is_refused(output: Output) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.yaml"):
        settings_of(output, ())
    with pytest.raises(ConfigError, match="holds no job"):
        job_of(output, load_config())
