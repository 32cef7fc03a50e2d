"""Where the detector looked: its attention over a whole series.

In: a Detector and a ModelInput. Out: a map from 0 to 1 and its grid, coarser in the slice plane.
Does not know: findings, how a map is shown.
"""

import numpy as np
from numpy.typing import NDArray

from raypipe.geometry import Geometry
from raypipe.model.detector import Detector, stacks
from raypipe.types import HuArray, ModelInput


def attention_map(
    detector: Detector, model_input: ModelInput
) -> tuple[NDArray[np.float32], Geometry]:
    """Attention of every slice: the highest over the levels, on the finest one's cells.

    Returns:
        (z, y, x) float32 from 0 to 1, and the grid of its cells.
    """
    count, step = len(model_input.hu), detector.config.batch_slices
    parts = []
    for start in range(0, count, step):
        part = stacks(model_input.hu, start, min(count, start + step))
        parts.append(attention_of(detector, part))
    found = np.concatenate(parts)
    z, y, x = found.shape
    return found, model_input.geometry.resized((z, y, x))


def attention_of(detector: Detector, hu_bzhw: HuArray) -> NDArray[np.float32]:
    """The same of slices with their neighbours, as Detector.run takes them: (B, y, x)."""
    levels = detector.run(hu_bzhw).attention
    finest: NDArray[np.float32] = _sigmoid(levels[0][:, 0].numpy())
    for level in levels[1:]:
        coarse = _sigmoid(level[:, 0].numpy())
        scale = finest.shape[1] // coarse.shape[1]
        finest = np.maximum(finest, coarse.repeat(scale, axis=1).repeat(scale, axis=2))
    return finest


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    chances: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-logits))).astype(np.float32)
    return chances
