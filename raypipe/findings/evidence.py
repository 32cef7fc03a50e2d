"""What speaks for or against a track beside its score: the course of its boxes, grey values, place.

In: tracks on the grid of a ModelInput, its HU, the labels of the series. Out: one row of numbers a
track. Does not know: which of them matter, and how much; see rescore.

A vessel is a nodule on every slice that it crosses at a right angle: only its course tells. So the
numbers are those by which a reader tells them apart: how long a thing is for its width, how far it
wanders from slice to slice, whether it goes on beyond its last box, whether others like it lie
about.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raypipe.findings.attributes import BODY_HU, mean_hu
from raypipe.findings.contour import Surroundings
from raypipe.findings.decode import slice_of
from raypipe.findings.link import Track, strong_boxes
from raypipe.findings.piece import PIECE, piece_of
from raypipe.geometry import Box
from raypipe.types import HuArray, ModelInput

EVIDENCE = (
    "track score",
    "best score",
    "mean of three best",
    "mean of strong boxes",
    "spread of scores",
    "boxes",
    "strong boxes",
    "length",
    "strong length",
    "diameter",
    "length by diameter",
    "wander",
    "slant",
    "boxes missing between",
    "aspect",
    "spread of diameters",
    "other label here",
    "better of this label",
    "best other of this label",
    "aside",
    "height",
    "cut off",
    "slice distance",
    "pixel",
    "label of series",
    "mean HU",
    "HU around",
    "noise",
    "contrast",
    "contrast by noise",
    "goes on below",
    "goes on above",
    *PIECE,
)
"""The columns of `evidence`. Scores are logits; lengths are logarithms of mm."""

_HU_COLUMNS = 7 + len(PIECE)
"""The last so many are NaN without HU."""
_SAME_PLACE_IOU = 0.3


def evidence(
    tracks: Sequence[Track],
    model_input: ModelInput,
    label_scores: Mapping[str, float],
    has_hu: bool,
) -> NDArray[np.float64]:
    """(tracks, EVIDENCE) numbers; NaN where they are not known.

    Args:
        tracks: of one series, all labels, on the grid of model_input.
        model_input: what the detector saw.
        label_scores: label -> how likely the series shows it.
        has_hu: whether grey values are HU.
    """
    if not tracks:
        return np.zeros((0, len(EVIDENCE)))
    spacing = model_input.geometry.spacing_zyx_mm
    spacing_z, _, pixel = spacing
    last = len(model_input.hu) - 1
    course = [
        (*_of_scores(track), *_of_course(track, spacing_z, pixel), *beside)
        for track, beside in zip(tracks, _of_others(tracks), strict=True)
    ]
    where = _of_place(tracks, model_input.hu)
    series = [
        (
            float(_is_cut(track, last)),
            math.log(spacing_z),
            math.log(pixel),
            logit(label_scores.get(track.label, 0.0)),
        )
        for track in tracks
    ]
    if has_hu:
        grey = [_of_grey_values(track, model_input.hu, spacing) for track in tracks]
    else:
        grey = [(math.nan,) * _HU_COLUMNS] * len(tracks)
    return np.concatenate([np.array(part) for part in (course, where, series, grey)], axis=1)


def logit(score: float) -> float:
    """Of a score from 0 to 1, held where it is finite."""
    held = min(max(score, 1e-4), 1.0 - 1e-4)
    return math.log(held / (1.0 - held))


def _of_scores(track: Track) -> tuple[float, ...]:
    scores = np.sort([d.score for d in track.detections])[::-1]
    of_strong = [d.score for d in strong_boxes(track.detections)]
    return (
        logit(track.score),
        logit(float(scores[0])),
        logit(float(scores[:3].mean())),
        logit(float(np.mean(of_strong))),
        float(scores.std()),
        math.log(len(scores)),
        math.log(len(of_strong)),
    )


def _of_course(track: Track, spacing_z_mm: float, pixel_mm: float) -> tuple[float, ...]:
    """Length, width, and how the boxes move from slice to slice."""
    boxes = strong_boxes(track.detections)
    z = np.array([slice_of(d) for d in track.detections])
    length = float(z[-1] - z[0] + 1) * spacing_z_mm
    strong_length = float(slice_of(boxes[-1]) - slice_of(boxes[0]) + 1) * spacing_z_mm
    edges = np.array([d.box_zyx.size_zyx[1:] for d in track.detections]).clip(0.1) * pixel_mm
    strong_edges = np.array([d.box_zyx.size_zyx[1:] for d in boxes]).clip(0.1) * pixel_mm
    diameters = np.sqrt(strong_edges.prod(axis=1))
    diameter = max(float(diameters.max()), 0.5)
    centers = np.array([d.box_zyx.center_zyx[1:] for d in track.detections]) * pixel_mm
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1) / np.diff(z) if len(z) > 1 else [0.0]
    return (
        math.log(length),
        math.log(strong_length),
        math.log(diameter),
        math.log(strong_length / diameter),
        min(float(np.mean(steps)) / diameter, 2.0),
        min(float(np.linalg.norm(centers[-1] - centers[0])) / length, 3.0),
        1.0 - len(z) / float(z[-1] - z[0] + 1),
        float(np.abs(np.log(edges[:, 0] / edges[:, 1])).mean()),
        float(np.log(diameters).std()),
    )


def _of_others(tracks: Sequence[Track]) -> list[tuple[float, float, float]]:
    """Best score of another label in the same place; how many of its own are better; the best."""
    lower = np.array([t.box_zyx.lower_zyx for t in tracks])
    upper = np.array([t.box_zyx.upper_zyx for t in tracks])
    volume = (upper - lower).prod(axis=1)
    score = np.array([t.score for t in tracks])
    label = np.array([t.label for t in tracks])
    out = []
    for i in range(len(tracks)):
        shared = (np.minimum(upper, upper[i]) - np.maximum(lower, lower[i])).clip(0).prod(axis=1)
        here = shared > _SAME_PLACE_IOU * (volume + volume[i] - shared)
        same = label == label[i]
        other = score[here & ~same].max(initial=0.0)
        better = int((score[same] > score[i]).sum())
        same[i] = False
        out.append((float(other), min(better, 10) / 10.0, float(score[same].max(initial=0.0))))
    return out


def _of_place(tracks: Sequence[Track], hu: HuArray) -> list[tuple[float, float]]:
    """How far aside of the middle and how far to the back, as shares of what the body spans."""
    body: NDArray[np.bool_] = np.any(hu[:, ::2, ::2] > BODY_HU, axis=0)
    y0, y1 = _span(np.flatnonzero(np.any(body, axis=1)), hu.shape[1])
    x0, x1 = _span(np.flatnonzero(np.any(body, axis=0)), hu.shape[2])
    out = []
    for track in tracks:
        _, y, x = track.box_zyx.center_zyx
        out.append((abs((x - x0) / (x1 - x0) - 0.5), (y - y0) / (y1 - y0)))
    return out


def _span(every_second: NDArray[np.int64], length: int) -> tuple[int, int]:
    """From the first to the last of pixels told by every second one; all where none is told."""
    if not len(every_second):
        return 0, length
    return 2 * int(every_second[0]), 2 * int(every_second[-1]) + 2


def _is_cut(track: Track, last_slice: int) -> bool:
    """Whether it begins or ends where the series does."""
    return slice_of(track.detections[0]) == 0 or slice_of(track.detections[-1]) == last_slice


def _of_grey_values(
    track: Track, hu: HuArray, spacing_zyx_mm: tuple[float, float, float]
) -> tuple[float, ...]:
    around = Surroundings.of(hu, track.best.box_zyx)
    contrast = around.contrast()
    level = 0.0 if math.isnan(around.level) else around.level
    noise = 0.0 if math.isnan(around.noise) else around.noise
    boxes = strong_boxes(track.detections)
    return (
        _held(mean_hu(hu, track.box_zyx), -1000.0, 500.0) / 300.0,
        _held(level, -1000.0, 500.0) / 300.0,
        min(noise, 100.0) / 30.0,
        _held(contrast, -300.0, 300.0) / 100.0,
        min(abs(contrast) / max(noise, 3.0), 20.0) / 5.0,
        _goes_on(hu, boxes[0].box_zyx, -1, contrast),
        _goes_on(hu, boxes[-1].box_zyx, 1, contrast),
        *piece_of(track, hu, around.level, contrast, spacing_zyx_mm),
    )


def _goes_on(hu: HuArray, end: Box, step: int, contrast: float) -> float:
    """Contrast that an end's box has on the slice beyond it, as a share of the track's."""
    z = int(end.lower_zyx[0]) + step
    if not 0 <= z < len(hu) or contrast == 0.0:
        return 0.0
    beyond = Box(
        lower_zyx=(float(z), *end.lower_zyx[1:]), upper_zyx=(float(z + 1), *end.upper_zyx[1:])
    )
    around = Surroundings.of(hu, beyond)
    if math.isnan(around.level):
        return 0.0
    return _held((mean_hu(hu, beyond) - around.level) / contrast, -1.0, 2.0)


def _held(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
