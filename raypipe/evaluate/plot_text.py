"""Figures of measured reports: bars with intervals, and errors of facts stacked by kind.

In: a TextEvaluation. Out: matplotlib figures. Does not know: how measures are computed.
"""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.evaluate.plot_style import COLOURS, SMALL, dress, new_figure, panel_letters
from raypipe.evaluate.text import FACT_SCORES, WORD_MEASURES, TextEvaluation, TextMeasure

ERRORS = {
    "invented": "invented findings",
    "omitted": "omitted findings",
    "side_wrong": "wrong sides",
    "level_wrong": "wrong levels",
    "size_wrong": "wrong sizes",
}
"""Counts that are stacked; each is one wrong or missing fact."""


def scores_figure(evaluation: TextEvaluation, titles: Mapping[str, str]) -> Figure:
    """Bars of every system: measures of words on the left, of facts on the right."""
    shown = [
        [name for name in names if name in evaluation.names]
        for names in (WORD_MEASURES, FACT_SCORES)
    ]
    panels = [names for names in shown if names]
    figure = new_figure(height_mm=82.0)
    axes = figure.subplots(
        1, len(panels), squeeze=False, width_ratios=[len(names) for names in panels]
    )[0]
    for ax, names in zip(axes, panels, strict=True):
        _bars(ax, evaluation, names, titles)
    axes[0].legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.02),
        ncols=min(len(evaluation.systems), 4),
        fontsize=SMALL,
        frameon=False,
    )
    panel_letters(axes)
    return figure


def _bars(
    axes: Axes, evaluation: TextEvaluation, names: Sequence[str], titles: Mapping[str, str]
) -> None:
    width = 0.8 / len(evaluation.systems)
    for i, system in enumerate(evaluation.systems):
        at = np.arange(len(names)) + (i - (len(evaluation.systems) - 1) / 2) * width
        measures = [evaluation.measure(system, name) for name in names]
        axes.bar(
            at,
            [m.value or 0.0 for m in measures],
            0.92 * width,
            yerr=np.array([_arms(m) for m in measures]).T,
            error_kw={"elinewidth": 0.7, "capsize": 1.6},
            color=COLOURS[i % len(COLOURS)],
            label=system,
        )
    axes.set_xticks(range(len(names)), [textwrap.fill(titles[name], 10) for name in names])
    axes.set_ylim(bottom=0.0)
    dress(axes, y="value")
    axes.grid(visible=False, axis="x")


def _arms(measure: TextMeasure) -> tuple[float, float]:
    """How far an interval reaches below and above its value."""
    if measure.value is None or measure.low is None or measure.high is None:
        return 0.0, 0.0
    return max(measure.value - measure.low, 0.0), max(measure.high - measure.value, 0.0)


def errors_figure(evaluation: TextEvaluation, titles: Mapping[str, str]) -> Figure:
    """Errors per 100 reports of every system, stacked; beside them the rates with intervals."""
    figure = new_figure(height_mm=max(60.0, 14.0 * len(evaluation.systems) + 36.0))
    left, right = figure.subplots(1, 2)
    at = np.arange(len(evaluation.systems))
    base = np.zeros(len(at))
    for colour, (count, title) in zip(COLOURS, ERRORS.items(), strict=False):
        number = [evaluation.counts[system][count] for system in evaluation.systems]
        each = 100.0 * np.array(number) / evaluation.reports
        left.barh(at, each, left=base, color=colour, label=title, height=0.65)
        base += each
    left.set_yticks(at, [textwrap.fill(system, 22) for system in evaluation.systems])
    left.invert_yaxis()
    dress(left, x="errors per 100 reports")
    left.grid(visible=False, axis="y")
    left.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.02), ncols=2, fontsize=SMALL, frameon=False
    )
    _bars(right, evaluation, ("hallucination_rate", "omission_rate"), titles)
    panel_letters([left, right])
    return figure
