"""Which claim found which lesion.

In: truth and claims of the same series. Out: per label and IoU, all claims of all series ranked
by score, each a hit or a miss, and for each lesion the score at which it is found.
Does not know: measures.

The rule is COCO's (Lin et al., ECCV 2014; cocoapi, COCOeval.evaluateImg): within a series and a
label, claims take their turn by falling score, and each takes the free lesion that it overlaps
most, if the IoU reaches the threshold. A second claim on a lesion that is taken is a false
positive. Because better claims choose first, the matches above a threshold do not depend on the
claims below it: one matching serves every operating point.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import ConfigError
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from raypipe.geometry import Box

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
NEVER = -1.0  # the score of a lesion that no claim found: below every threshold


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMatches:
    """Claims and lesions of one label (or of several, pooled) at one IoU threshold.

    Args:
        score: (n,) falling.
        probability: (n,) calibrated, or the score where there is none.
        hit: (n,) whether the claim found a lesion.
        overlap: (n,) IoU with the lesion that it found, 0 for a miss.
        series: (n,) index of the series.
        found: (n,) index of the lesion that it found, -1 for a miss.
        lesion_series: (m,) index of the series.
        lesion_score: (m,) score of the claim that found it, NEVER where none did.
        diameter_mm: (m,) NaN where unknown.
        subtle: (m,)
    """

    score: FloatArray
    probability: FloatArray
    hit: BoolArray
    overlap: FloatArray
    series: IntArray
    found: IntArray
    lesion_series: IntArray
    lesion_score: FloatArray
    diameter_mm: FloatArray
    subtle: BoolArray

    def only(self, wanted: BoolArray) -> "LabelMatches":
        """The lesions that are wanted (m,), and every claim that did not find another one.

        Claims on the other lesions are neither hits nor misses, as COCO ignores what lies outside
        an area range; claims on nothing stay misses.
        """
        keep = ~self.hit | wanted[self.found] if len(wanted) else np.ones_like(self.hit)
        renumbered = np.append(np.cumsum(wanted) - 1, -1)  # index -1 stays -1
        return LabelMatches(
            score=self.score[keep],
            probability=self.probability[keep],
            hit=self.hit[keep],
            overlap=self.overlap[keep],
            series=self.series[keep],
            found=renumbered[self.found[keep]],
            lesion_series=self.lesion_series[wanted],
            lesion_score=self.lesion_score[wanted],
            diameter_mm=self.diameter_mm[wanted],
            subtle=self.subtle[wanted],
        )


def pairwise_iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Intersection over union of boxes (n, 2, 3) and (m, 2, 3), lower and upper zyx: (n, m).

    For boxes one slice thick this is the IoU within the slice, and 0 across slices.
    """
    lower = np.maximum(first[:, None, 0], second[None, :, 0])
    upper = np.minimum(first[:, None, 1], second[None, :, 1])
    common = np.prod(np.clip(upper - lower, 0.0, None), axis=-1)
    volumes = (
        np.prod(first[:, 1] - first[:, 0], axis=-1)[:, None]
        + np.prod(second[:, 1] - second[:, 0], axis=-1)[None, :]
    )
    union = volumes - common
    iou: FloatArray = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def greedy_match(iou: FloatArray, threshold: float) -> IntArray:
    """For claims in their order (n, m), the lesion that each takes, -1 for none: (n,)."""
    taken = np.full(iou.shape[0], -1, dtype=np.int64)
    if iou.size == 0:
        return taken
    free = iou.copy()
    for i in np.flatnonzero(iou.max(axis=1) >= threshold):
        best = int(np.argmax(free[i]))
        if free[i, best] >= threshold:
            taken[i] = best
            free[:, best] = -1.0
    return taken


@dataclass(frozen=True, kw_only=True, eq=False)
class Overlaps:
    """Claims and lesions of one label and one series, in an order that input order cannot change.

    Args:
        claims: by falling score; of equal ones, the better placed first.
        lesions: by position.
        iou: (claims, lesions).
        subtle: one a lesion.
    """

    claims: tuple[Claim, ...]
    lesions: tuple[TruthLesion, ...]
    iou: FloatArray
    subtle: tuple[bool, ...]


def overlaps(
    claims: Sequence[Claim], lesions: Sequence[TruthLesion], subtle: Sequence[bool]
) -> Overlaps:
    """Put both sides in order and measure their IoU."""
    of_lesion = sorted(range(len(lesions)), key=lambda i: _corners(lesions[i].box_zyx))
    ordered = [lesions[i] for i in of_lesion]
    iou = pairwise_iou(_boxes([c.box_zyx for c in claims]), _boxes([t.box_zyx for t in ordered]))
    best = iou.max(axis=1) if lesions else np.zeros(len(claims))
    order = sorted(
        range(len(claims)),
        key=lambda i: (-claims[i].score, -best[i], _corners(claims[i].box_zyx)),
    )
    return Overlaps(
        claims=tuple(claims[i] for i in order),
        lesions=tuple(ordered),
        iou=iou[order] if order else iou,
        subtle=tuple(subtle[i] for i in of_lesion),
    )


def pool(of_series: Sequence[Overlaps], threshold: float) -> LabelMatches:
    """Match within each series at an IoU threshold and rank all claims together.

    Args:
        of_series: one entry a series; its place is the index of the series.
        threshold: IoU at which a claim finds a lesion.
    """
    claims: list[tuple[float, float, bool, float, int, int]] = []
    lesions: list[tuple[int, float, float, bool]] = []
    for index, pair in enumerate(of_series):
        taken = greedy_match(pair.iou, threshold)
        first = len(lesions)
        scores = [NEVER] * len(pair.lesions)
        for i, claim in enumerate(pair.claims):
            lesion = int(taken[i])
            hit = lesion >= 0
            if hit:
                scores[lesion] = claim.score
            claims.append(
                (
                    claim.score,
                    claim.score if claim.probability is None else claim.probability,
                    hit,
                    float(pair.iou[i, lesion]) if hit else 0.0,
                    index,
                    first + lesion if hit else -1,
                )
            )
        for j, lesion_truth in enumerate(pair.lesions):
            diameter = lesion_truth.diameter_mm
            lesions.append(
                (index, scores[j], np.nan if diameter is None else diameter, pair.subtle[j])
            )
    return _as_arrays(claims, lesions)


def merge(parts: Sequence[LabelMatches]) -> LabelMatches:
    """Rank the claims of several labels together; each found lesions of its own label alone."""
    if not parts:
        return _as_arrays([], [])
    first = np.cumsum([0, *(len(part.lesion_series) for part in parts)])
    found = [np.where(p.found >= 0, p.found + n, -1) for p, n in zip(parts, first, strict=False)]
    order = np.argsort(-np.concatenate([p.score for p in parts]), kind="stable")
    return LabelMatches(
        score=np.concatenate([p.score for p in parts])[order],
        probability=np.concatenate([p.probability for p in parts])[order],
        hit=np.concatenate([p.hit for p in parts])[order],
        overlap=np.concatenate([p.overlap for p in parts])[order],
        series=np.concatenate([p.series for p in parts])[order],
        found=np.concatenate(found)[order],
        lesion_series=np.concatenate([p.lesion_series for p in parts]),
        lesion_score=np.concatenate([p.lesion_score for p in parts]),
        diameter_mm=np.concatenate([p.diameter_mm for p in parts]),
        subtle=np.concatenate([p.subtle for p in parts]),
    )


def by_series(
    truths: Sequence[TruthSeries], claims: Sequence[ClaimSeries]
) -> tuple[tuple[ClaimSeries, ...], int]:
    """The claims in the order of the truth, and how many series had none handed in.

    Raises:
        ConfigError: a key occurs twice, or claims name a series that has no truth.
    """
    keys = [truth.series_key for truth in truths]
    handed_in = {series.series_key: series for series in claims}
    if len(set(keys)) != len(keys) or len(handed_in) != len(claims):
        raise ConfigError("evaluation: every series_key occurs once; merge the rows of a series")
    unknown = set(handed_in) - set(keys)
    if unknown:
        raise ConfigError(
            f"evaluation: {len(unknown)} series have claims but no truth; hand in a TruthSeries "
            "without lesions for a series that is known to have none"
        )
    ordered = tuple(handed_in.get(key, ClaimSeries(series_key=key)) for key in keys)
    return ordered, sum(key not in handed_in for key in keys)


def _as_arrays(
    claims: Sequence[tuple[float, float, bool, float, int, int]],
    lesions: Sequence[tuple[int, float, float, bool]],
) -> LabelMatches:
    columns = list(zip(*claims, strict=True)) or [()] * 6
    score = np.asarray(columns[0], dtype=np.float64)
    order = np.argsort(-score, kind="stable")
    truth = list(zip(*lesions, strict=True)) or [()] * 4
    return LabelMatches(
        score=score[order],
        probability=np.asarray(columns[1], dtype=np.float64)[order],
        hit=np.asarray(columns[2], dtype=np.bool_)[order],
        overlap=np.asarray(columns[3], dtype=np.float64)[order],
        series=np.asarray(columns[4], dtype=np.int64)[order],
        found=np.asarray(columns[5], dtype=np.int64)[order],
        lesion_series=np.asarray(truth[0], dtype=np.int64),
        lesion_score=np.asarray(truth[1], dtype=np.float64),
        diameter_mm=np.asarray(truth[2], dtype=np.float64),
        subtle=np.asarray(truth[3], dtype=np.bool_),
    )


def _boxes(boxes: Sequence[Box]) -> FloatArray:
    corners = [(box.lower_zyx, box.upper_zyx) for box in boxes]
    return np.asarray(corners, dtype=np.float64).reshape(len(boxes), 2, 3)


def _corners(box: Box) -> tuple[float, ...]:
    return (*box.lower_zyx, *box.upper_zyx)
