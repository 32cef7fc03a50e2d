import asyncio
import json
from pathlib import Path

import pytest
import s3fs

from raypipe.errors import ConfigError
from raypipe.report.adapter import adapter_id, describe_adapter, find_adapters
from raypipe.report.config import ReportConfig
from raypipe.report.vllm_adapters import AdapterTable, AdapterTurns


def _adapter(folder: Path, weights: bytes = b"weights", **settings: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "r": 8} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_an_adapter_is_named_by_its_id_and_its_weights(tmp_path: Path) -> None:
    folder = _adapter(tmp_path / "chest-v1")
    config = ReportConfig(adapter=str(folder))
    (source,) = find_adapters(config).values()
    assert (adapter_id(config), source.adapter_id, source.rank) == ("chest-v1", "chest-v1", 8)
    copy = describe_adapter("other", _adapter(tmp_path / "copy"))
    assert copy.weights_hash == source.weights_hash  # the same weights, wherever they lie
    changed = describe_adapter("chest-v1", _adapter(tmp_path / "changed", b"other"))
    assert changed.weights_hash != source.weights_hash
    assert source.name == f"chest-v1 ({source.weights_hash})"


def test_several_adapters_and_a_default_one(tmp_path: Path) -> None:
    locations = {name: str(_adapter(tmp_path / name, name.encode())) for name in ("a", "b")}
    config = ReportConfig(adapters=locations, adapter="b")
    found = find_adapters(config)
    assert list(found) == ["a", "b"] and adapter_id(config) == "b"
    assert adapter_id(ReportConfig(adapters=locations)) == ""


def test_the_highest_rank_of_a_pattern_counts(tmp_path: Path) -> None:
    folder = _adapter(tmp_path / "a", rank_pattern={"q_proj": 32})
    assert describe_adapter("a", folder).rank == 32
    with pytest.raises(ConfigError, match="max_lora_rank is 16"):
        AdapterTable(16, [describe_adapter("a", folder)])


@pytest.mark.parametrize(
    ("settings", "match"),
    [({"peft_type": "IA3"}, "not LORA"), ({"r": 0}, "not a rank"), ({"r": None}, "not a rank")],
)
def test_what_is_no_lora_is_refused(
    settings: dict[str, object], match: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=match):
        describe_adapter("a", _adapter(tmp_path / "a", **settings))


def test_a_folder_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"adapter_config\.json"):
        find_adapters(ReportConfig(adapter=str(tmp_path / "none")))
    folder = _adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        describe_adapter("a", folder)


def test_other_weights_under_an_id_get_another_number(tmp_path: Path) -> None:
    first = describe_adapter("a", _adapter(tmp_path / "1", b"1"))
    second = describe_adapter("a", _adapter(tmp_path / "2", b"2"))
    table = AdapterTable(8, [first])
    table.add(first)
    assert len(table) == 1 and table.find("a") == first
    assert table.request("a").lora_int_id == 1
    table.add(second)
    assert table.find("a") == second and table.request("a").lora_int_id == 2
    table.drop(first)  # others have taken its id
    assert table.find("a") == second
    table.drop(second)  # does not fit: the one before is back, with its number
    assert table.find("a") == first and table.request("a").lora_int_id == 1
    table.drop(first)
    with pytest.raises(ConfigError, match="no adapter 'a'; it has none"):
        table.request("a")
    assert table.request(None) is None


def test_an_adapter_on_s3_is_fetched_once(
    tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = s3fs.S3FileSystem(endpoint_url=s3_endpoint)
    remote.mkdir("adapters")
    folder = _adapter(tmp_path / "chest-v2")
    remote.put(str(folder), "adapters/chest-v2", recursive=True)
    config = ReportConfig(
        adapter="s3://adapters/chest-v2/",
        adapter_s3_endpoint=s3_endpoint,
        cache_folder=tmp_path / "cache",
    )
    (source,) = find_adapters(config).values()
    assert source.adapter_id == adapter_id(config) == "chest-v2"
    assert source.weights_hash == describe_adapter("x", folder).weights_hash
    assert (tmp_path / "cache") in source.folder.parents
    stamp = (source.folder / "adapter_config.json").stat().st_mtime_ns
    again = find_adapters(config)["chest-v2"]
    assert again == source
    assert (again.folder / "adapter_config.json").stat().st_mtime_ns == stamp
    remote.pipe("adapters/chest-v2/adapter_model.safetensors", b"newer")
    assert find_adapters(config)["chest-v2"].weights_hash != source.weights_hash
    with pytest.raises(ConfigError, match="s3://adapters/none"):
        find_adapters(config.model_copy(update={"adapter": "s3://adapters/none"}))


def test_requests_with_and_without_an_adapter_never_run_together() -> None:
    now, seen = {True: 0, False: 0}, {True: 0, False: 0}

    async def request(turns: AdapterTurns, adapted: bool) -> None:
        async with turns.turn(adapted):
            now[adapted] += 1
            seen[adapted] = max(seen[adapted], now[adapted])
            assert not now[not adapted]
            await asyncio.sleep(0)
            now[adapted] -= 1

    async def all_of_them() -> None:
        turns = AdapterTurns()
        await asyncio.gather(*(request(turns, n % 3 == 0) for n in range(30)))

    asyncio.run(all_of_them())
    assert seen[True] > 1 and seen[False] > 1  # those of one kind do


def test_one_id_is_one_adapter(tmp_path: Path) -> None:
    one = str(_adapter(tmp_path / "one" / "chest", b"one"))
    two = str(_adapter(tmp_path / "two" / "chest", b"two"))
    with pytest.raises(ConfigError, match="'chest' is the id of another adapter"):
        find_adapters(ReportConfig(adapters={"chest": one}, adapter=two))
    assert list(find_adapters(ReportConfig(adapters={"chest": one}, adapter=one))) == ["chest"]
