"""What every training run is told, whatever it trains.

In: keyword arguments or YAML. Out: the base of the runs' configs. Does not know: models, data.
"""

from typing import Self

from pydantic import Field, model_validator

from raypipe.settings import Settings


class TrainRunConfig(Settings):
    """Where a run writes and how much machine it gets."""

    output: str = Field(description="folder or s3:// address for checkpoints, weights and curves")
    workers: int = Field(default=1, gt=0, description="training processes")
    threads: int = Field(default=1, gt=0, description="CPU threads of each worker")
    use_gpu: bool = Field(default=False, description="one accelerator a worker")
    max_failures: int = Field(default=3, ge=-1, description="restarts after a lost worker")
    seed: int = Field(default=0, ge=0, description="of weights, order and variation")


class SliceRunConfig(TrainRunConfig):
    """The same of a network that sees slices."""

    batch_slices: int = Field(
        default=16, gt=0, description="slices a step, over all workers; divisible by them"
    )
    checkpoint_every: int = Field(default=200, gt=0, description="steps between checkpoints")
    log_every: int = Field(default=20, gt=0, description="steps between points of the curves")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.batch_slices % self.workers:
            raise ValueError(
                f"batch_slices {self.batch_slices} must be divisible by workers {self.workers}"
            )
        return self
