"""What the detector sees in the boxes of findings, as vectors: its attended features.

In: a Detector, a ModelInput, findings or boxes with the slice where each shows best. Out: a vector
each. Does not know: language models, how a vector is used.

A vector is, level by level of the pyramid, the mean over the cells in the box of what the heads of
class and attributes read, weighted by the attention map; behind these stands what the caller knows
of the whole series. Only the slices that are named are looked at, once each.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.geometry import Box, Geometry
from raypipe.model.detector import Detector, stacks
from raypipe.model.encoder import IMAGE_SIZE
from raypipe.model.network import enhanced_pyramid
from raypipe.types import Finding, ModelInput

_LARGEST = 6e4
"""float16 ends at 65504."""


def attended_width(detector: Detector) -> int:
    """Numbers of one vector: every level of the pyramid, and the series' vector (mean, highest)."""
    channels = detector.info.network.pyramid_channels
    return channels * (len(detector.network.strides) + 4)


def places_of(
    findings: Sequence[Finding], volume: Geometry, target: Geometry
) -> list[tuple[int, Box]]:
    """The slice where each finding shows best, and its box, from the Volume's grid to another."""
    places = []
    for finding in findings:
        _, y, x = finding.box_zyx.center_zyx
        at = target.to_index(volume.to_lps_mm((finding.key_slice, y, x)))
        places.append((round(float(at[0])), volume.box_to(target, finding.box_zyx)))
    return places


def attended_features(
    detector: Detector,
    model_input: ModelInput,
    places: Sequence[tuple[int, Box]],
    series_d: NDArray[np.float32],
) -> NDArray[np.float32]:
    """The vectors of some boxes.

    Args:
        detector: the network.
        model_input: the series.
        places: slice and box (its extent along z does not matter) on the grid of model_input.
        series_d: vector of the series, as Prediction.features.

    Returns:
        (n, d) finite float32, rounded to float16 so that the last bits of a machine do not matter.
    """
    if not places:
        return np.zeros((0, attended_width(detector)), dtype=np.float32)
    count = len(model_input.hu)
    wanted = sorted({min(max(z, 0), count - 1) for z, _ in places})
    found: list[NDArray[np.float32]] = [np.zeros(0, dtype=np.float32)] * len(places)
    for start in range(0, len(wanted), detector.config.batch_slices):
        part = wanted[start : start + detector.config.batch_slices]
        hu_bzhw = np.concatenate([stacks(model_input.hu, z, z + 1) for z in part])
        maps, attention = _levels(detector, hu_bzhw)
        for i, (z, box) in enumerate(places):
            at = min(max(z, 0), count - 1)
            if at in part:
                b = part.index(at)
                found[i] = _pooled(
                    [level[b] for level in maps], [level[b] for level in attention], box
                )
    of_boxes = np.stack(found)
    of_series = np.broadcast_to(series_d, (len(places), len(series_d)))
    vectors = np.nan_to_num(np.concatenate([of_boxes, of_series], axis=1))
    rounded: NDArray[np.float32] = (
        vectors.clip(-_LARGEST, _LARGEST).astype(np.float16).astype(np.float32)
    )
    return rounded


def _levels(detector: Detector, hu_bzhw: NDArray[np.int16]) -> tuple[list[Tensor], list[Tensor]]:
    """Of every level what the heads read (B, C, H, W) and the attention (B, H, W), on the CPU."""
    network = detector.network
    with torch.inference_mode(), detector.precision():
        maps = network.encoder(detector.channels(hu_bzhw))[network.first :]
        pyramid = enhanced_pyramid(maps, network.pyramid, network.nodes, network.enhancements)
        read = [network.box_head.class_tower(level).float().cpu() for level in pyramid.maps]
        attention = [torch.sigmoid(a[:, 0].float()).cpu() for a in pyramid.attention]
    return read, attention


def _pooled(maps: Sequence[Tensor], attention: Sequence[Tensor], box: Box) -> NDArray[np.float32]:
    """(levels * C): the weighted mean over a box within its slice, level by level."""
    parts = []
    for level_chw, attention_hw in zip(maps, attention, strict=True):
        y, x = (_inside(box, axis, attention_hw.shape[axis - 1]) for axis in (1, 2))
        weight_hw = y[:, None] * x[None, :] * attention_hw
        total = weight_hw.sum()
        parts.append((level_chw * weight_hw).sum(dim=(1, 2)) / total.clamp(min=1e-12))
    pooled: NDArray[np.float32] = torch.cat(parts).numpy()
    return pooled


def _inside(box: Box, axis: int, cells: int) -> Tensor:
    """(cells,) share of each cell along an axis of the slice that lies in the box."""
    stride = IMAGE_SIZE / cells
    first = torch.arange(cells) * stride
    lower = torch.clamp(first, min=box.lower_zyx[axis])
    upper = torch.clamp(first + stride, max=box.upper_zyx[axis])
    return (upper - lower).clamp(min=0.0) / stride
