import traceback
from pathlib import Path

import pytest

from raypipe.config import RaypipeConfig, load_config, load_settings
from raypipe.errors import ConfigError
from raypipe.serve.config import ServeConfig

CONFIGS = sorted(
    path
    for path in (Path(__file__).resolve().parents[1] / "configs").glob("*.yaml")
    if path.stem != "serve"  # of the service: tests/serve/test_config.py
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_are_valid(path: Path) -> None:
    assert load_config(path) != RaypipeConfig()


def test_resolved_config_reads_back_the_same(tmp_path: Path) -> None:
    config = load_config(overrides=["run.describe.batch_series=3", "volume.max_voxels=1000"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_config(tmp_path / "config.yaml") == config


def test_unknown_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run:\n  detect: { sise: 3 }\n")
    with pytest.raises(ConfigError, match=r"run\.detect\.sise: unknown key"):
        load_config(tmp_path / "config.yaml")


def test_override_wins_over_file(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("run:\n  describe: { batch_series: 2 }\n")
    config = load_config(tmp_path / "config.yaml", ["run.describe.batch_series=5"])
    assert config.run.describe.batch_series == 5


@pytest.mark.parametrize("override", ["run.describe", "=3", "run.detect.min_size.x=1"])
def test_malformed_override_is_refused(override: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        load_config(overrides=["run.detect.min_size=1", override])


def test_pool_bounds_are_checked() -> None:
    with pytest.raises(ConfigError, match="max_size 2 must be at least min_size 3"):
        load_config(overrides=["run.detect.min_size=3"])


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "broken.yaml").write_text("run: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_config(tmp_path / "broken.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="holds list"):
        load_config(tmp_path / "list.yaml")


@pytest.mark.parametrize("key", ["8675309123", "@S3cret!x", "%S3cret", "`S3cret"])
def test_no_error_repeats_a_secret(key: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hash_key.*quotes") as told:
        load_config(overrides=[f"index.hash_key={key}"])
    (tmp_path / "secret.yaml").write_text(f"index:\n  hash_key: {key}\n  : [")
    with pytest.raises(ConfigError) as of_file:
        load_config(tmp_path / "secret.yaml")
    for error in (told, of_file):
        shown = "".join(traceback.format_exception(error.value))
        assert key not in shown


def test_an_error_of_a_section_repeats_no_secret_in_it() -> None:
    told = ["http.host=0.0.0.0", "pipeline.index.hash_key=S3cret", "pipeline.run.currency=EUR"]
    with pytest.raises(ConfigError, match=r"http\.host 0\.0\.0\.0.*EUR") as error:
        load_settings(ServeConfig, None, told)
    assert "S3cret" not in str(error.value)


def test_what_is_missing_within_a_section_is_no_option() -> None:
    with pytest.raises(ConfigError, match=r"auth\.oidc\.jwks: is needed: --set, or"):
        load_settings(ServeConfig, None, ["auth.oidc={issuer: a, audience: b}"])


def test_result_hash_follows_results_not_resources() -> None:
    plain = load_config()
    for resource in ("run.load.cpus=3", "archive.storage.retries=1"):
        assert load_config(overrides=[resource]).result_hash == plain.result_hash
    assert load_config(overrides=["volume.max_voxels=7"]).result_hash != plain.result_hash
