"""Link the boxes of neighbouring slices into lesions, and tell which label a lesion has.

In: boxes of each slice on one grid. Out: tracks: a box in three dimensions and a score.
Does not know: HU, patients, the grid of the Volume.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from raypipe.findings.decode import FindingsConfig, areas, slice_of
from raypipe.geometry import Box
from raypipe.types import Detection

STRONG = 0.4
"""Share of a track's best score that a box needs to count for its score and extent."""


@dataclass(frozen=True, kw_only=True)
class Track:
    """One lesion through the slices.

    Args:
        label: key of a finding.
        detections: its boxes, one a slice, in slice order.
        box_zyx: around them, on the grid of the detections.
        score: from 0 to 1.
    """

    label: str
    detections: tuple[Detection, ...]
    box_zyx: Box
    score: float

    @property
    def best(self) -> Detection:
        """The detection with the highest score; the first of equals."""
        return max(self.detections, key=lambda d: d.score)

    def redrawn(self, detections: tuple[Detection, ...]) -> "Track":
        """The same lesion with other boxes on its slices, scored as before."""
        return replace(self, detections=detections, box_zyx=_box_around(detections))

    @property
    def in_context(self) -> tuple[Detection, ...]:
        """The detections as their neighbours support them: own score times the track's, rooted."""
        return tuple(replace(d, score=(d.score * self.score) ** 0.5) for d in self.detections)


def link(
    of_slice: Mapping[int, tuple[Detection, ...]], config: FindingsConfig, spacing_z_mm: float
) -> tuple[Track, ...]:
    """Tracks, best first.

    Greedy from the first slice to the last: each box joins the open track of its label that it
    overlaps most, strong boxes first; a track closes after max_gap_slices empty slices.
    """
    open_tracks: list[list[Detection]] = []
    closed: list[list[Detection]] = []
    for z in sorted(of_slice):
        still_open: list[list[Detection]] = []
        for track in open_tracks:
            alive = z - slice_of(track[-1]) <= config.max_gap_slices + 1
            (still_open if alive else closed).append(track)
        open_tracks = still_open
        taken: set[int] = set()
        for detection in of_slice[z]:
            match = _best_match(detection, open_tracks, taken, config.link_iou)
            if match is None:
                taken.add(len(open_tracks))
                open_tracks.append([detection])
            else:
                taken.add(match)
                open_tracks[match].append(detection)
    return best_first(_track(t, config, spacing_z_mm) for t in (*closed, *open_tracks))


def best_first(tracks: Iterable[Track]) -> tuple[Track, ...]:
    """By falling score; equals by label and place."""
    return tuple(sorted(tracks, key=lambda t: (-t.score, t.label, t.box_zyx.lower_zyx)))


def one_label_each(tracks: Sequence[Track], config: FindingsConfig) -> tuple[Track, ...]:
    """The tracks without those that a better one of another label explains.

    Args:
        tracks: best first, as link gives them.
        config: says how much they must overlap for that.
    """
    kept: list[Track] = []
    for track in tracks:
        if not any(
            better.label != track.label
            and better.box_zyx.iou(track.box_zyx) > config.cross_label_iou
            for better in kept
        ):
            kept.append(track)
    return tuple(kept)


def _best_match(
    detection: Detection, tracks: list[list[Detection]], taken: set[int], least: float
) -> int | None:
    best, found = least, None
    for i, track in enumerate(tracks):
        if i in taken or track[-1].label != detection.label:
            continue
        overlap = _overlap(detection, track[-1])
        if overlap >= best:
            best, found = overlap, i
    return found


def _overlap(a: Detection, b: Detection) -> float:
    """IoU within the slice plane, or, for a lesion that shrinks, half the share contained."""
    area_a, area_b, common = areas(a, b)
    if common == 0.0:
        return 0.0
    return max(common / (area_a + area_b - common), 0.5 * common / min(area_a, area_b))


def _track(detections: list[Detection], config: FindingsConfig, spacing_z_mm: float) -> Track:
    scores = np.sort([d.score for d in strong_boxes(detections)])[::-1]
    score = float(scores[: config.aggregate_slices].mean())
    # a lesion of 3 mm crosses several thin slices; seen on fewer it is likelier noise
    expected = max(1.0, config.least_extent_mm / max(spacing_z_mm, 1e-3))
    score *= min(1.0, (len(detections) / expected) ** 0.5)
    return Track(
        label=detections[0].label,
        detections=tuple(detections),
        box_zyx=_box_around(detections),
        score=score,
    )


def strong_boxes(detections: Sequence[Detection]) -> list[Detection]:
    """Those that say something beside the best: a faint end speaks neither for nor against."""
    best = max(d.score for d in detections)
    return [d for d in detections if d.score >= STRONG * best]


def _box_around(detections: Sequence[Detection]) -> Box:
    """From the first to the last strong box, in the plane around nearly all of them."""
    strong = strong_boxes(detections)
    lower = np.quantile([d.box_zyx.lower_zyx[1:] for d in strong], 0.1, axis=0)
    upper = np.quantile([d.box_zyx.upper_zyx[1:] for d in strong], 0.9, axis=0)
    return Box(
        lower_zyx=(float(slice_of(strong[0])), float(lower[0]), float(lower[1])),
        upper_zyx=(float(slice_of(strong[-1]) + 1), float(upper[0]), float(upper[1])),
    )
