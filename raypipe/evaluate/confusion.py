"""What a lesion was taken for: claims of any label beside the lesions that they overlap.

In: truth and claims of series. Out: pairs of lesion and claim, counts of them.
Does not know: scores' meaning, figures.

A claim goes to a lesion of its own label first, then to one of another label that is still free;
the best scores choose first, and each lesion is taken once.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.matching import greedy_match, overlaps
from raypipe.evaluate.measures import NOTHING, Confusion
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries


class Pair(NamedTuple):
    """A lesion and the claim on it; one of them is None where it has no partner."""

    lesion: TruthLesion | None
    claim: Claim | None

    @property
    def right(self) -> bool:
        """Whether the lesion was found and named as what it is."""
        lesion, claim = self
        return lesion is not None and claim is not None and lesion.label == claim.label


def pairs_of(
    truth: TruthSeries, claimed: ClaimSeries, config: DetectionEvaluationConfig
) -> tuple[Pair, ...]:
    """Every lesion and every claim from its threshold on, once; lesions first."""
    made = [c for c in claimed.claims if c.score >= config.threshold_of(c.label)]
    both = overlaps(made, truth.lesions, [False] * len(truth.lesions))
    same = np.array(
        [[c.label == lesion.label for lesion in both.lesions] for c in both.claims], dtype=np.bool_
    ).reshape(both.iou.shape)
    taken = greedy_match(np.where(same, both.iou, 0.0), config.match_iou)
    rest = both.iou.copy()
    rest[taken >= 0] = 0.0
    rest[:, taken[taken >= 0]] = 0.0
    taken = np.where(taken >= 0, taken, greedy_match(rest, config.match_iou))
    on_lesion = {int(lesion): both.claims[i] for i, lesion in enumerate(taken) if lesion >= 0}
    return (
        *(Pair(lesion, on_lesion.get(j)) for j, lesion in enumerate(both.lesions)),
        *(Pair(None, both.claims[i]) for i in np.flatnonzero(taken < 0)),
    )


def lesion_confusion(
    truths: Sequence[TruthSeries],
    claims: Sequence[ClaimSeries],
    labels: Sequence[str],
    config: DetectionEvaluationConfig,
) -> Confusion:
    """Counts of lesions (rows) by what was claimed of them (columns).

    The last row counts claims on nothing, the last column lesions that were missed. Both sides
    are in the same order of series; other labels than `labels` are left out.
    """
    place = {label: i for i, label in enumerate((*labels, NOTHING))}
    counts = np.zeros((len(place), len(place)), dtype=np.int64)
    for truth, claimed in zip(truths, claims, strict=True):
        for lesion, claim in pairs_of(truth, claimed, config):
            row = NOTHING if lesion is None else lesion.label
            column = NOTHING if claim is None else claim.label
            if row in place and column in place:
                counts[place[row], place[column]] += 1
    return Confusion(
        labels=tuple(place), counts=tuple(tuple(int(n) for n in row) for row in counts)
    )


def agreement(pairs: Sequence[Pair]) -> float:
    """F1 of one series; 1 where there is neither lesion nor claim."""
    hits = sum(pair.right for pair in pairs)
    lesions = sum(pair.lesion is not None for pair in pairs)
    claims = sum(pair.claim is not None for pair in pairs)
    return 2.0 * hits / (lesions + claims) if lesions + claims else 1.0
