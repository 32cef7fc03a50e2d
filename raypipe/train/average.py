"""One detector out of several: the mean of their weights.

In: checkpoints of one network. Out: a checkpoint whose weights are the mean, calibrated anew.
Does not know: how they were trained.

Trainings that began from the same weights end in one basin, and the mean of their ends lies deeper
in it than each (Wortsman et al., ICML 2022, "Model soups"), at no cost when it runs. Weights that
were drawn apart have no such mean.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from raypipe.errors import CheckpointError
from raypipe.model.checkpoint import (
    CheckpointInfo,
    check_fingerprint,
    check_state,
    load_checkpoint,
)
from raypipe.train.finish import finish
from raypipe.train.synthesis import SynthesisConfig


def average(weights: Sequence[str], target: Path, calibration: SynthesisConfig) -> dict[str, float]:
    """Write the mean of several detectors.

    Args:
        weights: paths, s3:// addresses or "default"; each counts once. The second stage is that of
            the first one that has one.
        target: file to write.
        calibration: series on which thresholds and probabilities are fitted.

    Returns:
        metrics of those series, named "series/..."; empty without such series.

    Raises:
        CheckpointError: a file cannot be read, or the detectors are not of one network.
    """
    if len(weights) < 2:
        raise CheckpointError("train average: name at least two files of weights")
    loaded = [load_checkpoint(path) for path in weights]
    first, info, _ = loaded[0]
    for path, (state, other, _) in zip(weights, loaded, strict=True):
        check_fingerprint(other, info.fingerprint)
        if (other.network, other.windows) != (info.network, info.windows):
            raise CheckpointError(
                f"train average: {path} is another network than {weights[0]}; average weights that "
                "one training went on from"
            )
        check_state(state, first)
    parents = [{"hash": digest} | told.training for _, told, digest in loaded]
    mean = CheckpointInfo(
        network=info.network,
        fingerprint=info.fingerprint,
        windows=info.windows,
        rescoring=next((told.rescoring for _, told, _ in loaded if told.rescoring), None),
        training={"average_of": parents, "metrics": {}},
    )
    return finish(_mean([state for state, _, _ in loaded]), mean, target, calibration, threads=None)


def _mean(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Summed in float64, so that the order of the files does not matter."""
    return {
        key: torch.stack([state[key].double() for state in states]).mean(dim=0).to(value.dtype)
        for key, value in states[0].items()
    }
