"""Figures of benchmarks: bars of what was measured, curves over time or size.

In: names and numbers. Out: a figure. Does not know: what was measured.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from raypipe.evaluate.plot_style import (
    COLOURS,
    GREY,
    LINES,
    NORMAL,
    SMALL,
    dress,
    legend,
    new_figure,
)

_BAR_MM, _MARGIN_MM, _CURVES_MM = 7.0, 18.0, 80.0


class Bar(NamedTuple):
    """A number and all repetitions that it is the median of."""

    name: str
    value: float
    runs: Sequence[float] = ()


def bar_figure(bars: Sequence[Bar], *, x: str, mark: tuple[str, float] | None = None) -> Figure:
    """Horizontal bars from the top down; dots are single repetitions.

    Args:
        bars: in their order.
        x: what the numbers are, with the unit.
        mark: a value to compare with, drawn as a line, and its name.
    """
    figure = new_figure(_MARGIN_MM + _BAR_MM * len(bars))
    axes = figure.subplots()
    rows = range(len(bars))
    axes.barh(rows, [bar.value for bar in bars], height=0.62, color=COLOURS[0], alpha=0.85)
    for row, bar in zip(rows, bars, strict=True):
        axes.plot(bar.runs, [row] * len(bar.runs), "o", color=COLOURS[6], markersize=2.2)
        end = max((bar.value, *bar.runs))
        axes.annotate(
            f"{bar.value:.3g}",
            (end, row),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    if mark is not None:
        name, value = mark
        axes.axvline(value, color=COLOURS[1], linewidth=1.0, linestyle=LINES[1])
        axes.annotate(
            name,
            (value, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
            color=COLOURS[1],
        )
    dress(axes, x=x)
    axes.grid(visible=False, axis="y")
    axes.set_yticks(list(rows), [bar.name for bar in bars], fontsize=NORMAL)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlim(left=0.0)
    return figure


def curve_figure(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    ideal: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Figure:
    """Curves from zero upwards.

    Args:
        curves: name -> x and y values.
        x, y: what they are, with units.
        ideal: x and y values of a grey line to compare with.
    """
    figure = new_figure(_CURVES_MM)
    axes = figure.subplots()
    if ideal is not None:
        axes.plot(*ideal, color=GREY, linewidth=0.8, linestyle=LINES[2], label="ideal")
    for i, (name, values) in enumerate(curves.items()):
        style = LINES[i % len(LINES)]
        dots = "o" if len(values[0]) < 10 else ""
        axes.plot(
            *values,
            color=COLOURS[i % len(COLOURS)],
            linewidth=1.1,
            linestyle=style,
            marker=dots,
            markersize=3.0,
            label=name,
        )
    dress(axes, x=x, y=y)
    axes.set_ylim(bottom=0.0)
    legend(axes)
    return figure
