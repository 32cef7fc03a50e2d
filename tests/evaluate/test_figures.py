"""Figures show the numbers that they are given, and can be written without a display."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from raypipe.errors import ConfigError
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import DetectionEvaluation, evaluate_detection
from raypipe.evaluate.figure_files import write_figures
from raypipe.evaluate.figures import (
    CaseStudy,
    case_figure,
    class_grid,
    confusion_figure,
    curves_figure,
    froc_figure,
    reliability_figure,
)
from raypipe.evaluate.measures import MACRO
from raypipe.evaluate.plot_ablation import AblationArm, Interval, ablation_figure
from raypipe.evaluate.plot_lesions import lesions_figure
from raypipe.evaluate.plot_slices import SliceBox, SliceView
from raypipe.evaluate.plot_style import save_figure
from raypipe.evaluate.records import TruthSeries
from tests.evaluate.cohorts import LABELS, random_cohort


@pytest.fixture(scope="module")
def evaluation() -> DetectionEvaluation:
    return evaluate_detection(*random_cohort(0), DetectionEvaluationConfig(bootstrap=10))


def view(*, spacing: tuple[float, float] | None = (1.0, 2.0)) -> SliceView:
    """A body of 60 x 40 voxels in air, 60 mm x 80 mm, with one lesion."""
    hu = np.full((100, 80), -1000, dtype=np.int16)
    hu[20:80, 20:60] = 40
    return SliceView(
        hu_yx=hu,
        spacing_yx_mm=spacing,
        heat_yx=np.eye(8),
        truth=(SliceBox(lower_yx=(30, 30), upper_yx=(40, 45), text="cyst"),),
        claims=(SliceBox(lower_yx=(31, 29), upper_yx=(41, 44), text="0.87"),),
    )


def words(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(match=_is_text))  # type: ignore[attr-defined]


def _is_text(artist: object) -> bool:
    return hasattr(artist, "get_text")


def boxes(axes: Axes) -> list[tuple[float, float, float, float]]:
    return [
        (*p.get_xy(), p.get_width(), p.get_height())
        for p in axes.patches
        if isinstance(p, Rectangle)
    ]


def test_class_grid_has_a_row_a_label(evaluation: DetectionEvaluation) -> None:
    figure = class_grid(evaluation, dict.fromkeys(LABELS, view()))
    axes = figure.axes[:9]
    for row, label in enumerate(LABELS):
        auc = evaluation.measure("image", "auc_roc", label)
        assert f"AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})" in words(figure)
        roc = next(c for c in evaluation.curves if (c.kind, c.label) == ("roc", label))
        x, y = axes[3 * row].lines[1].get_data()
        assert (tuple(x), tuple(y)) == (roc.x, roc.y)
        assert boxes(axes[3 * row + 2]) == [(29.5, 29.5, 15, 10), (28.5, 30.5, 15, 10)]
    with pytest.raises(ConfigError, match="at least one label"):
        class_grid(evaluation, {})


def test_slice_is_cropped_to_a_square_around_the_body(evaluation: DetectionEvaluation) -> None:
    axes = class_grid(evaluation, {"cyst": view()}).axes[2]
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    assert (bottom - top) * 1.0 == pytest.approx((right - left) * 2.0)  # mm
    assert left + 0.5 < 20 < 60 < right + 0.5
    assert right - left == pytest.approx(40 * 1.04)
    assert axes.get_aspect() == 0.5
    assert "20 mm" in words(axes.figure)  # type: ignore[arg-type]


def test_without_spacing_there_is_no_scale(evaluation: DetectionEvaluation) -> None:
    figure = class_grid(evaluation, {"cyst": view(spacing=None)})
    assert " mm" not in words(figure)
    assert "\N{MINUS SIGN}160 to 240 HU" in words(figure)


def test_a_label_without_positives_leaves_its_panels_empty() -> None:
    truths, claims = random_cohort(0)
    config = DetectionEvaluationConfig(
        labels=("cyst", "unheard_of"), iou_thresholds=(0.1,), match_iou=0.4, bootstrap=0
    )
    result = evaluate_detection(truths, claims, config)
    figure = class_grid(result, {"unheard_of": view()})
    assert len(figure.axes[0].lines) == 1  # chance alone
    curves_figure(result)


def test_case_figure_shows_truth_claims_and_text_apart() -> None:
    case = CaseStudy(title="simple", view=view(), text="A cyst " * 200, note="Missed: a stone.")
    figure = case_figure([case])
    truth, claims, heat, _ = figure.axes[:4]
    assert boxes(truth) == [(29.5, 29.5, 15, 10)]
    assert boxes(claims) == [(28.5, 30.5, 15, 10)]
    assert not boxes(heat)
    assert [len(ax.images) for ax in (truth, claims, heat)] == [1, 1, 2]
    text = figure.axes[3].texts[0].get_text()
    assert text.endswith("Missed: a stone.")
    assert len(text.splitlines()) == 12  # cut, so that it stays beside its slice


def test_ablation_shows_values_runs_and_gains() -> None:
    first = AblationArm(name="base", measures={"mAP": Interval(value=0.5)})
    second = AblationArm(
        name="full",
        measures={"mAP": Interval(value=0.6, low=0.55, high=0.66)},
        runs={"mAP": [0.58, 0.62]},
        gains={"mAP": Interval(value=0.1, low=0.02, high=0.2)},
    )
    left, right = ablation_figure([first, second]).axes
    assert [bar.get_height() for bar in left.patches] == [0.5, 0.6]  # type: ignore[attr-defined]
    assert [0.58, 0.62] in [list(line.get_ydata()) for line in left.lines]
    assert [0.1] in [list(line.get_xdata()) for line in right.lines]
    with pytest.raises(ConfigError, match="two arms"):
        ablation_figure([first])


def test_confusion_shows_the_counts_of_lesions(evaluation: DetectionEvaluation) -> None:
    table = evaluation.lesion_confusion
    assert table is not None
    axes = confusion_figure(evaluation).axes[0]
    shown = [[int(axes.texts[4 * i + j].get_text().split()[0]) for j in range(4)] for i in range(4)]
    assert shown == [list(row) for row in table.counts]
    assert [t.get_text() for t in axes.get_yticklabels()] == [*LABELS, "(nothing)"]


def test_confusion_of_slices_needs_one_label_a_slice() -> None:
    truths, claims = random_cohort(0, flat=True)
    config = DetectionEvaluationConfig(boxes="slice", bootstrap=0)
    with pytest.raises(ConfigError, match="single"):
        confusion_figure(evaluate_detection(truths, claims, config))


def test_froc_stays_within_its_axis(evaluation: DetectionEvaluation) -> None:
    axes = froc_figure(evaluation).axes[0]
    high = axes.get_xlim()[1]
    curves = [np.asarray(line.get_xdata(), dtype=float) for line in axes.lines]
    assert len(curves) == len(LABELS) + 1
    assert all((np.diff(x) >= 0).all() and x[-1] == high for x in curves)


def test_lesions_figure_shows_labels_by_ap(evaluation: DetectionEvaluation) -> None:
    left = lesions_figure(evaluation, evaluation, 0.85).axes[0]
    names = [t.get_text() for t in left.get_yticklabels()]
    ap = {k: evaluation.measure("box", "ap", k, iou=0.5).value or 0.0 for k in (*LABELS, MACRO)}
    ordered = sorted(LABELS, key=lambda k: -ap[k])
    assert [name.split(" (")[0] for name in names] == [*ordered, "mean over labels"]
    drawn = next(line for line in left.lines if line.get_label() == "all lesions")
    assert list(drawn.get_xdata()) == [ap[k] for k in (*ordered, MACRO)]


def test_figures_are_written(evaluation: DetectionEvaluation, tmp_path: Path) -> None:
    for name, figure in (
        ("curves.png", curves_figure(evaluation)),
        ("reliability.png", reliability_figure(evaluation)),
        ("froc.pdf", froc_figure(evaluation)),
        ("new/cases.png", case_figure([CaseStudy(title="edge", view=view(), text="A cyst.")])),
    ):
        path = save_figure(figure, tmp_path / name, dpi=100)
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == pytest.approx(180 / 25.4 * 100, abs=2)
        else:
            assert path.read_bytes().startswith(b"%PDF")


def test_series_without_lesions_and_claims_have_no_confusion(tmp_path: Path) -> None:
    truths = [TruthSeries(series_key=key) for key in "ab"]
    config = DetectionEvaluationConfig(labels=LABELS, bootstrap=0)
    files = write_figures(evaluate_detection(truths, [], config), tmp_path, {}, [])
    assert [file.name for file in files] == ["curves.png", "froc.png", "reliability.png"]
    assert all(file.is_file() for file in files)
