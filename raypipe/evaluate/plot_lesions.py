"""The figure of the lesion benchmark: AP by label on slices, FROC of whole series.

In: the evaluations of slices and of series. Out: a matplotlib figure.
Does not know: detectors, where lesions come from.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raypipe.evaluate.box_measures import SUBTLE
from raypipe.evaluate.detection import DetectionEvaluation
from raypipe.evaluate.measures import MACRO, MICRO, Measure
from raypipe.evaluate.plot_curves import draw_froc
from raypipe.evaluate.plot_style import (
    COLOURS,
    GREY,
    LARGE,
    SMALL,
    dress,
    new_figure,
    panel_letters,
    spoken,
)


def lesions_figure(
    slices: DetectionEvaluation, findings: DetectionEvaluation, target: float
) -> Figure:
    """Left: AP on slices by label, all lesions and subtle ones. Right: FROC of whole series."""
    rows = [*_by_ap(slices), MACRO]
    figure = new_figure(height_mm=34.0 + 6.0 * len(rows))
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1.0))
    _draw_labels(left, slices, rows, target)
    draw_froc(right, findings, (MICRO,))
    right.set_title("Findings in three dimensions: FROC", fontsize=LARGE, pad=6)
    panel_letters([left, right])
    return figure


def _by_ap(slices: DetectionEvaluation) -> list[str]:
    """Labels with a lesion, best AP first."""
    value = {label: _ap(slices, label, "") for label in slices.labels}
    known = {label: m.value for label, m in value.items() if m is not None and m.value is not None}
    return sorted(known, key=lambda label: -known[label])


def _ap(slices: DetectionEvaluation, label: str, group: str) -> Measure | None:
    try:
        return slices.measure("box", "ap", label, iou=slices.config.match_iou, group=group)
    except KeyError:
        return None


def _draw_labels(
    axes: Axes, slices: DetectionEvaluation, rows: Sequence[str], target: float
) -> None:
    axes.axvline(target, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), label="target of mAP")
    groups = (("", "all lesions", COLOURS[0], "o", -0.14), (SUBTLE, "subtle", COLOURS[1], "s", 0.2))
    for group, name, colour, marker, shift in groups:
        found = [(y, m) for y, label in enumerate(rows) if (m := _ap(slices, label, group))]
        shown = [(y + shift, m, m.value) for y, m in found if m.value is not None and m.support]
        axes.plot(
            [value for _, _, value in shown],
            [y for y, _, _ in shown],
            linestyle="none",
            marker=marker,
            markersize=3.6,
            color=colour,
            label=name,
        )
        for y, m, _ in shown:
            if m.low is not None and m.high is not None:
                axes.hlines(y, m.low, m.high, color=colour, linewidth=1.0, alpha=0.7)
    axes.axhspan(len(rows) - 1.5, len(rows) - 0.5, color="#F2F2F2", zorder=0)
    names = [_row_name(slices, label) for label in rows]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    dress(axes, x=f"AP at IoU {slices.config.match_iou:g}")
    axes.set_title("Boxes on slices: AP by label", fontsize=LARGE, pad=6)
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.09 - 0.4 / len(rows)), ncols=3,
        fontsize=SMALL, frameon=False,
    )  # fmt: skip


def _row_name(slices: DetectionEvaluation, label: str) -> str:
    measure = _ap(slices, label, "")
    support = "" if measure is None else f" ({measure.support})"
    return ("mean over labels" if label == MACRO else spoken(label)) + support
