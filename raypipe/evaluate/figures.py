"""Figures of an evaluation, ready for a page: curves, the class grid, ablation, case studies.

In: a DetectionEvaluation, views of CT slices, arms of an ablation. Out: matplotlib figures.
Does not know: networks, where views come from.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D

from raypipe.errors import ConfigError
from raypipe.evaluate.detection import DetectionEvaluation
from raypipe.evaluate.measures import MICRO
from raypipe.evaluate.plot_curves import (
    draw_confusion,
    draw_froc,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
)
from raypipe.evaluate.plot_slices import SliceView, draw_slice
from raypipe.evaluate.plot_style import (
    CLAIM_COLOUR,
    LARGE,
    NORMAL,
    SMALL,
    TRUTH_COLOUR,
    new_figure,
    panel_letters,
    spoken,
)

TEXT_WIDTH = 1.15  # of the text beside case studies, in widths of a slice
LINE_LETTERS, MOST_TEXT_LINES = 39, 12  # that fit beside a slice
MOST_LINES = 6  # more curves on one axis cannot be told apart


@dataclass(frozen=True, kw_only=True)
class CaseStudy:
    """One series that is shown in full.

    Args:
        title: "simple", "moderate", "complex", "edge", ...
        view: its key slice.
        text: what the report says of it.
        note: what was missed or wrongly claimed, "" for nothing.
    """

    title: str
    view: SliceView
    text: str
    note: str = ""


def class_grid(evaluation: DetectionEvaluation, views: Mapping[str, SliceView]) -> Figure:
    """Per label a row: ROC, precision-recall, attention on a CT slice.

    Args:
        evaluation: with image-level curves of the labels.
        views: label -> slice, as a rule three.
    """
    if not views:
        raise ConfigError("class grid: name at least one label with its slice")
    figure = new_figure(height_mm=58.0 * len(views) + 8.0)
    grid = figure.subplots(len(views), 3, squeeze=False)
    attention = None
    for i, (label, view) in enumerate(views.items()):
        draw_roc(grid[i, 0], evaluation, (label,))
        draw_precision_recall(grid[i, 1], evaluation, (label,))
        drawn = draw_slice(grid[i, 2], view)
        attention = drawn or attention
        _row_name(grid[i, 0], spoken(label))
    for axes, heading in zip(grid[0], ("ROC", "Precision-recall", "Attention on CT"), strict=True):
        axes.set_title(heading, fontsize=LARGE, pad=6)
    panel_letters(list(grid.flat))
    if attention is not None:
        _colour_bar(figure, attention, grid[-1, 2])
    _box_legend(figure, list(views.values()))
    return figure


def curves_figure(evaluation: DetectionEvaluation, labels: Sequence[str] = ()) -> Figure:
    """ROC and precision-recall of series, precision-recall of boxes, FROC.

    Args:
        evaluation: of series and boxes.
        labels: at most six; empty: the first six of the evaluation.
    """
    chosen = tuple(labels or evaluation.labels)[:MOST_LINES]
    figure = new_figure(height_mm=206.0 + 7.0 * len(chosen))
    axes = figure.subplots(2, 2)
    draw_roc(axes[0, 0], evaluation, chosen)
    draw_precision_recall(axes[0, 1], evaluation, chosen)
    draw_precision_recall(axes[1, 0], evaluation, chosen, "box")
    draw_froc(axes[1, 1], evaluation, (*chosen[: MOST_LINES - 1], MICRO))
    axes[1, 1].set_box_aspect(1)
    iou = evaluation.config.match_iou
    names = ("Series: ROC", "Series: precision-recall", f"Boxes: precision-recall, IoU {iou:g}")
    for ax, name in zip(axes.flat, (*names, "Boxes: FROC"), strict=True):
        ax.set_title(name, fontsize=LARGE, loc="center", pad=5)
    panel_letters(list(axes.flat))
    return figure


def reliability_figure(evaluation: DetectionEvaluation) -> Figure:
    """Reliability of boxes and of series, side by side."""
    figure = new_figure(height_mm=106.0)
    first, second = figure.subplots(1, 2)
    draw_reliability(first, evaluation, "box_calibration")
    draw_reliability(second, evaluation, "image_calibration")
    first.set_title("Boxes", fontsize=LARGE, pad=5)
    second.set_title("Series", fontsize=LARGE, pad=5)
    panel_letters([first, second])
    figure.legend(
        *first.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        fontsize=NORMAL,
        frameon=False,
    )
    return figure


def froc_figure(evaluation: DetectionEvaluation, labels: Sequence[str] = ()) -> Figure:
    """FROC of single labels (at most five, as curves_figure chooses) and of all together."""
    chosen = tuple(labels or evaluation.labels)[: MOST_LINES - 1]
    figure = new_figure(height_mm=90.0 + 3.5 * (len(chosen) + 1), width_mm=120.0)
    draw_froc(figure.subplots(), evaluation, (*chosen, MICRO))
    return figure


def confusion_figure(evaluation: DetectionEvaluation) -> Figure:
    """The confusion matrix: of series where each has one label, else of lesions and claims."""
    table = evaluation.confusion or evaluation.lesion_confusion
    if table is None:
        raise ConfigError("confusion: evaluate whole series, or with image_mode single")
    table = table.only_used()
    many = len(table.labels) > MOST_LINES
    size = 46.0 + (9.5 if many else 16.0) * len(table.labels)
    figure = new_figure(height_mm=size, width_mm=size + 6.0)
    draw_confusion(figure.subplots(), table, small=many)
    return figure


def case_figure(cases: Sequence[CaseStudy]) -> Figure:
    """Per case a row: slice with truth, claims, attention, text."""
    if not cases:
        raise ConfigError("case studies: hand in at least one case")
    figure = new_figure(height_mm=43.0 * len(cases) + 22.0)
    grid = figure.subplots(len(cases), 4, squeeze=False, width_ratios=(1, 1, 1, TEXT_WIDTH))
    attention = None
    for i, case in enumerate(cases):
        image, claimed, heat, text = grid[i]
        draw_slice(image, case.view, claims=False, heat=False)
        draw_slice(claimed, case.view, truth=False, heat=False, caption=False)
        drawn = draw_slice(heat, case.view, truth=False, claims=False, caption=False)
        attention = drawn or attention
        _row_name(image, case.title)
        _write(text, case)
    headings = ("CT and truth", "Claims", "Attention", "Report")
    for axes, heading in zip(grid[0], headings, strict=True):
        axes.set_title(heading, fontsize=LARGE, pad=6)
    if attention is not None:
        _colour_bar(figure, attention, grid[-1, 2])
    _box_legend(figure, [case.view for case in cases])
    return figure


def _write(axes: Axes, case: CaseStudy) -> None:
    axes.set_axis_off()
    axes.set_box_aspect(1.0 / TEXT_WIDTH)  # as high as the slices beside it
    note = textwrap.wrap(case.note, LINE_LETTERS)
    lines = MOST_TEXT_LINES - len(note) - bool(note)
    text = textwrap.wrap(case.text, LINE_LETTERS, max_lines=max(lines, 1), placeholder=" ...")
    written = "\n".join([*text, *([""] if note else []), *note])
    axes.text(
        0.0, 1.0, written, transform=axes.transAxes, va="top", fontsize=SMALL, linespacing=1.35
    )


def _row_name(axes: Axes, name: str) -> None:
    axes.annotate(
        name,
        (0.0, 0.5),
        xycoords="axes fraction",
        xytext=(-34 if axes.get_ylabel() else -8, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="center",
        fontsize=LARGE,
        fontweight="bold",
    )


def _colour_bar(figure: Figure, image: AxesImage, below: Axes) -> None:
    bar = figure.colorbar(
        image, cax=below.inset_axes((0.0, -0.1, 1.0, 0.04)), orientation="horizontal"
    )
    bar.set_label("attention (0 to 1)", fontsize=NORMAL, labelpad=2)
    bar.ax.tick_params(labelsize=SMALL, length=2, width=0.6)
    bar.outline.set_linewidth(0.5)


def _box_legend(figure: Figure, views: Sequence[SliceView]) -> None:
    lines = []
    if any(view.truth for view in views):
        lines.append(Line2D([], [], color=TRUTH_COLOUR, linewidth=1.6, label="truth"))
    if any(view.claims for view in views):
        claim = Line2D([], [], color=CLAIM_COLOUR, linewidth=1.6, linestyle="--")
        claim.set_label("claim with its score")
        lines.append(claim)
    if lines:
        figure.legend(
            handles=lines, loc="outside lower center", ncols=2, fontsize=NORMAL, frameon=False
        )
