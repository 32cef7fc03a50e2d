"""Which series are shown in full: a rule, so that nobody picks the pretty ones.

In: truth and claims of series. Out: per kind of case one series; what was missed or wrong in it.
Does not know: pixels, figures.

A series without a lesion, with subtle ones alone, or whose geometry had to be repaired is an edge
case. The others are put in order by how many lesions they have (a subtle one counts twice), then
by how many labels, then by how small the smallest lesion is; the first third is simple, the second
moderate, the last complex. Of each kind the series of median agreement (F1 of its findings) is
shown; of equal ones the first by series_key.
"""

from collections import Counter
from collections.abc import Container, Sequence
from typing import Literal

from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.confusion import Pair, agreement, pairs_of
from raypipe.evaluate.detection import is_subtle
from raypipe.evaluate.records import ClaimSeries, TruthLesion, TruthSeries

CaseKind = Literal["simple", "moderate", "complex", "edge"]
KINDS: tuple[CaseKind, ...] = ("simple", "moderate", "complex", "edge")


def case_kinds(
    truths: Sequence[TruthSeries], repaired: Container[str], config: DetectionEvaluationConfig
) -> dict[str, CaseKind]:
    """series_key -> kind, by the truth alone."""
    kinds: dict[str, CaseKind] = {}
    ranked: list[tuple[int, int, float, str]] = []
    for truth in truths:
        subtle = [is_subtle(lesion, config) for lesion in truth.lesions]
        if truth.series_key in repaired or all(subtle):
            kinds[truth.series_key] = "edge"
            continue
        labels = {lesion.label for lesion in truth.lesions}
        smallest = min(lesion.diameter_mm or 0.0 for lesion in truth.lesions)
        ranked.append((len(subtle) + sum(subtle), len(labels), -smallest, truth.series_key))
    for place, (*_, key) in enumerate(sorted(ranked)):
        kinds[key] = KINDS[3 * place // len(ranked)]
    return kinds


def choose_cases(
    truths: Sequence[TruthSeries],
    claims: Sequence[ClaimSeries],
    repaired: Container[str],
    config: DetectionEvaluationConfig,
) -> dict[CaseKind, str]:
    """Kind -> series_key, from simple to edge; a kind without a series is left out.

    Args:
        truths: the series to choose from.
        claims: of the same series; one that is missing claims nothing.
        repaired: keys of series whose geometry had to be repaired.
        config: what a hit is, which claims count.
    """
    of_key = {series.series_key: series for series in claims}
    kinds = case_kinds(truths, repaired, config)
    found: dict[CaseKind, list[tuple[float, str]]] = {kind: [] for kind in KINDS}
    for truth in truths:
        key = truth.series_key
        pairs = pairs_of(truth, of_key.get(key, ClaimSeries(series_key=key)), config)
        found[kinds[key]].append((agreement(pairs), key))
    return {kind: sorted(own)[(len(own) - 1) // 2][1] for kind, own in found.items() if own}


def choose_lesion(
    truths: Sequence[TruthSeries], label: str
) -> tuple[TruthSeries, TruthLesion] | None:
    """The lesion of median diameter among all of a label; None where there is none."""
    found = [
        (lesion.diameter_mm or 0.0, truth.series_key, lesion.box_zyx.lower_zyx, truth, lesion)
        for truth in truths
        for lesion in truth.lesions
        if lesion.label == label
    ]
    if not found:
        return None
    *_, truth, lesion = sorted(found, key=lambda f: f[:3])[(len(found) - 1) // 2]
    return truth, lesion


def what_went_wrong(pairs: Sequence[Pair]) -> str:
    """What was missed, taken for something else, or claimed on nothing; or that all is right."""
    missed = Counter(p.lesion.label for p in pairs if p.lesion is not None and p.claim is None)
    false = Counter(p.claim.label for p in pairs if p.lesion is None and p.claim is not None)
    mistaken = Counter(
        f"{p.lesion.label} as {p.claim.label}"
        for p in pairs
        if p.lesion is not None and p.claim is not None and not p.right
    )
    parts = [
        f"{what}: {_listed(counts)}."
        for what, counts in (("Missed", missed), ("Mistaken", mistaken), ("False", false))
        if counts
    ]
    return " ".join(parts) or "Nothing missed, nothing false."


def _listed(counts: Counter[str]) -> str:
    return ", ".join(
        name.replace("_", " ") + (f" ({n})" if n > 1 else "") for name, n in sorted(counts.items())
    )
