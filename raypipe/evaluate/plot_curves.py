"""Curves on axes: ROC, precision-recall, FROC, reliability; the confusion matrix.

In: a DetectionEvaluation and axes. Out: drawn axes. Does not know: pages, files, CT slices.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from raypipe.evaluate.detection import DetectionEvaluation
from raypipe.evaluate.measures import MICRO, Confusion, Level, StoredCurve
from raypipe.evaluate.plot_style import (
    COLOURS,
    GREY,
    LINES,
    NORMAL,
    SMALL,
    dress,
    legend,
    spoken,
    unit_square,
)


def find_curve(
    evaluation: DetectionEvaluation, kind: str, level: Level, label: str
) -> StoredCurve | None:
    """The curve of a label, None where there is none (no positives, or no negatives)."""
    for curve in evaluation.curves:
        if (curve.kind, curve.level, curve.label) == (kind, level, label):
            return curve
    return None


def draw_roc(axes: Axes, evaluation: DetectionEvaluation, labels: Sequence[str]) -> None:
    """ROC of series with AUC and interval, one line a label."""
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
    for i, label in enumerate(labels):
        curve = find_curve(evaluation, "roc", "image", label)
        if curve is not None:
            auc = evaluation.measure("image", "auc_roc", label).shown()
            axes.plot(curve.x, curve.y, label=f"{spoken(label)}, AUC {auc}", **_line(i))
            if len(labels) == 1:
                _note(axes, (0.97, 0.05), f"AUC {auc}", "right")
    unit_square(axes)
    dress(axes, x="1 - specificity", y="sensitivity")
    if len(labels) > 1:
        legend(axes)


def draw_precision_recall(
    axes: Axes, evaluation: DetectionEvaluation, labels: Sequence[str], level: Level = "image"
) -> None:
    """Precision over recall with AP and interval; for series, dotted: what chance gives."""
    for i, label in enumerate(labels):
        curve = find_curve(evaluation, "pr", level, label)
        if curve is None:
            continue
        measured = evaluation.measure(level, "ap", label, iou=curve.iou)
        ap = measured.shown()
        x, y = (0.0, *curve.x), (curve.y[0], *curve.y)
        axes.plot(x, y, label=f"{spoken(label)}, AP {ap}", **_line(i))
        if len(labels) == 1:
            _note(axes, (0.05, 0.05), f"AP {ap}", "left")
            if level == "image":  # the last point claims every series: the share of positives
                axes.axhline(curve.y[-1], color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
    unit_square(axes)
    dress(axes, x="recall", y="precision")
    if len(labels) > 1:
        legend(axes)


def draw_froc(axes: Axes, evaluation: DetectionEvaluation, labels: Sequence[str]) -> None:
    """Sensitivity over false positives per series.

    Bars: intervals at the rates of the CPM, of a single label or of all labels pooled.
    """
    config = evaluation.config
    low, high = config.froc_rates[0] / 2, config.froc_rates[-1] * 1.25
    for i, label in enumerate(labels):
        curve = find_curve(evaluation, "froc", "box", label)
        if curve is None:
            continue
        cpm = evaluation.measure("box", "cpm", label, iou=config.froc_iou)
        name, style = spoken(label), _line(i)
        if label == MICRO:
            name, style = "all labels", {"color": "black", "linestyle": "-", "linewidth": 1.6}
        inside = int(np.searchsorted(curve.x, high, side="right"))
        x, y = np.append(curve.x[:inside], high), np.append(curve.y[:inside], curve.y[inside - 1])
        start = max(int(np.searchsorted(x, low, side="right")) - 1, 0)
        axes.step(
            np.maximum(x[start:], low),
            y[start:],
            where="post",
            label=f"{name}, CPM {cpm.shown()}",
            **style,
        )
        if label == MICRO or len(labels) == 1:  # of all, the bars would hide the curves
            _bars(axes, evaluation, label, style["color"])
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_xticks(config.froc_rates, [_fraction(rate) for rate in config.froc_rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(-0.02, 1.02)
    dress(axes, x="false positives per series", y=f"sensitivity (IoU {config.froc_iou:g})")
    legend(axes)


def draw_reliability(axes: Axes, evaluation: DetectionEvaluation, level: Level) -> None:
    """Share that is true over predicted probability; below: how many claims each bin holds."""
    bins = [b for b in evaluation.reliability if b.level == level]
    iou = evaluation.config.match_iou if level == "box_calibration" else None
    ece = evaluation.measure(level, "ece", MICRO, iou=iou)
    score = evaluation.measure(level, "brier", MICRO, iou=iou)
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
    x, y = [b.mean_probability for b in bins], [b.observed for b in bins]
    axes.vlines(x, x, y, color=COLOURS[1], linewidth=1.6, alpha=0.45, label="gap")
    axes.plot(x, y, color=COLOURS[0], linewidth=1.2, marker="o", markersize=3.5, label="observed")
    counts = [b.count for b in bins]
    most = max(counts, default=1)
    width = 1.0 / evaluation.config.calibration_bins
    axes.bar(
        [(b.low + b.high) / 2 for b in bins],
        [0.16 * count / most for count in counts],
        width=0.9 * width,
        color="#BFBFBF",
        zorder=0.5,
        label="count",
    )
    unit_square(axes)
    calibrated = evaluation.calibrated and level == "box_calibration"
    what = "calibrated probability" if calibrated else "score (not calibrated)"
    dress(axes, x=what, y="share that is true")
    axes.text(
        0.03,
        0.97,
        f"ECE {ece.shown()}\nBrier {score.shown()}\nn = {sum(counts)}, most in a bin {most}",
        transform=axes.transAxes,
        va="top",
        fontsize=SMALL,
        linespacing=1.4,
    )


def draw_confusion(axes: Axes, table: Confusion, *, small: bool = False) -> None:
    """Counts and share of the truth; rows are the truth. Small: for many labels, counts alone."""
    counts = np.asarray(table.counts, dtype=np.float64)
    total = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    for (i, j), value in np.ndenumerate(share):
        if small and counts[i, j] == 0:
            continue
        ink = "white" if value > 0.55 else "black"
        text = f"{int(counts[i, j])}" if small else f"{int(counts[i, j])}\n{value:.1%}"
        axes.text(j, i, text, ha="center", va="center", fontsize=NORMAL, color=ink)
    names = [spoken(label) for label in table.labels]
    axes.set_xticks(range(len(names)), names, rotation=90 if small else 0)
    axes.set_yticks(range(len(names)), names)
    dress(axes, x="claimed", y="truth", grid=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _bars(axes: Axes, evaluation: DetectionEvaluation, label: str, colour: str) -> None:
    config = evaluation.config
    for rate in config.froc_rates:
        group = f"{rate:g} FP per series"
        m = evaluation.measure("box", "sensitivity", label, iou=config.froc_iou, group=group)
        if m.low is not None and m.high is not None:
            axes.vlines(rate, m.low, m.high, color=colour, linewidth=0.8, alpha=0.6)


def _line(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": LINES[i % len(LINES)],
        "linewidth": 1.3,
    }


def _note(
    axes: Axes, place: tuple[float, float], text: str, side: Literal["left", "right"]
) -> None:
    axes.text(*place, text, transform=axes.transAxes, ha=side, va="bottom", fontsize=NORMAL)


def _fraction(rate: float) -> str:
    return f"1/{round(1 / rate)}" if rate < 1 and (1 / rate).is_integer() else f"{rate:g}"
