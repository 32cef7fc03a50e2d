"""Weights on disk: safetensors with everything that is needed to use them safely.

In: a file (local path or s3://). Out: tensors and a CheckpointInfo, or CheckpointError.
Does not know: how weights are trained or run.

The metadata names the network's config, the preprocessing fingerprint, the HU windows, the
calibration and how training went; a network whose input was made otherwise refuses the file.
"""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from raypipe.errors import CheckpointError
from raypipe.knowledge.windows import Window
from raypipe.model.network import NetworkConfig
from raypipe.rescoring import Rescoring
from raypipe.settings import Settings

FORMAT = "1"
DEFAULT_WEIGHTS = "small.safetensors"


class Calibration(Settings):
    """Platt scaling: probability = sigmoid(slope * logit(score) + intercept), label by label."""

    slope: dict[str, float] = Field(description="label -> slope, positive")
    intercept: dict[str, float] = Field(description="label -> intercept")


class CheckpointInfo(Settings):
    """What a checkpoint says of itself."""

    format: Literal["1"] = Field(default="1", description="version of this layout")
    network: NetworkConfig = Field(description="how to build the network")
    fingerprint: str = Field(description="preprocessing that the weights were trained behind")
    windows: tuple[Window, Window, Window] = Field(description="HU windows of the channels")
    thresholds: dict[str, float] = Field(
        default={}, description="label -> score above which a finding is claimed"
    )
    calibration: Calibration | None = Field(default=None, description="of scores, where known")
    rescoring: Rescoring | None = Field(
        default=None,
        description="second stage, which scores what linked boxes form; or none",
    )
    training: dict[str, Any] = Field(default={}, description="data, steps, metrics; to read only")


Info = TypeVar("Info", bound=CheckpointInfo)


def save_checkpoint(path: str | Path, state: dict[str, Tensor], info: CheckpointInfo) -> None:
    """Write weights (float32) and their info to one safetensors file."""
    from safetensors.torch import save

    tensors = {
        key: value.detach().to("cpu", torch.float32).contiguous() for key, value in state.items()
    }
    data = save(tensors, metadata={"raypipe": info.model_dump_json()})
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(data)
    partial.replace(target)  # a reader never sees half a file


def load_checkpoint(
    path: str | Path, s3_endpoint: str | None = None
) -> tuple[dict[str, Tensor], CheckpointInfo, str]:
    """Read weights.

    Args:
        path: a local file, an s3:// address, or "default" for the packaged weights.
        s3_endpoint: address of an S3 server that is not AWS.

    Returns:
        tensors, info, and the first 16 hex digits of the file's sha256.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
    """
    data = _read(str(path), s3_endpoint)
    try:
        return parse_checkpoint(data, CheckpointInfo)
    except ValueError as error:
        raise CheckpointError(
            f"weights: {path} is no raypipe checkpoint of format {FORMAT} "
            f"({type(error.__cause__ or error).__name__}); train or fetch it again"
        ) from error


def parse_checkpoint(data: bytes, kind: type[Info]) -> tuple[dict[str, Tensor], Info, str]:
    """Tensors, info of the given kind, and the first 16 hex digits of the sha256.

    Raises:
        ValueError: the bytes are no safetensors, or their info is missing or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors: dict[str, Tensor] = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        info = kind.model_validate_json(header["__metadata__"]["raypipe"])
    except (SafetensorError, KeyError) as error:
        raise ValueError("no safetensors with an info of raypipe") from error
    return tensors, info, hashlib.sha256(data).hexdigest()[:16]


def _read(path: str, s3_endpoint: str | None) -> bytes:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if path == "default":
            return (resources.files("raypipe.model") / "weights" / DEFAULT_WEIGHTS).read_bytes()
        if "://" in path:
            import fsspec

            server = {"endpoint_url": s3_endpoint} if s3_endpoint else {}
            with fsspec.open(path, "rb", **server) as file:
                return bytes(file.read())
        return Path(path).read_bytes()
    except (OSError, ImportError, ValueError, BotoCoreError, ClientError) as error:
        raise CheckpointError(
            f"weights: cannot read {path!r} ({type(error).__name__}); "
            "name a safetensors file, an s3:// address that the AWS credentials open (for a server "
            "other than AWS set detector.weights_s3_endpoint or AWS_ENDPOINT_URL), or 'default'"
        ) from error


def check_fingerprint(info: CheckpointInfo, fingerprint: str) -> None:
    """Refuse weights that were trained behind other preprocessing.

    Raises:
        CheckpointError: with both fingerprints.
    """
    if info.fingerprint != fingerprint:
        raise CheckpointError(
            f"weights: trained behind preprocessing {info.fingerprint}, but this run prepares "
            f"with {fingerprint}; use the matching preprocessing config or train again"
        )


def check_state(state: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Refuse tensors that do not fit the network.

    Raises:
        CheckpointError: naming the first tensor that is missing, superfluous or of another shape.
    """
    for key in sorted(set(state) ^ set(expected)):
        kind = "missing" if key in expected else "superfluous"
        raise CheckpointError(f"weights: tensor {key} is {kind}; the file and its config differ")
    for key, value in state.items():
        if value.shape != expected[key].shape:
            raise CheckpointError(
                f"weights: tensor {key} has shape {tuple(value.shape)}, "
                f"not {tuple(expected[key].shape)}"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(f"weights: tensor {key} holds values that are not finite")
