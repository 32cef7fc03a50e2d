"""Pictures of a volume for people: slices the usual way round, with boxes in picture coordinates.

In: a Volume, boxes on its grid, an HU window. Out: data URIs, and boxes in percent of a picture.
Does not know: pages, findings.

The usual way round: axial slices are seen from the feet (the patient's right on the left side of
the picture, the front on top); coronal and sagittal slices have the head on top, sagittal ones
face left.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.geometry import Box
from raypipe.knowledge.windows import Window
from raypipe.types import Flag, Volume

Plane = Literal["axial", "coronal", "sagittal"]
Grey = NDArray[np.uint8]

_EDGES: dict[Plane, tuple[str, str, str, str]] = {
    "axial": ("A", "L", "P", "R"),
    "coronal": ("H", "L", "F", "R"),
    "sagittal": ("H", "P", "F", "A"),
}
"""What lies at the top, right, bottom and left of a picture."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A box in percent of a picture's width and height."""

    name: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a page.

    Args:
        uri: data URI.
        width, height: in pixels.
        edges: letters of the patient's sides at top, right, bottom, left; "" where not known.
        marks: boxes to draw over it.
        caption: what it shows.
    """

    uri: str = field(repr=False)
    width: int
    height: int
    edges: tuple[str, str, str, str]
    marks: tuple[Mark, ...] = ()
    caption: str = ""


class Viewer:
    """A volume turned so that its axes run to the head, the back and the patient's left."""

    def __init__(self, volume: Volume) -> None:
        directions = volume.geometry.affine_zyx_to_lps[:3, :3]
        directions = directions / np.linalg.norm(directions, axis=0)
        self._order = _axis_order(directions)
        self._flips = tuple(
            bool(directions[2 - row, axis] < 0) for row, axis in enumerate(self._order)
        )
        self._shape = volume.geometry.shape_zyx
        hu = volume.hu.transpose(self._order)
        self._hu = hu[tuple(slice(None, None, -1 if f else 1) for f in self._flips)]
        spacing = volume.geometry.spacing_zyx_mm
        self.spacing_mm = tuple(spacing[axis] for axis in self._order)
        self.known_sides = Flag.NO_GEOMETRY not in volume.flags
        planes: tuple[Plane, Plane, Plane] = ("axial", "coronal", "sagittal")
        self.native_plane: Plane = planes[self._order.index(0)]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels towards the head, the back, the left."""
        a, b, c = self._hu.shape
        return (a, b, c)

    def box(self, box: Box) -> Box:
        """A box of the volume's grid on the turned grid."""
        lower, upper = [], []
        for axis, flip in zip(self._order, self._flips, strict=True):
            low, up, n = box.lower_zyx[axis], box.upper_zyx[axis], self._shape[axis]
            lower.append(n - up if flip else low)
            upper.append(n - low if flip else up)
        return Box(
            lower_zyx=(lower[0], lower[1], lower[2]), upper_zyx=(upper[0], upper[1], upper[2])
        )

    def native_index(self, z: int) -> int:
        """The index across the native plane of slice z of the volume."""
        row = self._order.index(0)
        return self._shape[0] - 1 - z if self._flips[row] else z

    def picture(
        self,
        plane: Plane,
        index: int,
        window: Window,
        *,
        width_px: int,
        boxes: Sequence[tuple[str, Box]] = (),
        crop: Box | None = None,
        caption: str = "",
    ) -> Picture:
        """A slice as a picture; boxes and crop lie on the turned grid."""
        grey = window_grey(self.slice(plane, index), window)
        rows_mm, columns_mm = self.in_plane_mm(plane)
        top, bottom, left, right = self._extent(plane, crop, grey.shape)
        part = grey[top:bottom, left:right]
        height_px = max(1, round(width_px * part.shape[0] * rows_mm / (part.shape[1] * columns_mm)))
        marks = tuple(
            self._mark(name, plane, box, (top, bottom, left, right)) for name, box in boxes
        )
        return Picture(
            uri=data_uri(resized(part, height_px, width_px)),
            width=width_px,
            height=height_px,
            edges=_EDGES[plane] if self.known_sides else ("", "", "", ""),
            marks=marks,
            caption=caption,
        )

    def slice(self, plane: Plane, index: int) -> NDArray[np.int16]:
        """The HU of a slice, rows from the top of its picture."""
        if plane == "axial":
            return np.asarray(self._hu[index])
        if plane == "coronal":
            return np.asarray(self._hu[::-1, index])
        return np.asarray(self._hu[::-1, :, index])

    def in_plane_mm(self, plane: Plane) -> tuple[float, float]:
        """Distance between the rows, and between the columns, of a slice."""
        up, back, left = self.spacing_mm
        return {"axial": (back, left), "coronal": (up, left), "sagittal": (up, back)}[plane]

    def _edges_of(self, plane: Plane, box: Box) -> tuple[float, float, float, float]:
        """Top, bottom, left, right of a box in pixels of the whole slice."""
        (s0, p0, l0), (s1, p1, l1) = box.lower_zyx, box.upper_zyx
        n = self._hu.shape[0]
        if plane == "axial":
            return (p0, p1, l0, l1)
        across = (l0, l1) if plane == "coronal" else (p0, p1)
        return (n - s1, n - s0, *across)

    def _extent(
        self, plane: Plane, crop: Box | None, shape: tuple[int, ...]
    ) -> tuple[int, int, int, int]:
        if crop is None:
            return (0, shape[0], 0, shape[1])
        top, bottom, left, right = self._edges_of(plane, crop)
        first, last = max(0, int(top)), max(0, int(left))
        return (
            min(first, shape[0] - 1),
            min(shape[0], max(first + 1, int(np.ceil(bottom)))),
            min(last, shape[1] - 1),
            min(shape[1], max(last + 1, int(np.ceil(right)))),
        )

    def _mark(self, name: str, plane: Plane, box: Box, extent: tuple[int, int, int, int]) -> Mark:
        top, bottom, left, right = self._edges_of(plane, box)
        first, last, near, far = extent
        return Mark(
            name=name,
            left=100 * (left - near) / (far - near),
            top=100 * (top - first) / (last - first),
            width=100 * (right - left) / (far - near),
            height=100 * (bottom - top) / (last - first),
        )


def _axis_order(directions: NDArray[np.float64]) -> tuple[int, int, int]:
    """The array axes that run most along S, P and L, each used once."""
    from itertools import permutations

    strength = np.abs(directions)  # (L P S, array axis)
    best = max(
        permutations(range(3)), key=lambda axes: sum(strength[2 - i, a] for i, a in enumerate(axes))
    )
    return (best[0], best[1], best[2])


def around(
    viewer: Viewer, plane: Plane, box: Box, *, factor: float = 2.2, least_mm: float = 50.0
) -> Box:
    """A box with the same middle, larger, square in mm on the plane, inside the turned grid."""
    size_mm = [n * s for n, s in zip(box.size_zyx, viewer.spacing_mm, strict=True)]
    across = {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
    edge = max(factor * max(mm for i, mm in enumerate(size_mm) if i != across), least_mm)
    lower, upper = [], []
    for low, up, n, spacing in zip(
        box.lower_zyx, box.upper_zyx, viewer.shape, viewer.spacing_mm, strict=True
    ):
        half = min(edge / spacing, n) / 2
        middle = float(np.clip((low + up) / 2, half, n - half))
        lower.append(middle - half)
        upper.append(middle + half)
    return Box(lower_zyx=(lower[0], lower[1], lower[2]), upper_zyx=(upper[0], upper[1], upper[2]))


def montage(viewer: Viewer, window: Window, *, tiles: int, tile_px: int, columns: int) -> Picture:
    """Evenly spaced slices of the native plane, in rows, from the first to the last."""
    plane = viewer.native_plane
    across = {"axial": 0, "coronal": 1, "sagittal": 2}[plane]
    count = viewer.shape[across]
    chosen = np.unique(np.linspace(0, count - 1, min(tiles + 2, count)).round().astype(int))
    chosen = chosen[1:-1] if len(chosen) > tiles else chosen
    rows_mm, columns_mm = viewer.in_plane_mm(plane)
    shape = viewer.slice(plane, 0).shape
    height = max(1, round(tile_px * shape[0] * rows_mm / (shape[1] * columns_mm)))
    lines = -(-len(chosen) // columns)
    sheet = np.zeros((lines * height, min(columns, len(chosen)) * tile_px), np.uint8)
    for number, index in enumerate(chosen):
        y, x = divmod(number, columns)
        grey = resized(window_grey(viewer.slice(plane, int(index)), window), height, tile_px)
        sheet[y * height : (y + 1) * height, x * tile_px : (x + 1) * tile_px] = grey
    return Picture(
        uri=data_uri(sheet),
        width=sheet.shape[1],
        height=sheet.shape[0],
        edges=("", "", "", ""),
        caption=f"{len(chosen)} of {count} {plane} slices, {window.name.replace('_', ' ')} window",
    )


def window_grey(hu: NDArray[np.int16], window: Window) -> Grey:
    """HU as 8-bit grey."""
    values: Any = hu.astype(np.float32)
    return np.asarray(np.rint(255 * window.apply(values)), np.uint8)


def resized(grey: Grey, height: int, width: int) -> Grey:
    """The picture at another size; shrinking averages, growing is smooth."""
    return np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC))


def data_uri(grey: Grey) -> str:
    """A picture as a data URI: WebP, or PNG where Pillow has no WebP."""
    from PIL import features

    kind = "webp" if features.check("webp") else "png"
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, kind, **({"quality": 82} if kind == "webp" else {}))
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def grey_window(volume: Volume) -> Window:
    """A window for pictures without HU: the range of their grey values."""
    low, high = np.percentile(volume.hu[:: max(1, volume.hu.shape[0] // 8)], (0.5, 99.5))
    return Window(name="grey", low_hu=float(low), high_hu=float(max(high, low + 1)))
