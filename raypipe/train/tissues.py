"""What each part of a slice is, organ or lesion: a dense truth beside the boxes.

In: organ and lesion maps. Out: small maps of tissue codes, and their part of the loss.
Does not know: networks, files.

A few boxes tell a network little about the rest of the slice; organs tell it everywhere where it
is, so that small lesions are learned from fewer slices (Jaeger 2020, Retina U-Net).

Shape suffixes: B slices, T tissues, H W cells.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own short name

from raypipe.model.encoder import IMAGE_SIZE
from raypipe.phantom import KINDS, Lesion
from raypipe.phantom.organs import ORGAN_NAMES

TISSUES: tuple[str, ...] = (*ORGAN_NAMES.values(), *KINDS)
"""Name of each code."""
FIRST_LESION = len(ORGAN_NAMES)
UNKNOWN = 255
MAP_SIZE = IMAGE_SIZE // 2
_LESION_CODE = {label: FIRST_LESION + i for i, label in enumerate(KINDS)}


def unknown_tissues() -> NDArray[np.uint8]:
    """The map of a slice of which nothing is known."""
    return np.full((MAP_SIZE, MAP_SIZE), UNKNOWN, np.uint8)


def tissue_map(
    organs_yx: NDArray[np.uint8],
    lesions_yx: NDArray[np.uint8],
    lesions: Sequence[Lesion],
    *,
    all_organs: bool,
) -> NDArray[np.uint8]:
    """Codes of a slice at half its resolution; a lesion hides the organ that it lies in.

    Args:
        organs_yx: (256, 256) codes of phantom.Organ.
        lesions_yx: (256, 256); 0, or 1 + index into lesions.
        lesions: the truth.
        all_organs: whether the organ map is complete; else only lesions are known.
    """
    codes = organs_yx.copy() if all_organs else np.full_like(organs_yx, UNKNOWN)
    for number in np.unique(lesions_yx[lesions_yx > 0]):
        codes[lesions_yx == number] = _LESION_CODE[lesions[number - 1].label]
    return _halved(codes)


def _halved(codes_yx: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Half the resolution; a lesion of a single pixel must not vanish between those kept."""
    half = len(codes_yx) // 2
    four = codes_yx.reshape(half, 2, half, 2).transpose(0, 2, 1, 3).reshape(-1, 4)
    lesion = np.where(four == UNKNOWN, 0, four).max(axis=1)
    kept = np.where(lesion >= FIRST_LESION, lesion, four[:, 0])
    return np.asarray(kept.reshape(half, half), np.uint8)


def moved_tissues(codes_yx: NDArray[np.uint8], theta_123: Tensor, cells: int) -> NDArray[np.uint8]:
    """The map of a moved slice, one code a cell; see batches for the movement.

    Args:
        codes_yx: (128, 128).
        theta_123: (1, 2, 3), what moved the slice.
        cells: edge of the result.
    """
    where = F.affine_grid(theta_123, [1, 1, 2 * cells, 2 * cells], align_corners=False)
    raised = torch.from_numpy(codes_yx.astype(np.float32))[None, None] - UNKNOWN  # 0 is unknown
    moved = F.grid_sample(raised, where, mode="nearest", align_corners=False)
    return _halved(np.asarray((moved[0, 0] + UNKNOWN).numpy(), np.uint8))


def tissue_term(
    logits_bthw: Tensor, codes_bhw: Tensor, share: Callable[[Tensor], Tensor]
) -> Tensor:
    """Cross-entropy, half of it over organs and half over lesions, which fill few cells.

    Args:
        share: maps a worker's count to the mean over workers.
    """
    entropy = F.cross_entropy(logits_bthw, codes_bhw, ignore_index=UNKNOWN, reduction="none")
    lesion = (codes_bhw >= FIRST_LESION) & (codes_bhw != UNKNOWN)
    organ = codes_bhw < FIRST_LESION
    total = logits_bthw.sum() * 0.0
    for part in (organ, lesion):
        total = total + 0.5 * (entropy * part).sum() / share(part.sum().float()).clamp(min=1.0)
    return total
