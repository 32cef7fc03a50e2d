"""What every training run is told, whatever it trains.

In: keyword arguments or YAML. Out: the base of the runs' configs. Does not know: models, data.
"""

from pydantic import Field

from raypipe.settings import Settings


class TrainRunConfig(Settings):
    """Where a run writes and how much machine it gets."""

    output: str = Field(description="folder or s3:// address for checkpoints, weights and curves")
    workers: int = Field(default=1, gt=0, description="training processes")
    threads: int = Field(default=1, gt=0, description="CPU threads of each worker")
    use_gpu: bool = Field(default=False, description="one accelerator a worker")
    max_failures: int = Field(default=3, ge=-1, description="restarts after a lost worker")
    seed: int = Field(default=0, ge=0, description="of weights, order and variation")
