from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from raypipe.cli.train import app
from raypipe.errors import ConfigError
from raypipe.phantom import write_bulk_archive
from raypipe.train.dataset import SampleStore

ROOT = Path(__file__).resolve().parents[2]


def invoke(*args: str) -> str:
    result = CliRunner().invoke(app, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_resolved_config_is_printed() -> None:
    recipe = ROOT / "configs" / "train" / "detector_small.yaml"
    printed = invoke(
        "detector", "-c", str(recipe), "-o", "elsewhere", "--set", "augment.zoom=0.05",
        "--print-config",
    )  # fmt: skip
    told = yaml.safe_load(printed)
    assert told["output"] == "elsewhere"
    assert told["augment"]["zoom"] == 0.05
    assert told["name"] == "detector_small"
    printed = invoke("slices", "--data", "in", "-o", "out", "--set", "steps=7", "--print-config")
    told = yaml.safe_load(printed)
    assert (told["data"], told["output"], told["steps"]) == ("in", "out", 7)


@pytest.mark.parametrize("folder", ["2024-06-01", "20240601", "out #1", "a: b", "null", "größe"])
def test_a_folder_may_have_any_name(folder: str) -> None:
    told = yaml.safe_load(invoke("slices", "--data", folder, "-o", folder, "--print-config"))
    assert (told["data"], told["output"]) == (folder, folder)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("detector",), "output: is needed: --output"),
        (("slices", "-o", "out"), "data: is needed: --data"),
        (("detector", "-o", "out", "--set", "step=3"), "step: unknown key; the same command"),
        (("detector", "-o", "out", "--set", "steps=-3"), "steps: .*greater than 0"),
        (("detector", "-c", "missing.yaml"), "missing.yaml does not exist"),
    ],
)
def test_a_wrong_setting_is_named_with_its_remedy(args: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CliRunner().invoke(app, list(args), catch_exceptions=False)


def test_annotations_become_a_data_set(tmp_path: Path) -> None:
    truths = write_bulk_archive(tmp_path / "archive", 4)
    rows = [
        {
            "file": truth.paths[0],
            "label": "liver_cyst",
            "box_lower_zyx": [2.0, 40.0, 40.0],
            "box_upper_zyx": [4.0, 50.0, 52.0],
        }
        for truth in truths
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "lesions.parquet")
    printed = invoke(
        "annotations", str(tmp_path / "archive"), str(tmp_path / "lesions.parquet"),
        str(tmp_path / "mine"), "--validation", "0.25",
    )  # fmt: skip
    train, validation = (SampleStore(tmp_path / "mine" / p) for p in ("train", "validation"))
    assert len(set(train.series)) == 3 and len(set(validation.series)) == 1
    assert (train.labels == "liver_cyst").sum() == 6  # two slices of each
    assert "validation_store=" in printed.replace("\n", "")
