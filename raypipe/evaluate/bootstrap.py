"""Intervals by drawing series again.

In: a function from weights of the series to measures. Out: percentile intervals of the measures,
and of the differences between two systems on the same series.
Does not know: what is measured.

Series of one cluster (patient) are drawn together, with replacement (Efron & Tibshirani 1993,
chapter 13; clusters: Rutter, Acad Radiol 2000). Both systems of a comparison see the same draws.
The interval covers the choice of series, not the randomness of training.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluate.measures import Key, Values

FloatArray = NDArray[np.float64]
Measured = Callable[[FloatArray], Values]


def resamples(clusters: Sequence[Hashable], count: int, seed: int) -> Iterator[FloatArray]:
    """Weights (n,) of the series in each resample: how often its cluster was drawn.

    Args:
        clusters: (n,) what belongs together; all different: plain bootstrap.
        count: number of resamples.
        seed: the same seed draws the same resamples.

    Yields:
        Nothing where there is one cluster: it tells nothing of how clusters differ.
    """
    number = {cluster: i for i, cluster in enumerate(dict.fromkeys(clusters))}
    member = np.array([number[cluster] for cluster in clusters], dtype=np.int64)
    rng = np.random.default_rng(seed)
    for _ in range(count if len(number) > 1 else 0):
        drawn = rng.multinomial(len(number), np.full(len(number), 1.0 / len(number)))
        yield drawn[member].astype(np.float64)


def intervals(
    measured: Measured, draws: Iterator[FloatArray], coverage: float
) -> dict[Key, tuple[float, float]]:
    """Lower and upper end of each measure; measures that are undefined in every draw are left out.

    Draws in which a measure is undefined (no lesion of the label, say) do not count for it.
    """
    seen: dict[Key, list[float]] = {}
    for weights in draws:
        for key, (value, _) in measured(weights).items():
            if not np.isnan(value):
                seen.setdefault(key, []).append(value)
    return {key: percentile_interval(values, coverage) for key, values in seen.items()}


def paired_differences(
    first: Measured, second: Measured, draws: Iterator[FloatArray], coverage: float
) -> dict[Key, tuple[float, float, float]]:
    """Of second - first, per measure that both have: low, high, share of draws above 0."""
    seen: dict[Key, list[float]] = {}
    for weights in draws:
        before, after = first(weights), second(weights)
        for key in before.keys() & after.keys():
            difference = after[key].value - before[key].value
            if not np.isnan(difference):
                seen.setdefault(key, []).append(difference)
    return {
        key: (*percentile_interval(values, coverage), float(np.mean(np.array(values) > 0)))
        for key, values in seen.items()
    }


def percentile_interval(values: Sequence[float], coverage: float) -> tuple[float, float]:
    """The central share of the values."""
    tail = 50.0 * (1.0 - coverage)
    low, high = np.percentile(np.asarray(values), [tail, 100.0 - tail])
    return float(low), float(high)
