"""How figures look: size, type, colours that colour-blind readers can tell apart.

In: sizes and axes. Out: matplotlib figures without pyplot's global state, files.
Does not know: what is drawn.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

MM = 1.0 / 25.4
WIDTH_MM = 180.0  # two columns of a journal page
SMALL, NORMAL, LARGE = 6.5, 7.5, 9.0  # points

# Okabe & Ito 2008; the line style tells them apart in grey print as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[str | tuple[int, tuple[float, ...]], ...] = (
    "-",
    (0, (5, 1.5)),
    (0, (1.2, 1.2)),
    (0, (5, 1.2, 1.2, 1.2)),
    (0, (8, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2, 2)),
)
GREY, FAINT = "#595959", "#D9D9D9"
TRUTH_COLOUR, CLAIM_COLOUR = "#56B4E9", "#F0A000"


def new_figure(height_mm: float, width_mm: float = WIDTH_MM) -> Figure:
    """An empty figure with its own Agg canvas."""
    figure = Figure(figsize=(width_mm * MM, height_mm * MM), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 300) -> Path:
    """Write a figure; the suffix (.png, .pdf, .svg) tells the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, facecolor="white")
    return path


def dress(axes: Axes, *, x: str = "", y: str = "", title: str = "", grid: bool = True) -> None:
    """Labels, type sizes, thin left and bottom spines."""
    axes.set_xlabel(x, fontsize=NORMAL, labelpad=2)
    axes.set_ylabel(y, fontsize=NORMAL, labelpad=2)
    if title:
        axes.set_title(title, fontsize=LARGE, loc="left", pad=5)
    axes.tick_params(labelsize=SMALL, length=2.5, width=0.6, color=GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_linewidth(0.6)
        axes.spines[side].set_color(GREY)
    if grid:
        axes.grid(color=FAINT, linewidth=0.4)
        axes.set_axisbelow(True)


def unit_square(axes: Axes) -> None:
    """Both axes from 0 to 1 with a little room, equal scale."""
    ticks: Sequence[float] = (0, 0.25, 0.5, 0.75, 1)
    names = ["0", "0.25", "0.5", "0.75", "1"]
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.set_aspect("equal", adjustable="box")


def legend(axes: Axes, *, below: float = -0.15) -> None:
    """A legend under the axes, where it hides no curve; none where nothing is labelled.

    Args:
        axes: with labelled lines.
        below: where it begins, in heights of the axes.
    """
    if not axes.get_legend_handles_labels()[0]:
        return
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, below),
        fontsize=SMALL,
        frameon=False,
        handlelength=2.4,
        borderpad=0.0,
    )


def panel_letters(axes: Sequence[Axes]) -> None:
    """a, b, c, ... at the top left of each panel."""
    for letter, ax in zip("abcdefghijklmnopqrstuvwxyz", axes, strict=False):
        ax.annotate(
            letter,
            (0.0, 1.0),
            xycoords="axes fraction",
            xytext=(-14, 4),
            textcoords="offset points",
            fontsize=LARGE,
            fontweight="bold",
        )


def spoken(label: str) -> str:
    """A label as a reader sees it."""
    return label.replace("_", " ")
