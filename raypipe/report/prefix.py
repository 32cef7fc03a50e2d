"""The visual prefix: what the detector saw, as embeddings in front of the prompt.

In: a projector's file, the language model of a config; vectors of findings. Out: (n * k, h)
embeddings, k for each finding in the order in which the prompt lists them.
Does not know: where vectors come from, engines, training.

A projector fits one detector, one language model and one adapter; its file names them all, and any
other is refused. The text part of a prompt stays tokens: the engine embeds it by itself.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from torch import Tensor, nn

from raypipe.errors import ConfigError
from raypipe.report.adapter import adapter_id, find_adapters
from raypipe.report.config import ReportConfig
from raypipe.report.model_source import ModelSource, find_model
from raypipe.settings import Settings

Embeddings = NDArray[np.float32] | None

MOST_PLACES = 40
"""Findings that a prompt may list; as findings_limit."""
_SAMPLES, _SAMPLE_BYTES = 64, 4096


class ProjectorInfo(Settings):
    """What a projector's file says of itself."""

    format: Literal["1"] = Field(default="1", description="version of this layout")
    features: int = Field(gt=0, description="numbers of a finding's vector")
    hidden: int = Field(gt=0, description="width of the middle layer")
    tokens: int = Field(gt=0, le=16, description="embeddings of a finding")
    width: int = Field(gt=0, description="of the language model's embeddings")
    language_model: str = Field(description="hash of the language model")
    detector: str = Field(description="hash of the detector's weights")
    adapter: str = Field(description="hash of the adapter trained beside it; empty: none")
    training: dict[str, Any] = Field(default={}, description="data, metrics; to read only")


class Projector(nn.Module):
    """From vectors of findings to embeddings of the language model.

    The last number of a row is the finding's place in the prompt's list, from 0, so that the model
    can tell whose embeddings are whose.

    Args:
        features: numbers of a vector, without the place.
        hidden: width of the middle layer.
        tokens: embeddings of a finding.
        width: of an embedding.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int, hidden: int, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.first = nn.Linear(features, hidden)
        self.second = nn.Linear(hidden, tokens * width)
        self.place = nn.Embedding(MOST_PLACES, tokens * width)
        self.scale = nn.Parameter(torch.tensor(1.0))
        nn.init.normal_(self.place.weight, std=0.5)

    @torch.no_grad()
    def fit(self, features_nd: Tensor, embedding_rms: float) -> None:
        """Begin where vectors are standardised and outputs are as large as the model's own."""
        self.mean.copy_(features_nd.mean(dim=0))
        self.spread.copy_(features_nd.std(dim=0).clamp(min=1e-3))
        self.scale.fill_(embedding_rms)

    def forward(self, rows_nd: Tensor) -> Tensor:
        """(n, features + 1), the last one the place -> (n * tokens, width)."""
        places = rows_nd[:, -1].long()
        middle = nn.functional.gelu(self.first((rows_nd[:, :-1] - self.mean) / self.spread))
        made: Tensor = self.second(middle) + self.place(places)
        return (self.scale * made).reshape(-1, self.width)


def with_places(features_nd: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of listed findings with their places: (n, d) -> (n, d + 1)."""
    places = np.arange(len(features_nd), dtype=np.float32)[:, None]
    return np.concatenate([features_nd, places], axis=1)


class VisualPrefix:
    """A projector ready to use.

    Args:
        projector: the network.
        info: of its file.
        weights_hash: of the file.
    """

    def __init__(self, projector: Projector, info: ProjectorInfo, weights_hash: str) -> None:
        self.info, self.weights_hash = info, weights_hash
        self._projector = projector.eval()

    @property
    def name(self) -> str:
        """For reports and provenance."""
        return f"visual prefix ({self.weights_hash})"

    def embed(self, features_nd: NDArray[np.float32] | None, order: Sequence[int]) -> Embeddings:
        """Embeddings of the findings that a prompt lists; None where it lists none.

        Args:
            features_nd: vectors of all findings of a series.
            order: which of them the prompt lists, in its order.

        Raises:
            ValueError: there are no vectors, or of another width.
        """
        if not order:
            return None
        if features_nd is None or features_nd.shape[1:] != (self.info.features,):
            shape = None if features_nd is None else features_nd.shape
            raise ValueError(
                f"visual prefix: vectors of findings are (n, {self.info.features}), not {shape}; "
                "Detect makes them where its config names the prefix"
            )
        rows = torch.from_numpy(with_places(features_nd[list(order)].astype(np.float32)))
        with torch.inference_mode():
            made: NDArray[np.float32] = self._projector(rows).numpy()
        return made


def load_prefix(config: ReportConfig) -> VisualPrefix:
    """The projector of a config, if it fits the language model and the adapter.

    Raises:
        ConfigError: it is not there, is none, or was trained beside others.
    """
    prefix = read_projector(config.prefix, config)
    info = prefix.info
    source = find_model(config.language_model, config.cache_folder)
    found = language_model_hash(source)
    if info.language_model != found:
        raise ConfigError(
            f"report.prefix: trained for the language model {info.language_model}, but "
            f"report.language_model {source.name} is {found}; train it for this one"
        )
    name = adapter_id(config)
    adapter = find_adapters(config)[name].weights_hash if name else ""
    if info.adapter != adapter:
        raise ConfigError(
            f"report.prefix: trained beside the adapter {info.adapter or '(none)'}, but "
            f"report.adapter is {adapter or '(none)'}; name the adapter that was trained with it"
        )
    return prefix


def check_detector(config: ReportConfig, weights_hash: str, features: int) -> None:
    """Refuse a projector that was trained behind another detector.

    Args:
        config: names the projector.
        weights_hash: of the detector.
        features: numbers of its vectors.

    Raises:
        ConfigError: with both.
    """
    info = read_projector(config.prefix, config).info
    if (info.detector, info.features) != (weights_hash, features):
        raise ConfigError(
            f"report.prefix: trained behind the detector {info.detector} ({info.features} numbers "
            f"a finding), but detector.weights is {weights_hash} ({features} numbers); train it "
            "behind this one"
        )


def save_projector(path: Path, projector: Projector, info: ProjectorInfo) -> None:
    """Write a projector and what it fits to one safetensors file."""
    from safetensors.torch import save_file

    state = {k: v.detach().cpu().contiguous() for k, v in projector.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(state, str(partial), metadata={"raypipe_prefix": info.model_dump_json()})
    partial.replace(path)  # a reader never sees half a file


def read_projector(location: str, config: ReportConfig) -> VisualPrefix:
    """A projector, whatever it fits.

    Args:
        location: path or s3:// address.
        config: names the S3 server.

    Raises:
        ConfigError: it is not there, or is no projector.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = _read(location, config.adapter_s3_endpoint)
    try:
        state = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        info = ProjectorInfo.model_validate_json(header["__metadata__"]["raypipe_prefix"])
        projector = Projector(info.features, info.hidden, info.tokens, info.width)
        projector.load_state_dict(state)
    except (SafetensorError, KeyError, ValidationError, RuntimeError) as error:
        raise ConfigError(
            f"report.prefix: the file is no projector of raypipe ({type(error).__name__}); name "
            "the one that training wrote"
        ) from error
    return VisualPrefix(projector, info, hashlib.blake2b(data, digest_size=4).hexdigest())


def _read(location: str, endpoint: str | None) -> bytes:
    import fsspec
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        told = {"endpoint_url": endpoint} if location.startswith("s3://") else {}
        with fsspec.open(location, "rb", **told) as file:
            return bytes(file.read())
    except (OSError, BotoCoreError, ClientError) as error:
        raise ConfigError(
            f"report.prefix: {location} could not be read ({type(error).__name__}); name a "
            "safetensors file or an s3:// address"
        ) from error


def language_model_hash(source: ModelSource) -> str:
    """Hash of a language model: config, names and shapes of all tensors, samples of their numbers.

    A model of many GB is not read whole; other weights of one shape differ in the samples.

    Raises:
        ConfigError: the model has no safetensors files.
    """
    folder = Path(source.location) if source.local else _snapshot(source.location)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(
            f"report.prefix: the language model {source.name} has no safetensors files to tell it "
            "by; save it as safetensors"
        )
    digest = hashlib.blake2b(digest_size=8)
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = [settings.get(name) for name in ("hidden_size", "num_hidden_layers", "vocab_size")]
    digest.update(json.dumps(shape).encode())
    for file in files:
        with file.open("rb") as stream:
            begins = 8 + int.from_bytes(stream.read(8), "little")
            size = file.stat().st_size
            stream.seek(0)
            digest.update(stream.read(begins))
            for number in range(_SAMPLES):
                stream.seek(begins + (size - begins) * number // _SAMPLES)
                digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _snapshot(name: str) -> Path:
    """The local copy of a model of the hub; the engine needs the same files."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.safetensors", "config.json"]))
