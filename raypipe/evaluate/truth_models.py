"""One entry of each kind of truth file, checked field by field.

In: parsed Parquet rows and JSON. Out: frozen entries, valid once built.
Does not know: which series a file belongs to.
"""

import difflib
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from raypipe.errors import ConfigError
from raypipe.geometry import Box, Geometry
from raypipe.knowledge.graph import load_graph
from raypipe.settings import Settings

Corner = tuple[float, float, float]
Shape = tuple[int, int, int]
Four = tuple[float, float, float, float]


_LPS_MM = np.array([(0, 0, 1, 0.5), (0, 1, 0, 0.5), (1, 0, 0, 0.5), (0, 0, 0, 1)])
"""Affine of the grid on which a box's corners z, y, x are S, P, L in mm."""


def check_label(label: str, where: str) -> None:
    """Refuse what is no key of a finding: nothing could ever be found under such a name."""
    findings = load_graph().findings
    if label not in findings:
        near = difflib.get_close_matches(label.lower().replace(" ", "_"), findings, n=3)
        raise ConfigError(
            f"{where}: label {label!r} is no finding of the knowledge graph; use one of: "
            f"{', '.join(near or sorted(findings))}"
        )


class TruthRow(Settings):
    """A row of a Parquet file: one lesion, or a series without any."""

    series_key: str | None = None
    source: str | None = None
    file: str | None = None
    label: str | None = Field(description="null: the series has no lesion")
    box_lower_zyx: Corner | None = None
    box_upper_zyx: Corner | None = None
    box_lower_lps_mm: Corner | None = None
    box_upper_lps_mm: Corner | None = None
    diameter_mm: float | None = Field(default=None, gt=0)
    contrast_hu: float | None = None
    subtle: bool | None = None
    attributes: object = None
    cluster_key: str = Field(default="", coerce_numbers_to_str=True)
    shape_zyx: Shape | None = None
    affine_zyx_to_lps: tuple[float, ...] | None = Field(
        default=None, min_length=16, max_length=16, description="4 x 4 by rows"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if sum(name is not None for name in (self.series_key, self.source, self.file)) != 1:
            raise ValueError("name the series by series_key or by source (or file), one of them")
        voxels = (self.box_lower_zyx, self.box_upper_zyx, "zyx")
        millimetres = (self.box_lower_lps_mm, self.box_upper_lps_mm, "lps_mm")
        given = [c for c in (voxels, millimetres) if c[:2] != (None, None)]
        if self.label is None and given:
            raise ValueError("a box has a label; leave the box out where the series has no lesion")
        if self.label is not None and (len(given) != 1 or None in given[0]):
            raise ValueError(
                "a lesion has box_lower_zyx and box_upper_zyx (voxels), or box_lower_lps_mm and "
                "box_upper_lps_mm (mm)"
            )
        if (self.shape_zyx is None) != (self.affine_zyx_to_lps is None):
            raise ValueError("shape_zyx and affine_zyx_to_lps come together")
        if self.shape_zyx is not None and given == [millimetres]:
            raise ValueError("shape_zyx and affine_zyx_to_lps belong to a box in voxels")
        for lower, upper, of in given:
            if any(u <= lo for lo, u in zip(lower or (), upper or (), strict=True)):
                raise ValueError(f"box_upper_{of} lies beyond box_lower_{of} on every axis")
        self.geometry()
        self.box()
        return self

    def box(self) -> Box | None:
        """The box on `geometry`, None where the series has no lesion."""
        lower, upper = self.box_lower_zyx, self.box_upper_zyx
        if self.box_lower_lps_mm is not None and self.box_upper_lps_mm is not None:
            (x0, y0, z0), (x1, y1, z1) = self.box_lower_lps_mm, self.box_upper_lps_mm
            lower, upper = (z0, y0, x0), (z1, y1, x1)
        if lower is None or upper is None:
            return None
        return Box(lower_zyx=lower, upper_zyx=upper)

    def geometry(self) -> Geometry | None:
        """Grid of the box, None where it is the series' own."""
        if self.box_lower_lps_mm is not None:
            return Geometry(shape_zyx=(1, 1, 1), affine_zyx_to_lps=_LPS_MM)
        if self.shape_zyx is None or self.affine_zyx_to_lps is None:
            return None
        affine = np.array(self.affine_zyx_to_lps, dtype=np.float64).reshape(4, 4)
        return Geometry(shape_zyx=self.shape_zyx, affine_zyx_to_lps=affine)


class _Foreign(BaseModel):
    """An entry of a format that others define: fields beyond those used here may be there."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class CocoImage(_Foreign):
    """A series or one of its slices."""

    id: int | str
    file_name: str | None = None
    series_key: str | None = None
    slice: int = Field(default=0, ge=0)
    cluster_key: str = Field(default="", coerce_numbers_to_str=True)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.file_name and not self.series_key:
            raise ValueError("an image has file_name or series_key")
        return self


class CocoCategory(_Foreign):
    """A label."""

    id: int | str
    name: str = Field(min_length=1)


class CocoAnnotation(_Foreign):
    """A box on a slice, or in three dimensions."""

    image_id: int | str
    category_id: int | str
    bbox: Four | None = None
    bbox_3d: tuple[float, float, float, float, float, float] | None = None
    track_id: int | str | None = None
    iscrowd: Literal[0] = 0

    @model_validator(mode="after")
    def _one_box(self) -> Self:
        if self.bbox_3d is None and self.bbox is None:
            raise ValueError("an annotation has bbox [x, y, width, height] or bbox_3d")
        sizes = self.bbox_3d[3:] if self.bbox_3d is not None else (self.bbox or ())[2:]
        if min(sizes) <= 0:
            raise ValueError("width, height (and depth) of a box are positive")
        self.box(0)
        return self

    def box(self, z: int) -> Box:
        """The box on the series' grid; z is the slice of a bbox."""
        if self.bbox_3d is not None:
            x, y, z0, width, height, depth = self.bbox_3d
        else:
            assert self.bbox is not None, "checked when it was built"
            (x, y, width, height), z0, depth = self.bbox, float(z), 1.0
        return Box(lower_zyx=(z0, y, x), upper_zyx=(z0 + depth, y + height, x + width))


class CocoFile(_Foreign):
    """The whole file."""

    images: tuple[CocoImage, ...] = Field(min_length=1)
    annotations: tuple[CocoAnnotation, ...] = ()
    categories: tuple[CocoCategory, ...] = ()


class PhantomBox(_Foreign):
    """A box of a phantom's lesion."""

    lower_zyx: Corner
    upper_zyx: Corner

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self.box()
        return self

    def box(self) -> Box:
        """The box on the grid of its series."""
        return Box(lower_zyx=self.lower_zyx, upper_zyx=self.upper_zyx)


class PhantomLesion(_Foreign):
    """A lesion of a phantom."""

    label: str = Field(min_length=1)
    box_zyx: PhantomBox
    diameter_mm: float = Field(gt=0)
    contrast_hu: float
    subtle: bool


class PhantomSeries(_Foreign):
    """A series of a phantom archive."""

    paths: tuple[str, ...] = Field(min_length=1)
    status: str
    shape_zyx: Shape
    affine_zyx_to_lps: tuple[Four, Four, Four, Four]
    lesions: tuple[PhantomLesion, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.status == "ok":
            self.geometry()
        return self

    def geometry(self) -> Geometry:
        """Grid of the boxes."""
        return Geometry(
            shape_zyx=self.shape_zyx,
            affine_zyx_to_lps=np.array(self.affine_zyx_to_lps, dtype=np.float64),
        )
