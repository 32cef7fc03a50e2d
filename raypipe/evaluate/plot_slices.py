"""CT slices on axes: window, boxes of truth and claims, attention, a scale bar in mm.

In: HU of a slice and what lies on it. Out: drawn axes. Does not know: volumes, networks, files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from raypipe.evaluate.plot_style import CLAIM_COLOUR, NORMAL, SMALL, TRUTH_COLOUR
from raypipe.knowledge.windows import SOFT_TISSUE, Window

HEAT = "inferno"
BODY_HU = -300.0
CROWDED_YX = (12.0, 110.0)  # boxes whose corners are closer (voxels) have their texts in lines
SCALE_BARS_MM = (5, 10, 20, 50, 100)


@dataclass(frozen=True, kw_only=True)
class SliceBox:
    """A box within a slice.

    Args:
        lower_yx: near corner in voxels, half-open as in Box.
        upper_yx: far corner in voxels.
        text: what stands beside it, "" for nothing.
    """

    lower_yx: tuple[float, float]
    upper_yx: tuple[float, float]
    text: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceView:
    """One slice and what lies on it.

    Args:
        hu_yx: (y, x) HU.
        spacing_yx_mm: None where unknown; the slice is then drawn with square voxels, no scale.
        window: HU range that becomes grey.
        heat_yx: attention from 0 to 1 over the same field of view, of any shape; or None.
        truth: boxes of lesions that are there.
        claims: boxes that were claimed.
        crop_to_body: leave out the air and the table around the largest body; else the whole
            slice is shown.
    """

    hu_yx: NDArray[np.generic] = field(repr=False)
    spacing_yx_mm: tuple[float, float] | None = None
    window: Window = SOFT_TISSUE
    heat_yx: NDArray[np.generic] | None = field(default=None, repr=False)
    truth: tuple[SliceBox, ...] = ()
    claims: tuple[SliceBox, ...] = ()
    crop_to_body: bool = True

    def shown_yx(self) -> tuple[tuple[float, float], tuple[float, float]]:
        """Corners (y, x) of the square, in mm, around what is shown; half-open voxels."""
        rows, columns = self.hu_yx.shape
        lower, upper = np.zeros(2), np.array([rows, columns], dtype=np.float64)
        if self.crop_to_body:
            lower, upper = _body(np.asarray(self.hu_yx))
            for box in (*self.truth, *self.claims):
                lower, upper = np.minimum(lower, box.lower_yx), np.maximum(upper, box.upper_yx)
        spacing = np.asarray(self.spacing_yx_mm or (1.0, 1.0))
        half = 0.52 * np.max((upper - lower) * spacing) / spacing
        center = (lower + upper) / 2.0
        (top, left), (bottom, right) = center - half, center + half
        return (float(top), float(left)), (float(bottom), float(right))


def draw_slice(
    axes: Axes,
    view: SliceView,
    *,
    truth: bool = True,
    claims: bool = True,
    heat: bool = True,
    caption: bool = True,
) -> AxesImage | None:
    """Draw a slice and the chosen layers.

    Args:
        axes: to draw on.
        view: the slice.
        truth: draw the boxes of the truth (solid).
        claims: draw the claimed boxes (dashed).
        heat: lay the attention over it, more opaque where it is higher.
        caption: name the window in HU.

    Returns:
        The attention's image for a colour bar, None where none was drawn.
    """
    hu: Any = np.asarray(view.hu_yx, dtype=np.float32)
    grey: NDArray[np.float32] = view.window.apply(hu)
    rows, columns = grey.shape
    sy, sx = view.spacing_yx_mm or (1.0, 1.0)
    extent = (-0.5, columns - 0.5, rows - 0.5, -0.5)
    axes.imshow(grey, cmap="gray", vmin=0.0, vmax=1.0, extent=extent, interpolation="bilinear")
    attention = None
    if heat and view.heat_yx is not None:
        attention = axes.imshow(
            np.asarray(view.heat_yx, dtype=np.float32),
            cmap=_rising_alpha(),
            vmin=0.0,
            vmax=1.0,
            extent=extent,
            interpolation="bilinear",
        )
    axes.set_aspect(sy / sx)
    (top, left), (bottom, right) = view.shown_yx()
    axes.set_xlim(left - 0.5, right - 0.5)
    axes.set_ylim(bottom - 0.5, top - 0.5)
    _draw_boxes(axes, view.truth if truth else (), TRUTH_COLOUR, "-", above=True)
    _draw_boxes(axes, view.claims if claims else (), CLAIM_COLOUR, (0, (3, 1.5)), above=False)
    axes.set_facecolor("black")  # where the square reaches beyond the slice
    axes.set_xticks(())
    axes.set_yticks(())
    for spine in axes.spines.values():
        spine.set_visible(False)
    if view.spacing_yx_mm is not None:
        _scale_bar(axes, (right - left) * sx)
    if caption:
        _caption(axes, view.window)
    return attention


def _body(hu_yx: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of the largest thing denser than lung; the slice's own where there is none."""
    from scipy import ndimage

    dense = ndimage.binary_opening(np.asarray(hu_yx) > BODY_HU, iterations=2)  # table, clothes
    parts, count = ndimage.label(dense)
    if count == 0:
        return np.zeros(2), np.asarray(hu_yx.shape, dtype=np.float64)
    largest = int(np.argmax(np.bincount(parts.ravel())[1:])) + 1
    rows, columns = ndimage.find_objects(parts)[largest - 1]
    return (
        np.array([rows.start, columns.start], dtype=np.float64),
        np.array([rows.stop, columns.stop], dtype=np.float64),
    )


def _rising_alpha() -> ListedColormap:
    from matplotlib import colormaps

    colours = colormaps[HEAT](np.linspace(0.0, 1.0, 256))
    colours[:, 3] = np.clip(np.linspace(0.0, 1.0, 256) * 1.3 - 0.1, 0.0, 0.6)
    return ListedColormap(colours, name="attention")


def _draw_boxes(
    axes: Axes,
    boxes: Sequence[SliceBox],
    colour: str,
    line: str | tuple[int, tuple[float, ...]],
    *,
    above: bool,
) -> None:
    anchors: list[tuple[float, float]] = []
    for box in boxes:
        (y0, x0), (y1, x1) = box.lower_yx, box.upper_yx
        outline = Rectangle(
            (x0 - 0.5, y0 - 0.5),
            x1 - x0,
            y1 - y0,
            fill=False,
            edgecolor=colour,
            linewidth=1.1,
            linestyle=line,
            path_effects=[withStroke(linewidth=2.0, foreground="#000000A0")],
        )
        axes.add_patch(outline)
        if box.text:
            anchors.append(_name_box(axes, box, colour, anchors, above=above))


def _name_box(
    axes: Axes,
    box: SliceBox,
    colour: str,
    others: Sequence[tuple[float, float]],
    *,
    above: bool,
) -> tuple[float, float]:
    """Write a box's text away from the edges of the slice and from other texts; its anchor."""
    (y0, x0), (y1, x1) = box.lower_yx, box.upper_yx
    first, last = axes.get_xlim()
    across = ((x0 + x1) / 2.0 - first) / (last - first)
    side = 0 if across < 0.35 else 2 if across > 0.65 else 1
    x, y = (x0, (x0 + x1) / 2.0, x1)[side] - 0.5, (y0 if above else y1) - 0.5
    beside = sum(abs(y - b) < CROWDED_YX[0] and abs(x - a) < CROWDED_YX[1] for a, b in others)
    shift = 2 + beside * (SMALL + 0.5)
    text = axes.annotate(
        box.text,
        (x, y),
        xytext=(0, shift if above else -shift),
        textcoords="offset points",
        fontsize=SMALL - 0.5,
        color=colour,
        ha=("left", "center", "right")[side],
        va="bottom" if above else "top",
        annotation_clip=True,
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )
    text.set_in_layout(False)  # a long label must not push the panels apart
    return x, y


def _scale_bar(axes: Axes, width_mm: float) -> None:
    fitting = [length for length in SCALE_BARS_MM if length <= 0.35 * width_mm]
    if not fitting:
        return
    length = fitting[-1]
    right, y = 0.97, 0.04
    left = right - length / width_mm
    edge = [withStroke(linewidth=3.2, foreground="black")]
    axes.plot(
        (left, right),
        (y, y),
        transform=axes.transAxes,
        color="white",
        linewidth=1.8,
        solid_capstyle="butt",
        path_effects=edge,
    )
    axes.annotate(
        f"{length} mm",
        ((left + right) / 2, y),
        xycoords="axes fraction",
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=SMALL,
        color="white",
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )


def _caption(axes: Axes, window: Window) -> None:
    axes.text(
        0.02,
        0.03,
        f"{window.low_hu:g} to {window.high_hu:g} HU".replace("-", "\N{MINUS SIGN}"),
        transform=axes.transAxes,
        fontsize=NORMAL - 1.5,
        color="white",
        path_effects=[withStroke(linewidth=1.5, foreground="black")],
    )
