"""How the detector runs; apart from the network, so that reading a config does not load torch.

In: keyword arguments. Out: a frozen DetectorConfig. Does not know: the network.
"""

from typing import Literal

from pydantic import Field

from raypipe.settings import Settings

RANDOM_WEIGHTS = "random"


class DetectorConfig(Settings):
    """How the detector runs."""

    weights: str = Field(
        default="default",
        description="'default' for the packaged weights, a path or s3:// address of a "
        "safetensors file, or 'random' for untrained weights (tests only)",
    )
    weights_s3_endpoint: str | None = Field(
        default=None,
        description="S3 server of the weights that is not AWS, with http:// or https://",
    )
    device: str = Field(default="cpu", description="torch device, e.g. 'cpu' or 'cuda'")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of the forward pass; outputs are float32"
    )
    batch_slices: int = Field(default=8, gt=0, description="slices of one series run at once")
    threads: int | None = Field(
        default=None, gt=0, description="CPU threads of torch; None leaves them as they are"
    )
    channels_last: bool = Field(default=True, description="memory layout of the feature maps")
    compile: bool = Field(default=False, description="torch.compile; pays off on long archives")
    score_floor: float = Field(
        default=0.05, ge=0, lt=1, description="boxes below this score are not returned"
    )
    boxes_per_slice: int = Field(
        default=40, gt=0, description="at most so many boxes a slice, repetitions left out"
    )
    seed: int = Field(default=0, description="of random weights")
