"""Weights as they ship: with thresholds, calibration and what they do on whole series.

In: weights, series with known lesions. Out: a file of the weights.
Does not know: how they were trained.
"""

from pathlib import Path

from torch import Tensor

from raypipe.model.checkpoint import CheckpointInfo, save_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector, build_network
from raypipe.train.calibrate import calibrate, match_series, whole_series
from raypipe.train.synthesis import SynthesisConfig


def finish(
    state: dict[str, Tensor],
    info: CheckpointInfo,
    target: Path,
    calibration: SynthesisConfig,
    threads: int | None,
) -> dict[str, float]:
    """Write weights with thresholds, calibration and metrics of whole series.

    Args:
        state: the weights.
        info: what is known of them.
        target: file to write.
        calibration: the series; none of them: the weights carry neither.
        threads: of the CPU; None leaves them as they are.

    Returns:
        The metrics, named "series/..."; empty without series.
    """
    if not calibration.phantom_series and not calibration.backgrounds:
        save_checkpoint(target, state, info)
        return {}
    detector = Detector.of(build_network(info, state), info, DetectorConfig(threads=threads))
    series = whole_series(calibration)
    matches, count = match_series(detector, series, calibration.preprocess)
    result = calibrate(matches, count, info.network.labels)
    metrics = {f"series/{key}": value for key, value in result.metrics.items()}
    known = info.training["metrics"] | {k: round(v, 4) for k, v in metrics.items()}
    save_checkpoint(
        target,
        state,
        info.model_copy(
            update={
                "thresholds": result.thresholds,
                "calibration": result.calibration,
                "training": info.training | {"metrics": known},
            }
        ),
    )
    return metrics
