"""Where a LoRA adapter comes from: a folder or S3, in peft's format; and its id.

In: an id or address from the config. Out: an AdapterSource in a local folder.
Does not know: engines, how an adapter was trained.

The id of an adapter is its name in `report.adapters`, or the last part of its address. What it
holds is named by a hash of its files, so that a result tells which weights wrote it wherever they
lay: training, batch and serving use the same id and can compare the hash.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raypipe.errors import ConfigError
from raypipe.report.config import ReportConfig
from raypipe.report.model_source import default_cache_folder, locked

DEFAULT_ADAPTER = "default"
"""The packaged adapter; it belongs to the offline model."""
_CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MAX_FILE_BYTES = 4 << 30


@dataclass(frozen=True, kw_only=True)
class AdapterSource:
    """An adapter that an engine can load.

    Args:
        adapter_id: what requests name.
        folder: holds adapter_config.json and the weights.
        weights_hash: of both files.
        rank: of its matrices.
    """

    adapter_id: str
    folder: Path
    weights_hash: str
    rank: int

    @property
    def name(self) -> str:
        """Id and hash, for reports and provenance."""
        return f"{self.adapter_id} ({self.weights_hash})"


def find_adapters(config: ReportConfig) -> dict[str, AdapterSource]:
    """Every adapter that a config names, by id; adapters on S3 are fetched.

    Raises:
        ConfigError: an adapter is not there, or is not in peft's format.
    """
    locations = dict(config.adapters)
    if config.adapter is not None and config.adapter not in locations:
        name = adapter_id(config)
        if locations.get(name, config.adapter) != config.adapter:
            raise ConfigError(
                f"report.adapter: {name!r} is the id of another adapter in report.adapters; give "
                "this one an id of its own there and name it"
            )
        locations[name] = config.adapter
    return {name: find_adapter(name, where, config) for name, where in locations.items()}


def adapter_id(config: ReportConfig) -> str:
    """The id of the adapter that writes the reports; "" where there is none."""
    if config.adapter is None or config.adapter in config.adapters or config.engine == "openai":
        return config.adapter or ""
    return config.adapter.rstrip("/").rsplit("/", 1)[-1]


def find_adapter(name: str, location: str, config: ReportConfig) -> AdapterSource:
    """One adapter, in a local folder.

    Args:
        name: its id.
        location: folder, s3:// address, or "default" for the packaged one.
        config: cache folder and S3 server.
    """
    if location.startswith("s3://"):
        cache = config.cache_folder or default_cache_folder()
        folder = _fetched(location, cache, config.adapter_s3_endpoint)
    elif location == DEFAULT_ADAPTER:
        folder = Path(__file__).parent / "adapters" / DEFAULT_ADAPTER
    else:
        folder = Path(location).expanduser().resolve()
    return describe_adapter(name, folder)


def describe_adapter(name: str, folder: Path) -> AdapterSource:
    """Check an adapter's folder.

    Raises:
        ConfigError: a file is missing, or it is no LoRA adapter.
    """
    weights = [folder / file for file in _WEIGHTS if (folder / file).is_file()]
    if not (folder / _CONFIG).is_file() or not weights:
        raise ConfigError(
            f"report.adapter {name!r}: no {_CONFIG} beside {_WEIGHTS[0]}; name the folder that "
            "training saved, or an id of report.adapters"
        )
    try:
        settings = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"report.adapter {name!r}: {_CONFIG} is not JSON") from error
    rank = _rank(name, settings)
    digest = hashlib.blake2b(digest_size=4)
    for file in (folder / _CONFIG, weights[0]):
        digest.update(file.read_bytes())
    return AdapterSource(adapter_id=name, folder=folder, weights_hash=digest.hexdigest(), rank=rank)


def _rank(name: str, settings: Any) -> int:
    if not isinstance(settings, Mapping) or str(settings.get("peft_type")).upper() != "LORA":
        raise ConfigError(f"report.adapter {name!r}: peft_type in {_CONFIG} is not LORA")
    rank = settings.get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ConfigError(f"report.adapter {name!r}: r in {_CONFIG} is {rank!r}, not a rank")
    patterns = settings.get("rank_pattern") or {}
    return max([rank, *(int(own) for own in patterns.values())])


def _fetched(address: str, cache_folder: Path, endpoint: str | None) -> Path:
    """A copy of an adapter on S3; fetched once for each version of its files."""
    import fsspec
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        remote = fsspec.filesystem("s3", endpoint_url=endpoint, use_listings_cache=False)
        root = address.removeprefix("s3://").rstrip("/")
        listed = remote.ls(root, detail=True)
        wanted = [f for f in listed if f["name"].rsplit("/", 1)[-1] in (_CONFIG, *_WEIGHTS)]
        if not wanted or sum(f["size"] for f in wanted) > _MAX_FILE_BYTES:
            raise ConfigError(f"report.adapter: {address} holds no adapter, or one above 4 GiB")
        versions = sorted(f"{f['name']}:{f.get('ETag')}:{f['size']}" for f in wanted)
        version = hashlib.blake2b("\n".join(versions).encode(), digest_size=8).hexdigest()
        folder = cache_folder / "adapters" / version
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / f"{version}.lock"):
            if not folder.is_dir():
                _fetch(remote, [str(f["name"]) for f in wanted], folder)
    except (OSError, BotoCoreError, ClientError) as error:
        raise ConfigError(
            f"report.adapter: {address} could not be fetched ({type(error).__name__}); look at the "
            "address, the AWS credentials and report.adapter_s3_endpoint"
        ) from error
    return folder


def _fetch(remote: Any, names: list[str], folder: Path) -> None:
    """All files or none."""
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        for name in names:
            remote.get_file(name, str(draft / name.rsplit("/", 1)[-1]))
        draft.chmod(0o755)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
