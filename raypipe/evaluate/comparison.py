"""How two systems differ on the same series.

In: the truth, and claims of each system from one run or several. Out: differences of all measures
with paired intervals. Does not know: what the systems are, how results are shown.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raypipe.errors import ConfigError
from raypipe.evaluate.bootstrap import paired_differences, resamples
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import known, prepare
from raypipe.evaluate.measures import Key, Level, Value, Values
from raypipe.evaluate.records import ClaimSeries, TruthSeries, labels_of
from raypipe.settings import Settings

FloatArray = NDArray[np.float64]


class Difference(Settings):
    """Second system minus first, on the same series."""

    level: Level
    name: str
    label: str
    iou: float | None
    group: str
    first: float | None = Field(description="mean over the first system's runs")
    second: float | None = Field(description="mean over the second system's runs")
    difference: float | None
    low: float | None
    high: float | None
    above_zero: float | None = Field(description="share of resamples in which second is higher")


def compare_detection(
    truths: Sequence[TruthSeries],
    first: Sequence[Sequence[ClaimSeries]],
    second: Sequence[Sequence[ClaimSeries]],
    config: DetectionEvaluationConfig | None = None,
) -> tuple[Difference, ...]:
    """How two systems differ, with paired intervals.

    Args:
        truths: every evaluated series.
        first: claims of the first system, one entry a run (seed); measures are means over runs.
        second: the same of the second system.
        config: as for evaluate_detection.

    Returns:
        second - first of every measure. The intervals cover the choice of series; with few runs
        they say little about the randomness of training.
    """
    config = config or DetectionEvaluationConfig()
    if not first or not second:
        raise ConfigError("comparison: each system has at least one run")
    if not config.labels:
        every = [series for run in (*first, *second) for series in run]
        config = config.model_copy(update={"labels": labels_of(truths, every)})
    sides = [
        _mean_of([prepare(truths, run, config).measured(config) for run in runs])
        for runs in (first, second)
    ]
    clusters = [truth.cluster_key or truth.series_key for truth in truths]
    draws = resamples(clusters, config.bootstrap, config.seed)
    ends = paired_differences(sides[0], sides[1], draws, config.interval)
    before, after = (side(np.ones(len(truths))) for side in sides)
    return tuple(_difference(key, before[key], after[key], ends.get(key)) for key in before)


def _mean_of(
    runs: Sequence[Callable[[FloatArray], Values]],
) -> Callable[[FloatArray], Values]:
    def measured(weight: FloatArray) -> Values:
        values = [run(weight) for run in runs]
        return {
            key: Value(float(np.mean([v[key].value for v in values])), values[0][key].support)
            for key in values[0]
            if all(key in v for v in values)
        }

    return measured


def _difference(
    key: Key, before: Value, after: Value, ends: tuple[float, float, float] | None
) -> Difference:
    low, high, above = ends or (None, None, None)
    return Difference(
        level=key.level,
        name=key.name,
        label=key.label,
        iou=key.iou or None,
        group=key.group,
        first=known(before.value),
        second=known(after.value),
        difference=known(after.value - before.value),
        low=low,
        high=high,
        above_zero=above,
    )
