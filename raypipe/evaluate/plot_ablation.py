"""The figure of an ablation: what each variant reaches, and what it gains over the first.

In: arms with values, intervals, single runs. Out: a matplotlib figure.
Does not know: how arms were trained or measured.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from raypipe.errors import ConfigError
from raypipe.evaluate.plot_style import COLOURS, GREY, SMALL, dress, new_figure, panel_letters

HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "++")
MARKERS = "osD^vP"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value and the ends of its interval (None without one)."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class AblationArm:
    """One variant of an ablation.

    Args:
        name: as a reader sees it.
        measures: name of a measure -> value with interval, mean over runs.
        runs: name of a measure -> value of each run (seed).
        gains: name of a measure -> difference to the first arm; empty for the first arm.
    """

    name: str
    measures: Mapping[str, Interval]
    runs: Mapping[str, Sequence[float]] = field(default_factory=dict)
    gains: Mapping[str, Interval] = field(default_factory=dict)


def ablation_figure(arms: Sequence[AblationArm]) -> Figure:
    """Left: measures of all arms with intervals and single runs. Right: gain over the first arm."""
    if len(arms) < 2:
        raise ConfigError("ablation: needs at least two arms")
    names = list(arms[0].measures)
    figure = new_figure(height_mm=82.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1.0))
    width = 0.8 / len(arms)
    for i, arm in enumerate(arms):
        at = np.arange(len(names)) + (i - (len(arms) - 1) / 2) * width
        colour, chosen = COLOURS[i % len(COLOURS)], [arm.measures[name] for name in names]
        left.bar(
            at,
            [m.value for m in chosen],
            0.92 * width,
            label=arm.name,
            facecolor=_lighter(colour),
            edgecolor=colour,
            linewidth=0.7,
            hatch=HATCHES[i % len(HATCHES)],
        )
        for x, name, m in zip(at, names, chosen, strict=True):
            _whisker(left, (float(x), m), vertical=True, colour="black")
            runs = arm.runs.get(name, ())
            left.plot(
                [x] * len(runs), runs, "o", color="white", markeredgecolor="black",
                markersize=2.6, markeredgewidth=0.6, zorder=4,
            )  # fmt: skip
    left.set_xticks(range(len(names)), [textwrap.fill(name, 14) for name in names])
    left.set_ylim(0.0, 1.0)
    dress(left, y="value (0 to 1)")
    left.grid(visible=False, axis="x")
    left.legend(
        loc="lower center", bbox_to_anchor=(0.5, 1.01), ncols=len(arms), fontsize=SMALL,
        frameon=False, handlelength=1.6, columnspacing=1.2,
    )  # fmt: skip
    _gains(right, arms, names)
    panel_letters([left, right])
    return figure


def _gains(axes: Axes, arms: Sequence[AblationArm], names: Sequence[str]) -> None:
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    others = len(arms) - 1
    for i, arm in enumerate(arms[1:]):
        colour = COLOURS[(i + 1) % len(COLOURS)]
        for j, name in enumerate(names):
            if name in arm.gains:
                y = j + (i - (others - 1) / 2) * 0.6 / others
                gain = arm.gains[name]
                _whisker(axes, (y, gain), vertical=False, colour=colour)
                axes.plot(
                    gain.value,
                    y,
                    marker="osD^vP"[(i + 1) % 6],
                    color=colour,
                    markersize=4,
                    zorder=4,
                )
    axes.set_yticks(range(len(names)), [textwrap.fill(name, 14) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    dress(axes, x=f"difference to {arms[0].name}")
    axes.grid(visible=False, axis="y")


def _whisker(axes: Axes, placed: tuple[float, Interval], *, vertical: bool, colour: str) -> None:
    at, interval = placed
    if interval.low is None or interval.high is None:
        return
    ends = [[max(interval.value - interval.low, 0.0)], [max(interval.high - interval.value, 0.0)]]
    style: dict[str, Any] = {
        "fmt": "none",
        "ecolor": colour,
        "elinewidth": 0.9,
        "capsize": 2.0,
        "zorder": 3,
    }
    if vertical:
        axes.errorbar([at], [interval.value], yerr=ends, **style)
    else:
        axes.errorbar([interval.value], [at], xerr=ends, **style)


def _lighter(colour: str) -> tuple[float, float, float]:
    r, g, b = (0.45 + 0.55 * part for part in to_rgb(colour))
    return r, g, b
