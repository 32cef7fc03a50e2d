"""The truth of series as users have it: Parquet, COCO JSON, or the truth.json of a phantom archive.

In: the bytes of a file, a function that finds the series of a file name. Out: per series its
lesions, on the grid that the file names. Does not know: archives, results, measures.

Parquet, one row a lesion; a row whose label is null says that its series has none:

    series_key          the key in results and manifest, or
    source (or file)    a file of the series or its folder; the end of the path is enough
    label               key of a finding in the knowledge graph
    box_lower_zyx       near corner in voxels of the series, half-open, three numbers
    box_upper_zyx       far corner
    box_lower_lps_mm, box_upper_lps_mm    or the corners in the patient, L, P, S in mm
    diameter_mm, contrast_hu, subtle, cluster_key        may be left out
    attributes          may stand there, as for the training on annotations; not measured
    shape_zyx, affine_zyx_to_lps   the grid of boxes in voxels (3 and 16 numbers, by rows) where it
                        is not the series' own

COCO JSON: an image is a series or one of its slices. `file_name` is as `source` above, or
`series_key` names the series; `slice` is the index z (0 where left out). A `bbox` is
[x, y, width, height] on that slice, a `bbox_3d` [x, y, z, width, height, depth]. Boxes of one
series and label with the same `track_id` are one lesion. Names of categories are labels.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from raypipe.errors import ConfigError
from raypipe.evaluate.records import TruthLesion
from raypipe.evaluate.truth_models import CocoFile, CocoImage, PhantomSeries, TruthRow
from raypipe.geometry import Box, Geometry
from raypipe.parquet import read_parquet

FindSeries = Callable[[str], str | None]
"""A file name or folder -> series_key, None where no series has it."""


@dataclass(frozen=True, kw_only=True)
class KnownSeries:
    """What a truth file says of one series.

    Args:
        series_key: the key in results and manifest.
        lesions: boxes on `geometry`.
        geometry: grid of the boxes; None: the series' own.
        cluster_key: the patient, "" where not told.
    """

    series_key: str
    lesions: tuple[TruthLesion, ...]
    geometry: Geometry | None = field(default=None, repr=False)
    cluster_key: str = ""


@dataclass(frozen=True, kw_only=True)
class KnownTruth:
    """What a truth file says.

    Args:
        series: by series_key.
        unknown: file names that no series has.
    """

    series: tuple[KnownSeries, ...]
    unknown: tuple[str, ...] = ()


def read_truth(content: bytes, name: str, find_series: FindSeries) -> KnownTruth:
    """The truth that a file holds.

    Args:
        content: of the file.
        name: of the file; .parquet or .json.
        find_series: from a file name or folder to its series.

    Raises:
        ConfigError: the file is of another kind, or a row breaks a rule; the message names file,
            row, field and rule.
    """
    kind = PurePosixPath(name).suffix.lower()
    if kind == ".parquet":
        parts, unknown = _of_parquet(content, name, find_series)
    elif kind == ".json":
        try:
            tree = json.loads(content)
        except ValueError as error:
            raise ConfigError(f"truth {name} is not JSON: {error}") from error
        read = _of_phantoms if isinstance(tree, list) else _of_coco
        parts, unknown = read(tree, name, find_series)
    else:
        raise ConfigError(f"truth {name}: give a .parquet or a .json (COCO) file, not {kind!r}")
    return KnownTruth(series=_merged(parts, name), unknown=tuple(sorted(set(unknown))))


def _of_parquet(
    content: bytes, name: str, find_series: FindSeries
) -> tuple[list[KnownSeries], list[str]]:
    try:
        rows = read_parquet(content).to_pylist()
    except pa.ArrowInvalid as error:
        raise ConfigError(f"truth {name} is not Parquet: {error}") from error
    parts, unknown = [], []
    for number, raw in enumerate(rows):
        given = {key: value for key, value in raw.items() if value not in (None, "")}
        if "label" in raw:  # the column has to be there
            given.setdefault("label", None)
        row: TruthRow = _checked(TruthRow, given, f"truth {name}: row {number}")
        source = row.source or row.file or ""
        key = row.series_key or find_series(source)
        if key is None:
            unknown.append(source)
            continue
        parts.append(
            KnownSeries(
                series_key=key,
                lesions=_row_lesions(row),
                geometry=row.geometry(),
                cluster_key=row.cluster_key,
            )
        )
    return parts, unknown


def _row_lesions(row: TruthRow) -> tuple[TruthLesion, ...]:
    box = row.box()
    if row.label is None or box is None:
        return ()
    lesion = TruthLesion(
        label=row.label,
        box_zyx=box,
        diameter_mm=row.diameter_mm,
        contrast_hu=row.contrast_hu,
        subtle=row.subtle,
    )
    return (lesion,)


def _of_phantoms(
    tree: Sequence[Any], name: str, find_series: FindSeries
) -> tuple[list[KnownSeries], list[str]]:
    """The list that `raypipe demo` writes; series that are broken on purpose are left out."""
    parts, unknown = [], []
    for number, raw in enumerate(tree):
        series: PhantomSeries = _checked(PhantomSeries, raw, f"truth {name}: series {number}")
        if series.status != "ok":
            continue
        key = find_series(series.paths[0])
        if key is None:
            unknown.append(series.paths[0])
            continue
        lesions = tuple(
            TruthLesion(
                label=lesion.label,
                box_zyx=lesion.box_zyx.box(),
                diameter_mm=lesion.diameter_mm,
                contrast_hu=lesion.contrast_hu,
                subtle=lesion.subtle,
            )
            for lesion in series.lesions
        )
        parts.append(KnownSeries(series_key=key, lesions=lesions, geometry=series.geometry()))
    return parts, unknown


def _of_coco(tree: Any, name: str, find_series: FindSeries) -> tuple[list[KnownSeries], list[str]]:
    coco: CocoFile = _checked(CocoFile, tree, f"truth {name}")
    _check_ids(coco, name)
    labels = {category.id: category.name for category in coco.categories}
    images, unknown = _coco_images(coco, name, find_series)
    known = {image.id for image in coco.images}
    boxes: list[tuple[str, str, str, Box]] = []  # series, label, track, box
    for number, annotation in enumerate(coco.annotations):
        for field_name, value, among in (
            ("image_id", annotation.image_id, known),
            ("category_id", annotation.category_id, labels),
        ):
            if value not in among:
                raise ConfigError(
                    f"truth {name}: annotation {number}: {field_name} {value!r} is not listed in "
                    "the file; add it or leave the annotation out"
                )
        if annotation.image_id in images:  # else its file is unknown, which is told once
            image, key = images[annotation.image_id]
            track = f"{number}" if annotation.track_id is None else f"track {annotation.track_id}"
            box = annotation.box(image.slice)
            boxes.append((key, labels[annotation.category_id], track, box))
    seen = [
        KnownSeries(series_key=key, lesions=(), cluster_key=image.cluster_key)
        for image, key in images.values()
    ]
    found = [KnownSeries(series_key=key, lesions=(lesion,)) for key, lesion in _tracks(boxes)]
    return [*seen, *found], unknown


def _check_ids(coco: CocoFile, name: str) -> None:
    """An id that stands twice would give the boxes of one entry to the other."""
    for what, ids in (
        ("images", [image.id for image in coco.images]),
        ("categories", [category.id for category in coco.categories]),
    ):
        twice = next((one for one, count in Counter(ids).items() if count > 1), None)
        if twice is not None:
            raise ConfigError(
                f"truth {name}: {what}: the id {twice!r} occurs twice; give each its own, also in "
                "the annotations that mean it"
            )


def _coco_images(
    coco: CocoFile, name: str, find_series: FindSeries
) -> tuple[dict[int | str, tuple[CocoImage, str]], list[str]]:
    """Image id -> image and series_key; file names that no series has."""
    images: dict[int | str, tuple[CocoImage, str]] = {}
    unknown, places = [], set()
    for image in coco.images:
        key = image.series_key or find_series(image.file_name or "")
        if key is None:
            unknown.append(image.file_name or "")
            continue
        if (key, image.slice) in places:
            raise ConfigError(
                f"truth {name}: image {image.id}: slice {image.slice} of its series occurs twice; "
                "give each image of a series its index z as `slice`"
            )
        places.add((key, image.slice))
        images[image.id] = (image, key)
    return images, unknown


def _tracks(boxes: Sequence[tuple[str, str, str, Box]]) -> list[tuple[str, TruthLesion]]:
    """Series and lesion of each track: the box around all of its boxes."""
    lesions = []
    ordered = sorted(boxes, key=lambda b: b[:3])
    for (key, label, _), members in groupby(ordered, key=lambda b: b[:3]):
        parts = [box for *_, box in members]
        around = Box(
            lower_zyx=_corner(min, [b.lower_zyx for b in parts]),
            upper_zyx=_corner(max, [b.upper_zyx for b in parts]),
        )
        lesions.append((key, TruthLesion(label=label, box_zyx=around)))
    return lesions


def _corner(
    pick: Callable[..., float], corners: Sequence[tuple[float, float, float]]
) -> tuple[float, float, float]:
    z, y, x = (float(pick(values)) for values in zip(*corners, strict=True))
    return (z, y, x)


def _merged(parts: Sequence[KnownSeries], name: str) -> tuple[KnownSeries, ...]:
    """One entry a series."""
    merged = []
    for key, same in groupby(sorted(parts, key=lambda s: s.series_key), lambda s: s.series_key):
        members = list(same)
        grids = [m.geometry for m in members if m.geometry is not None and m.lesions]
        bare = any(m.geometry is None and m.lesions for m in members)
        if grids and (bare or not all(grids[0].same_grid(grid) for grid in grids)):
            raise ConfigError(
                f"truth {name}: the lesions of series {key} lie on different grids; write all "
                "boxes of a series on one grid"
            )
        merged.append(
            KnownSeries(
                series_key=key,
                lesions=tuple(lesion for m in members for lesion in m.lesions),
                geometry=grids[0] if grids else None,
                cluster_key=next((m.cluster_key for m in members if m.cluster_key), ""),
            )
        )
    return tuple(merged)


def _checked(model: Any, raw: Any, where: str) -> Any:
    """Validate one entry; the message names its place, the field, the rule and the value.

    Neither a whole entry nor the value of an unknown field is repeated: it may name a patient.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the row"
        rule = f"{first['msg']} (got {first['input']!r})"
        if first["type"] == "extra_forbidden":
            rule = f"unknown; known are {', '.join(model.model_fields)}"
        elif isinstance(first["input"], Mapping):
            rule = first["msg"]
        raise ConfigError(f"{where}: {place}: {rule}") from error
