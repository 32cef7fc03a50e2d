import shlex
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from raypipe.cli.train import app
from raypipe.config import load_config
from raypipe.errors import ConfigError
from raypipe.train import reporter_loop
from raypipe.train.reporter_config import TrainReporterConfig

ROOT = Path(__file__).resolve().parents[2]


def test_the_recipe_of_the_default_adapter_is_valid() -> None:
    recipe = ROOT / "configs" / "train" / "reporter_small.yaml"
    result = CliRunner().invoke(
        app, ["reporter", "-c", str(recipe), "-o", "elsewhere", "--print-config"]
    )
    assert result.exit_code == 0, result.output
    told = yaml.safe_load(result.output)
    assert (told["output"], told["source"]["kind"]) == ("elsewhere", "synthetic")
    assert told["rank"] == 8  # what the smallest engines of vLLM take


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("source.kind=pairs", "source.pairs.train: .*needed"),
        ("source.kind=web", "source: .*'synthetic', 'pairs'"),
        ("name=../x", "name: .*pattern"),
        ("ranks=8", "ranks: unknown key"),
        ("batch_tokens=1000", "must be a multiple of row_tokens 1024"),
    ],
)
def test_a_wrong_setting_is_named(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, ["reporter", "-o", "o", "--set", setting], catch_exceptions=False)


def test_workers_are_told_absolute_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "terms.yaml").touch()
    told = {"output": "out", "language": "terms.yaml", "cache_folder": "models"}
    placed = reporter_loop._placed(TrainReporterConfig.model_validate(told))
    assert placed.output == str(tmp_path / "out")
    assert placed.language == str(tmp_path / "terms.yaml")
    assert placed.cache_folder == tmp_path / "models"
    assert reporter_loop._placed(placed.model_copy(update={"language": "de"})).language == "de"


def test_what_is_told_at_the_end_loads_the_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    result = reporter_loop.TrainReporterResult(
        adapter="/out/v1.2/adapter", adapter_id="v1.2", weights_hash="beef", metrics={}
    )
    monkeypatch.setattr(reporter_loop, "train_reporter", lambda config: result)
    monkeypatch.setattr("raypipe.cli.train._training", lambda *_: nullcontext())
    said = CliRunner().invoke(app, ["reporter", "-o", "out"], catch_exceptions=False).output
    options = shlex.split(said[said.index("--set") :])
    report = load_config(None, options[1::2]).report
    assert report.adapter == "v1.2" and report.adapters == {"v1.2": "/out/v1.2/adapter"}


def test_a_table_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.parquet")
    config = TrainReporterConfig.model_validate(
        {
            "output": str(tmp_path),
            "source": {"kind": "pairs", "train": missing, "validation": missing},
        }
    )
    with pytest.raises(ConfigError, match=r"none\.parquet does not exist"):
        reporter_loop.check_pairs(config)
