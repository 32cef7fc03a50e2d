"""A training data set from an archive and a user's annotations.

In: an archive (folder or s3://), Annotations. Out: SampleStores for training and validation that
the training of the detector takes as `store` and `validation_store`. Series go through the same
Load and Prepare as an archive job. Does not know: networks, losses, file formats of annotations.

Within an annotated series, whatever is not annotated counts as normal. Series that no annotation
names are left out.
"""

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import Field

from raypipe.archive.index import build_index
from raypipe.archive.manifest import Row, read_manifest
from raypipe.archive.storage import MEMBER_MARK
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError, Status
from raypipe.geometry import Box, Geometry, box_around
from raypipe.model.detector import stacks
from raypipe.settings import Settings
from raypipe.stages import Load, Prepare, geometry_of
from raypipe.train.annotations import Annotation
from raypipe.train.dataset import SliceSample, write_store
from raypipe.train.tissues import unknown_tissues
from raypipe.types import ModelInput

log = logging.getLogger(__name__)
LEAST_OVERLAP = 0.5
"""A slice shows a lesion where the box covers at least this share of it, or of the box."""


class AnnotatedStoreConfig(Settings):
    """How annotated series become slices."""

    validation: float = Field(
        default=0.2, ge=0, lt=1, description="share of the studies kept aside for validation"
    )
    empty_share: float = Field(
        default=0.3, ge=0, lt=1, description="share of the kept slices without a lesion"
    )
    seed: int = Field(default=0, ge=0, description="of the split and of the empty slices kept")


class AnnotatedSummary(Settings):
    """What was made."""

    train_store: str
    validation_store: str | None = Field(description="null where nothing was kept aside")
    series: int = Field(description="annotated series that could be read")
    rejected: dict[str, int] = Field(description="reason -> annotated series that could not")
    lesions: dict[str, int] = Field(description="label -> annotated lesions")
    train_slices: int
    validation_slices: int


def annotated_store(
    archive: str,
    annotations: Sequence[Annotation],
    target: str | Path,
    config: AnnotatedStoreConfig,
    settings: RaypipeConfig | None = None,
) -> AnnotatedSummary:
    """Write TARGET/train and TARGET/validation.

    Raises:
        ConfigError: an annotation names no series of the archive or lies outside its series, or
            no annotated series of a part could be read.
    """
    settings = settings or RaypipeConfig()
    with tempfile.TemporaryDirectory() as manifest:
        storage = settings.archive.storage
        build_index(archive, manifest, settings.index, storage=storage)
        rows = read_manifest(manifest, storage).to_pylist()
    told = _by_series(annotations, rows)
    held = _held_out([rows[i] for i in told], config)
    rejected: Counter[str] = Counter()
    made: dict[str, int] = {}
    for part in ("train", "validation"):
        mine = {i: own for i, own in told.items() if (_study(rows[i]) in held) == (part != "train")}
        if not mine:
            continue
        lost: Counter[str] = Counter()
        samples = _samples(rows, mine, config, settings, lost)
        first = next(samples, None)
        if first is None:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(lost.items()))
            raise ConfigError(
                f"annotations: no series for {part} could be read ({reasons}); annotate others, or "
                "part them by another seed"
            )
        every = chain([first], samples)
        store = write_store(Path(target) / part, every, settings.preprocess.fingerprint)
        made[part] = len(store)
        rejected += lost
    labels = [a.label for own in told.values() for a in own if a.label]
    return AnnotatedSummary(
        train_store=str(Path(target) / "train"),
        validation_store=str(Path(target) / "validation") if "validation" in made else None,
        series=len(told) - sum(rejected.values()),
        rejected=dict(rejected),
        lesions={label: labels.count(label) for label in sorted(set(labels))},
        train_slices=made.get("train", 0),
        validation_slices=made.get("validation", 0),
    )


def _by_series(
    annotations: Sequence[Annotation], rows: Sequence[Row]
) -> dict[int, list[Annotation]]:
    """Row of the manifest -> its annotations."""
    keys = {row["series_key"]: i for i, row in enumerate(rows)}
    files: dict[str, set[int]] = {}
    for i, row in enumerate(rows):
        for instance in (*row["instances"], *row["repeated"]):
            for name in _names(instance["uri"], row["source"]):
                files.setdefault(name, set()).add(i)
    found: dict[int, list[Annotation]] = {}
    for a in annotations:
        if a.series_key:
            if a.series_key not in keys:
                raise ConfigError(
                    f"{a.where}: series_key {a.series_key!r} is not in the archive; keys depend on "
                    "index.hash_key: give the one that the job was run with"
                )
            found.setdefault(keys[a.series_key], []).append(a)
            continue
        series = files.get(a.file) or files.get(a.file.strip("/")) or set()
        if len(series) != 1:
            many = f"names {len(series)} series" if series else "is not in the archive"
            raise ConfigError(f"{a.where}: file {a.file!r} {many}; write its path in the archive")
        found.setdefault(next(iter(series)), []).append(a)
    return dict(sorted(found.items()))


def _names(uri: str, source: str) -> set[str]:
    """What a user may call a file: its address, its path inside the archive, its last part."""
    inside = uri.removeprefix(source).removeprefix(MEMBER_MARK).strip("/")
    return {uri.strip("/"), uri, inside, PurePosixPath(uri).name}


def _study(row: Row) -> str:
    return str(row["study_key"] or row["series_key"])


def _held_out(rows: Sequence[Row], config: AnnotatedStoreConfig) -> set[str]:
    """Keys of the studies kept aside: whole studies, so that no patient's visit is on two sides."""
    studies = sorted({_study(row) for row in rows})
    count = round(config.validation * len(studies))
    if config.validation > 0 and count in (0, len(studies)):
        raise ConfigError(
            f"annotations: {len(studies)} annotated studies cannot be parted into "
            f"{config.validation:.0%} validation and the rest; annotate more, or set validation 0"
        )
    order = np.random.default_rng(config.seed).permutation(len(studies))
    return {studies[int(i)] for i in order[:count]}


def _samples(
    rows: Sequence[Row],
    told: dict[int, list[Annotation]],
    config: AnnotatedStoreConfig,
    settings: RaypipeConfig,
    rejected: Counter[str],
) -> Iterator[SliceSample]:
    """The kept slices of annotated series; counts the reasons of those that cannot be read."""
    load, prepare = Load(settings), Prepare(settings)
    for i, annotations in told.items():
        row = prepare(load(rows[i]))
        if row["status"] != Status.OK.value:
            log.info("%s: %s", annotations[0].where, row["reason"])
            rejected[row["reason"]] += 1
            continue
        every = annotated_samples(row["model_input"], geometry_of(row), annotations, series=i)
        yield from _kept(every, config, np.random.default_rng([config.seed, i]))


def _kept(
    samples: Sequence[SliceSample], config: AnnotatedStoreConfig, rng: np.random.Generator
) -> list[SliceSample]:
    """All slices with lesions, and as many without as the share asks for; a normal series: all."""
    full = [i for i, s in enumerate(samples) if s.labels]
    empty = [i for i, s in enumerate(samples) if not s.labels]
    if full:
        wanted = max(1, round(len(full) * config.empty_share / (1.0 - config.empty_share)))
        empty = [int(i) for i in rng.permutation(empty)[:wanted]] if config.empty_share else []
    return [samples[i] for i in sorted(full + empty)]


def annotated_samples(
    model_input: ModelInput, volume: Geometry, annotations: Sequence[Annotation], series: int
) -> list[SliceSample]:
    """Every slice of a series with the lesions that it shows.

    Args:
        model_input: the series as networks see it.
        volume: the grid that voxel boxes count on.
        annotations: of this series.
        series: its number.

    Raises:
        ConfigError: an annotation lies outside the series, or speaks of a picture and the series
            has several slices.
    """
    for a in annotations:
        if a.picture and volume.shape_zyx[0] > 1:
            raise ConfigError(
                f"{a.where}: COCO boxes are drawn on pictures, but {a.file!r} belongs to a series "
                f"of {volume.shape_zyx[0]} slices; give its lesions as Parquet, where boxes have z"
            )
    lesions = [
        (box_on_grid(a, volume, model_input.geometry), a)
        for a in annotations
        if a.label is not None
    ]
    samples = []
    for z in range(len(model_input.hu)):
        seen = [(box, a) for box, a in lesions if _shows(box, z)]
        samples.append(
            SliceSample(
                hu=stacks(model_input.hu, z, z + 1)[0],
                boxes_m4=np.array([_flat(box) for box, _ in seen], np.float32).reshape(-1, 4),
                labels=tuple(str(a.label) for _, a in seen),
                attributes=tuple(a.attributes for _, a in seen),
                subtle_m=np.zeros(len(seen), dtype=bool),
                regions=(),
                series=series,
                tissues=unknown_tissues(),
            )
        )
    return samples


def box_on_grid(annotation: Annotation, volume: Geometry, target: Geometry) -> Box:
    """The box of an annotation on the networks' grid.

    Raises:
        ConfigError: it lies outside the series, or the picture has another size.
    """
    where, corners = annotation.where, annotation.corners_23
    assert corners is not None, "only lesions have boxes"
    rows_columns = volume.shape_zyx[1:]
    if annotation.size_yx is not None and annotation.size_yx != rows_columns:
        raise ConfigError(
            f"{where}: height and width {annotation.size_yx} differ from the picture's "
            f"{rows_columns}; draw the boxes on the picture as it is stored"
        )
    if annotation.space == "lps_mm":
        every = [(corners[i, 0], corners[j, 1], corners[k, 2])
                 for i in (0, 1) for j in (0, 1) for k in (0, 1)]  # fmt: skip
        box = box_around(volume, every)
    else:
        lower, upper = ((float(z), float(y), float(x)) for z, y, x in corners)
        box = Box(lower_zyx=lower, upper_zyx=upper)
    inside = [
        min(u, float(n)) > max(lo, 0.0)
        for lo, u, n in zip(box.lower_zyx, box.upper_zyx, volume.shape_zyx, strict=True)
    ]
    if not all(inside):
        raise ConfigError(
            f"{where}: the box from {_short(box.lower_zyx)} to {_short(box.upper_zyx)} (z, y, x) "
            f"lies outside the series of {volume.shape_zyx} voxels; check the order of axes "
            "and the unit"
        )
    return volume.box_to(target, box)


def _shows(box: Box, z: int) -> bool:
    lower, upper = box.lower_zyx[0], box.upper_zyx[0]
    common = min(upper, z + 1.0) - max(lower, float(z))
    return common >= LEAST_OVERLAP * min(1.0, upper - lower)


def _flat(box: Box) -> tuple[float, float, float, float]:
    """Centre x, centre y, width, height from the outer face of pixel 0."""
    (_, y0, x0), (_, y1, x1) = box.lower_zyx, box.upper_zyx
    return (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0


def _short(corner: tuple[float, float, float]) -> tuple[float, ...]:
    return tuple(round(v, 1) for v in corner)
