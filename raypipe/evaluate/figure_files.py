"""All figures of one evaluation as files of a folder.

In: a DetectionEvaluation, views and case studies where there are any. Out: PNG files.
Does not know: how a figure is drawn, where views come from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from raypipe.evaluate.detection import DetectionEvaluation
from raypipe.evaluate.figures import (
    MOST_LINES,
    CaseStudy,
    case_figure,
    class_grid,
    confusion_figure,
    curves_figure,
    froc_figure,
    reliability_figure,
)
from raypipe.evaluate.plot_slices import SliceView
from raypipe.evaluate.plot_style import save_figure


def write_figures(
    evaluation: DetectionEvaluation,
    folder: Path,
    views: Mapping[str, SliceView],
    cases: Sequence[CaseStudy],
) -> tuple[Path, ...]:
    """Write the figures that there is something to show on.

    Args:
        evaluation: what the curves show.
        folder: made where needed.
        views: label -> slice of the class grid; empty: no class grid.
        cases: empty: no case studies.
    """
    labels = evaluation.telling_labels()[:MOST_LINES]
    figures = {
        "curves.png": curves_figure(evaluation, labels),
        "froc.png": froc_figure(evaluation, labels),
        "reliability.png": reliability_figure(evaluation),
    }
    table = evaluation.confusion or evaluation.lesion_confusion
    if table is not None and table.only_used().labels:
        figures["confusion.png"] = confusion_figure(evaluation)
    if views:
        figures["classes.png"] = class_grid(evaluation, views)
    if cases:
        figures["cases.png"] = case_figure(cases)
    return tuple(save_figure(figure, folder / name) for name, figure in figures.items())
