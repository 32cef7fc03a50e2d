"""Weights as they ship: with thresholds, calibration and what they do on whole series.

In: a checkpoint, series with known lesions. Out: the same weights in another file.
Does not know: how they were trained.
"""

from pathlib import Path

from raypipe.model.checkpoint import load_checkpoint, save_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.train.calibrate import calibrate, match_series, whole_series
from raypipe.train.synthesis import SynthesisConfig


def finish(
    weights: Path, target: Path, calibration: SynthesisConfig, threads: int | None
) -> dict[str, float]:
    """Write weights again with thresholds, calibration and metrics of whole series.

    Args:
        weights: file to read.
        target: file to write.
        calibration: the series; none of them: the weights carry neither.
        threads: of the CPU; None leaves them as they are.

    Returns:
        The metrics, named "series/..."; empty without series.
    """
    tensors, info, _ = load_checkpoint(weights)
    if not calibration.phantom_series and not calibration.backgrounds:
        save_checkpoint(target, tensors, info)
        return {}
    detector = Detector(DetectorConfig(weights=str(weights), threads=threads), info.fingerprint)
    series = whole_series(calibration)
    matches, count = match_series(detector, series, calibration.preprocess)
    result = calibrate(matches, count, info.network.labels)
    metrics = {f"series/{key}": value for key, value in result.metrics.items()}
    known = info.training["metrics"] | {k: round(v, 4) for k, v in metrics.items()}
    save_checkpoint(
        target,
        tensors,
        info.model_copy(
            update={
                "thresholds": result.thresholds,
                "calibration": result.calibration,
                "training": info.training | {"metrics": known},
            }
        ),
    )
    return metrics
