"""A synthetic CT of a body that never lived, with lesions whose truth is known.

In: a PhantomSpec. Out: a Phantom: Volume, lesions, organ map, lesion map.
Does not know: files; the writers stand beside it.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy import ndimage
from threadpoolctl import threadpool_limits

from raypipe.geometry import Geometry
from raypipe.phantom.abdomen import paint_abdomen
from raypipe.phantom.bones import paint_bones
from raypipe.phantom.bowel import paint_bowel
from raypipe.phantom.build import random_build
from raypipe.phantom.canvas import Array, Canvas
from raypipe.phantom.chest import paint_chest
from raypipe.phantom.head import paint_head
from raypipe.phantom.lesions import DEFAULT_LABELS, Lesion, insert_lesions
from raypipe.phantom.noise import Kernel, kernel_noise, noise_scale, streaks
from raypipe.phantom.organs import ORGAN_NAMES
from raypipe.phantom.pose import random_pose
from raypipe.phantom.tissue import ContrastPhase, tissue_hu
from raypipe.phantom.wall import add_texture, paint_table, paint_wall
from raypipe.settings import Settings
from raypipe.types import Volume

PhantomRegion = Literal["chest", "abdomen", "head", "chest_abdomen"]
Orientation = Literal["axial", "oblique", "coronal"]

_CENTER_Z_MM: dict[str, float] = {"chest": 60, "abdomen": -120, "head": 0, "chest_abdomen": -40}


class PhantomSpec(Settings):
    """What to build."""

    region: PhantomRegion = Field(default="chest", description="part of the body")
    shape_zyx: tuple[int, int, int] = Field(default=(96, 256, 256), description="voxels")
    spacing_zyx_mm: tuple[float, float, float] = Field(
        default=(3.0, 1.5, 1.5), description="distance between voxel centres, mm"
    )
    thickness_mm: float | None = Field(
        default=None, gt=0, description="slice thickness, mm; None: the slice spacing"
    )
    seed: int = Field(default=0, ge=0, description="the same seed gives the same phantom")
    lesions: int | tuple[str, ...] = Field(
        default=2, description="how many to draw for the region, or which labels to insert"
    )
    orientation: Orientation = Field(default="axial", description="how the slices lie")
    center_z_mm: float | None = Field(
        default=None,
        description="height of the grid's centre over the body's origin, mm; "
        "None: the region's middle",
    )
    noise_hu: float = Field(default=12.0, ge=0, description="noise inside the body, HU")
    kernel: Kernel = Field(default="standard", description="how the noise is correlated")
    contrast: ContrastPhase = Field(default="none", description="contrast medium's phase")
    streaks_hu: float = Field(default=4.0, ge=0, description="streaks beside bones, HU")
    subtle: bool | None = Field(
        default=None, description="True: only subtle lesions; False: none; None: a few"
    )

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        if min(self.shape_zyx) < 1:
            raise ValueError(f"shape_zyx {self.shape_zyx} must be positive")
        if min(self.spacing_zyx_mm) <= 0:
            raise ValueError(f"spacing_zyx_mm {self.spacing_zyx_mm} must be positive")
        return self


@dataclass(frozen=True, kw_only=True, eq=False)
class Phantom:
    """A synthetic CT and its truth.

    Args:
        volume: HU and grid.
        lesions: what was inserted, in the order of lesion_map.
        organs: (z, y, x) uint8 codes of raypipe.phantom.Organ.
        lesion_map: (z, y, x) uint8; 0, or 1 + the index into lesions.
        spec: what it was built from.
        organ_names: code -> name.
    """

    volume: Volume
    lesions: tuple[Lesion, ...]
    organs: NDArray[np.uint8] = field(repr=False)
    lesion_map: NDArray[np.uint8] = field(repr=False)
    spec: PhantomSpec
    organ_names: dict[int, str] = field(default_factory=lambda: dict(ORGAN_NAMES), repr=False)


def make_phantom(spec: PhantomSpec) -> Phantom:
    """Build a phantom. Equal specs give equal arrays.

    Lesions that find no room on the grid (a liver cyst in a chest) are left out.
    """
    # many small products: on a busy machine the threads of BLAS mostly wait for each other
    with threadpool_limits(1, user_api="blas"):
        return _built(spec)


def _built(spec: PhantomSpec) -> Phantom:
    geometry = phantom_geometry(spec)
    canvas = _paint_body(spec, geometry)
    _blur_thickness(canvas, spec)
    labels, count = (
        (spec.lesions, None)
        if isinstance(spec.lesions, tuple)
        else (DEFAULT_LABELS[spec.region], spec.lesions)
    )
    inserted = insert_lesions(
        canvas.hu,
        geometry,
        canvas.organs,
        canvas.rng("lesions"),
        labels=labels,
        count=count,
        thickness_mm=spec.thickness_mm or spec.spacing_zyx_mm[0],
        subtle=spec.subtle,
    )
    hu = _with_noise(canvas, inserted.hu, spec)
    volume = Volume(
        hu=hu, geometry=geometry, thickness_mm=spec.thickness_mm or spec.spacing_zyx_mm[0]
    )
    return Phantom(
        volume=volume,
        lesions=tuple(
            lesion.measured(hu, inserted.lesion_map, i + 1)
            for i, lesion in enumerate(inserted.lesions)
        ),
        organs=canvas.organs,
        lesion_map=inserted.lesion_map,
        spec=spec,
    )


def phantom_geometry(spec: PhantomSpec) -> Geometry:
    """The grid of a phantom, centred on its region.

    "axial": z to the head, y to the back, x to the left. "coronal": slices from front to back,
    rows from head to foot. "oblique": axial, turned by fixed angles about all three axes.
    """
    axes = {
        "axial": np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]),
        "coronal": np.array([[0.0, 1, 0], [0, 0, -1], [1, 0, 0]]),
        "oblique": np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]]) @ _oblique_turn(),
    }[spec.orientation]
    affine = np.eye(4)
    affine[:3, :3] = (axes * np.array(spec.spacing_zyx_mm)[:, None]).T
    height = _CENTER_Z_MM[spec.region] if spec.center_z_mm is None else spec.center_z_mm
    middle = (np.array(spec.shape_zyx) - 1) / 2
    affine[:3, 3] = np.array([0.0, 0.0, height]) - affine[:3, :3] @ middle
    return Geometry(shape_zyx=spec.shape_zyx, affine_zyx_to_lps=affine)


def _oblique_turn() -> NDArray[np.float64]:
    a, b = np.deg2rad((14.0, 9.0))
    about_x = np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), np.sin(b), 0], [-np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(about_x @ about_z)


def _paint_body(spec: PhantomSpec, geometry: Geometry) -> Canvas:
    rng = np.random.default_rng([spec.seed, 1])
    canvas = Canvas(geometry, random_pose(rng, size_range=(0.88, 1.08)), spec.seed)
    hu = tissue_hu(canvas.rng("tissue"), spec.contrast)
    if spec.region == "head":
        paint_head(canvas, hu)
    else:
        build = random_build(canvas.rng("build"))
        paint_wall(canvas, build, hu)
        paint_chest(canvas, build, hu)
        paint_abdomen(canvas, build, hu)
        paint_bowel(canvas, build, hu)
        paint_bones(canvas, build, hu)
        paint_table(canvas, top_y_mm=112.0 + build.fat_mm, half_width_mm=215.0)
    add_texture(canvas)
    return canvas


def _blur_thickness(canvas: Canvas, spec: PhantomSpec) -> None:
    """Average over the slice profile where slices are thicker than their spacing."""
    voxels = (spec.thickness_mm or 0.0) / spec.spacing_zyx_mm[0]
    if voxels > 1.2 and spec.shape_zyx[0] > 1:
        canvas.hu = ndimage.gaussian_filter1d(canvas.hu, 0.3 * voxels, axis=0)


def _with_noise(canvas: Canvas, hu: Array, spec: PhantomSpec) -> NDArray[np.int16]:
    rng = canvas.rng("noise")
    out: Array = hu
    if spec.noise_hu > 0:
        noise = kernel_noise(spec.shape_zyx, canvas.pixel_mm, spec.kernel, rng)
        out = out + noise * noise_scale(hu) * np.float32(spec.noise_hu)
    if spec.streaks_hu > 0:
        out = out + streaks(hu, rng, spec.streaks_hu)
    return np.asarray(np.clip(np.rint(out), -1024, 3071), np.int16)
