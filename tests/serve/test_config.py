"""Settings of the service: what cannot be started, and what the limits do to the pipeline."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.config import load_settings
from raypipe.errors import ConfigError
from raypipe.serve.auth import new_key, read_keys
from raypipe.serve.auth_config import Role
from raypipe.serve.config import ServeConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.4", "example.org", "169.254.1.1"])
def test_a_public_address_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="raypipe serve key"):
        load_settings(ServeConfig, None, [f"http.host='{host}'"])
    entry = new_key("me", [Role.ANALYZE])[1].model_dump(mode="json")
    tree = {"http": {"host": host}, "auth": {"keys": [entry]}}
    assert ServeConfig.model_validate(tree).auth.mode == "key"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_a_loopback_address_does_not(host: str) -> None:
    assert load_settings(ServeConfig, None, [f"http.host='{host}'"]).auth.mode == "none"


@pytest.mark.parametrize(
    "wrong",
    [
        "http.behind_proxy=true",
        "http.tls_key=key.pem",
        "limits.uris=['/']",
        "limits.uris=['relative']",
        "limits.uris=['s3://']",
        "limits.uris=['http://host/x']",
        "pools.detector.min_replicas=3",
        "pools.detector.concurrent_batches=2",
        "pools.detector.concurrent_batches=2",
        "jobs.unknown=1",
        "pipeline.unknown=1",
    ],
)
def test_what_is_wrong_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong.split("=")[0].split(".")[0]):
        load_settings(ServeConfig, None, [wrong])


def test_limits_hold_the_pipeline_and_never_loosen_it() -> None:
    tree: dict[str, Any] = {
        "limits": {"max_voxels": 1000, "max_members": 7},
        "pipeline": {"archive": {"storage": {"max_members": 5}}},
    }
    limited = ServeConfig.model_validate(tree).limited
    assert limited.archive.max_voxels == 1000
    assert limited.archive.storage.max_members == 5


def test_limits_leave_every_other_setting_of_the_archive_as_it_is() -> None:
    archive = {"max_object_gib": 0.5, "isolation": {"time_limit_s": 7.0}, "storage": {"retries": 9}}
    config = ServeConfig.model_validate({"pipeline": {"archive": archive}})
    limited, given = config.limited.archive, config.pipeline.archive
    assert (limited.max_object_gib, limited.isolation.time_limit_s) == (0.5, 7.0)
    same = {"storage": limited.storage, "max_voxels": limited.max_voxels}
    assert given.model_copy(update=same) == limited and limited.storage.retries == 9


def test_the_limits_do_not_change_what_a_result_is() -> None:
    """A row of the service is a row of batch: same hash of the config, as long as no series
    is refused for its size."""
    config = ServeConfig()
    changed = config.limited.model_dump(mode="json")
    original = config.pipeline.model_dump(mode="json")
    assert changed.pop("archive") != original.pop("archive") and changed == original


@pytest.mark.parametrize("file", ["serve.yaml", "kubernetes/rayservice.yaml"])
def test_config_files_name_the_application_and_their_settings_hold(file: str) -> None:
    from ray.serve.schema import ServeDeploySchema

    tree = next(yaml.safe_load_all((ROOT / "configs" / file).read_text()))
    if "spec" not in tree:  # `raypipe serve` takes the same file
        same = load_settings(ServeConfig, ROOT / "configs" / file, ["http.port=8123"])
        assert same.http.port == 8123
        assert same.jobs == ServeConfig.model_validate(tree["applications"][0]["args"]).jobs
    else:
        assert tree["kind"] == "RayService"
        tree = yaml.safe_load(tree["spec"]["serveConfigV2"])
    deploy = ServeDeploySchema.model_validate(tree)
    (application,) = deploy.applications
    assert application.import_path == "raypipe.serve.app:build"
    config = ServeConfig.model_validate(application.args)
    assert config.auth.mode == "key" or config.http.is_loopback
    assert deploy.http_options.host == config.http.host
    assert deploy.logging_config is not None and not deploy.logging_config.enable_access_log


def test_the_dashboard_shows_metrics_that_exist() -> None:
    import json
    import re

    from raypipe.serve.jobs import Counts
    from raypipe.serve.metrics import Metrics

    board = json.loads((ROOT / "configs" / "grafana" / "serve.json").read_text())
    asked = " ".join(t["expr"] for panel in board["panels"] for t in panel.get("targets", ()))
    metrics = Metrics()
    metrics.requests([("GET", "/x", 200, 0.1)])
    text = metrics.text(Counts({"done": 1}, 0, 0, 0), {"Loader": {"RUNNING": 1}}).decode()
    known = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    for name in set(re.findall(r"raypipe_\w+", asked)):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        assert name in known or base in known, name


def test_a_key_from_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    arguments = ["serve", "key", "--owner", "pacs", "--role", "read", "--append", str(file)]
    for _ in range(2):
        printed = CliRunner().invoke(app, arguments)
        assert printed.exit_code == 0, printed.output
    keys = read_keys(file)
    assert len(keys) == 2 and {key.owner for key in keys} == {"pacs"}
    secret = next(word for word in printed.output.split() if word.startswith("rp_"))
    assert secret not in file.read_text()
    assert CliRunner().invoke(app, ["serve", "key", "--owner", "x", "--role", "y"]).exit_code


def test_help_teaches() -> None:
    printed = CliRunner().invoke(app, ["serve", "--help"]).output
    for word in ("serve key", "/v1/analyze", "configs/serve.yaml", "serve deploy"):
        assert word in printed
