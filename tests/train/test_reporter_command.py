from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from raypipe.cli.train import app
from raypipe.errors import ConfigError

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


def test_a_table_that_is_not_there_is_told_before_anything_starts(tmp_path: Path) -> None:
    from raypipe.train.reporter_config import TrainReporterConfig
    from raypipe.train.reporter_loop import check_pairs

    missing = str(tmp_path / "none.parquet")
    config = TrainReporterConfig.model_validate(
        {
            "output": str(tmp_path),
            "source": {"kind": "pairs", "train": missing, "validation": missing},
        }
    )
    with pytest.raises(ConfigError, match=r"none\.parquet does not exist"):
        check_pairs(config)
