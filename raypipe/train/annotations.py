"""Annotations of a user: lesions as boxes with labels, from Parquet or COCO JSON.

In: a file. Out: Annotations that are valid against the knowledge graph; every error names file,
row, field and remedy. Does not know: archives, volumes, data sets.

Parquet, one row a lesion; column names are those of raypipe's results:
    series_key | file           which series: its key, or the path of one of its files
    label                       key of a finding; null: the series is normal
    box_lower_zyx, box_upper_zyx            half-open voxels of the volume as raypipe loads it, or
    box_lower_lps_mm, box_upper_lps_mm      patient millimetres (LPS)
    attributes                  optional: "density=fluid;margin=smooth", a map, or name-value pairs

COCO JSON, for pictures: `bbox` is x, y, width, height in pixels; the category's name is the label;
a picture without annotations is normal. Of `attributes` only text counts: numbers and true or false
are flags of the program that drew the boxes.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import KnowledgeGraph

Space = Literal["voxel", "lps_mm"]
_BOXES: dict[Space, tuple[str, str]] = {
    "voxel": ("box_lower_zyx", "box_upper_zyx"),
    "lps_mm": ("box_lower_lps_mm", "box_upper_lps_mm"),
}
_COLUMNS = {
    "series_key",
    "file",
    "label",
    "attributes",
    *(c for two in _BOXES.values() for c in two),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """One lesion, or that a series has none.

    Args:
        where: file and row, for errors that are found later.
        series_key, file: one of them names the series, the other is "".
        label: key of a finding; None: the series is normal.
        space: what corners_23 counts in.
        corners_23: lower and upper corner: z, y, x in voxels, or L, P, S in mm.
        attributes: attribute -> value.
        size_yx: rows and columns of the picture, where the file tells them.
        picture: whether it speaks of a single picture, so that its series has one slice.
    """

    where: str
    series_key: str = ""
    file: str = ""
    label: str | None = None
    space: Space = "voxel"
    corners_23: NDArray[np.float64] | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    size_yx: tuple[int, int] | None = None
    picture: bool = False


def read_annotations(path: str | Path, graph: KnowledgeGraph) -> list[Annotation]:
    """Read a Parquet file or folder, or a COCO JSON.

    Raises:
        ConfigError: naming file, row, field, rule and remedy.
    """
    source = Path(path)
    if not source.exists():
        raise ConfigError(f"annotations: {source} does not exist; name a .parquet or .json file")
    read = _coco if source.suffix == ".json" else _parquet
    found = read(source)
    if not found:
        raise ConfigError(f"annotations: {source} holds no rows")
    for annotation in found:
        _check(annotation, graph)
    return found


def _parquet(source: Path) -> list[Annotation]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise ConfigError(
            f"annotations: {source} is no Parquet ({type(error).__name__})"
        ) from error
    names = set(table.column_names)
    unknown = sorted(names - _COLUMNS)
    if unknown:
        raise ConfigError(
            f"annotations: {source}: unknown column {unknown[0]!r}; known ones are "
            f"{', '.join(sorted(_COLUMNS))}"
        )
    if "label" not in names or not names & {"series_key", "file"}:
        raise ConfigError(
            f"annotations: {source}: needs the columns label and series_key (or file); has "
            f"{', '.join(sorted(names))}"
        )
    return [_of_row(f"{source.name}, row {i}", row) for i, row in enumerate(table.to_pylist())]


def _of_row(where: str, row: Mapping[str, Any]) -> Annotation:
    key, file = row.get("series_key") or "", row.get("file") or ""
    if bool(key) == bool(file):
        raise ConfigError(f"{where}: exactly one of series_key and file names the series")
    label = row["label"]
    spaces = [s for s, columns in _BOXES.items() if any(row.get(c) is not None for c in columns)]
    if label is None:
        if spaces:
            raise ConfigError(f"{where}: label is null, which says normal, but a box is given")
        return Annotation(where=where, series_key=key, file=file)
    if len(spaces) != 1:
        raise ConfigError(
            f"{where}: give a box either as box_lower_zyx and box_upper_zyx (voxels) or as "
            f"box_lower_lps_mm and box_upper_lps_mm (mm); {len(spaces)} are given"
        )
    space = spaces[0]
    return Annotation(
        where=where,
        series_key=key,
        file=file,
        label=str(label),
        space=space,
        corners_23=np.stack([_corner(where, name, row.get(name)) for name in _BOXES[space]]),
        attributes=_attributes(where, row.get("attributes")),
    )


def _corner(where: str, name: str, value: Any) -> NDArray[np.float64]:
    try:
        corner = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        corner = np.empty(0)
    if corner.shape != (3,) or not np.isfinite(corner).all():
        raise ConfigError(f"{where}: {name} is three finite numbers, not {value!r}")
    return corner


def _attributes(where: str, value: Any) -> dict[str, str]:
    """From text "a=b;c=d", a struct, pairs of a map, or a list of {name, value}."""
    if value is None:
        return {}
    if isinstance(value, dict):  # a struct has every field in every row
        value = [(name, of) for name, of in value.items() if of is not None]
    parts = [p.split("=", 1) for p in value.split(";") if p] if isinstance(value, str) else value
    try:
        pairs = [(p["name"], p["value"]) if isinstance(p, dict) else (p[0], p[1]) for p in parts]
    except (IndexError, KeyError, TypeError) as error:
        raise ConfigError(
            f'{where}: attributes {value!r}: write "density=fluid;margin=smooth", or name-value '
            "pairs"
        ) from error
    return {str(name).strip(): str(of).strip() for name, of in pairs}


def _coco(source: Path) -> list[Annotation]:
    try:
        told = json.loads(source.read_bytes())
        images = {image["id"]: image for image in told["images"]}
        labels = {category["id"]: str(category["name"]) for category in told["categories"]}
        rows = [dict(row) for row in told["annotations"]]
        files = {key: str(image["file_name"]) for key, image in images.items()}
        sizes = {key: _size(image) for key, image in images.items()}
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"annotations: {source} is no COCO JSON ({type(error).__name__}: {error}); it needs "
            "images (id, file_name), categories (id, name) and annotations"
        ) from error
    found, with_lesion = [], set()
    for i, row in enumerate(rows):
        where = f"{source.name}, annotation {row.get('id', i)}"
        for name, known in (("image_id", images), ("category_id", labels)):
            if row.get(name) not in known:
                raise ConfigError(f"{where}: {name} {row.get(name)!r} is not among the file's own")
        try:
            x, y, width, height = box = [float(v) for v in row["bbox"]]
        except (KeyError, TypeError, ValueError):
            box = [np.nan]
        if not np.isfinite(box).all():
            raise ConfigError(
                f"{where}: bbox is x, y, width, height in pixels, not {row.get('bbox')!r}"
            )
        with_lesion.add(row["image_id"])
        found.append(
            Annotation(
                where=where,
                file=files[row["image_id"]],
                label=labels[row["category_id"]],
                corners_23=np.array([(0.0, y, x), (1.0, y + height, x + width)]),
                attributes=_attributes(where, _without_flags(row.get("attributes"))),
                size_yx=sizes[row["image_id"]],
                picture=True,
            )
        )
    for key in images.keys() - with_lesion:
        where = f"{source.name}, image {key}"
        found.append(Annotation(where=where, file=files[key], size_yx=sizes[key], picture=True))
    return found


def _size(image: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return None if height is None or width is None else (int(height), int(width))


def _without_flags(attributes: Any) -> Any:
    if not isinstance(attributes, dict):
        return attributes
    return {name: of for name, of in attributes.items() if isinstance(of, str)}


def _check(annotation: Annotation, graph: KnowledgeGraph) -> None:
    """Label, attributes and box against the graph."""
    label, where = annotation.label, annotation.where
    if label is None:
        return
    if label not in graph.detected:
        near = difflib.get_close_matches(label, graph.detected, n=3) or graph.detected
        raise ConfigError(
            f"{where}: label {label!r} is no finding that the detector looks for; "
            f"use one of: {', '.join(near)}"
        )
    for name, value in annotation.attributes.items():
        if name not in graph.attributes:
            raise ConfigError(
                f"{where}: unknown attribute {name!r}; known ones are "
                f"{', '.join(sorted(graph.attributes))}"
            )
        if not graph.allows(label, name, value):
            raise ConfigError(
                f"{where}: attribute {name} of {label} cannot be {value!r}; it is one of "
                f"{', '.join(graph.finding(label).attributes.get(name, ())) or 'none'}"
            )
    assert annotation.corners_23 is not None, "a label comes with a box"
    lower, upper = annotation.corners_23
    if not (upper > lower).all():
        raise ConfigError(
            f"{where}: the box's upper corner {upper.tolist()} must exceed its lower corner "
            f"{lower.tolist()} along every axis"
        )
