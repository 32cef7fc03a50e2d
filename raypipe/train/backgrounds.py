"""Real CT as background for inserted lesions.

In: a folder or s3:// prefix of CT. Out: volumes filled with lesions of known truth.
Does not know: networks, slices, data sets.

Series that raypipe rejects are left out. Nothing of a background is written anywhere but into
the data set that the caller asked for.
"""

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.errors import SeriesError, Status
from raypipe.phantom import KINDS, Lesion, insert_lesions
from raypipe.phantom.backgrounds import estimate_noise, estimate_organs
from raypipe.phantom.organs import Organ
from raypipe.types import Flag, Volume
from raypipe.volume.assemble import VolumeConfig, to_volume

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Background:
    """A real CT and what is needed to insert lesions."""

    volume: Volume
    organs: NDArray[np.uint8] = field(repr=False)
    noise_hu: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Filled:
    """A volume with lesions, their truths, their map (0, or 1 + index) and the organs.

    all_organs: whether the organ map is complete, so that it tells the regions in view.
    """

    volume: Volume
    lesions: tuple[Lesion, ...]
    lesion_map: NDArray[np.uint8] = field(repr=False)
    organs: NDArray[np.uint8] = field(repr=False)
    all_organs: bool = True


def load_volumes(source: str) -> Iterator[Volume]:
    """Every CT volume in HU under a folder or prefix; repaired where that is allowed."""
    config = ArchiveConfig()
    repair = VolumeConfig(missing_slices="interpolate", duplicate_slices="keep_first")
    with tempfile.TemporaryDirectory() as manifest:
        build_index(source, manifest, IndexConfig(), storage=config.storage)
        rows = read_manifest(manifest, config.storage).to_pylist()
    for row in rows:
        if row["status"] != Status.OK.value:
            continue
        try:
            volume = to_volume(read_series(series_ref(row), config), repair)
        except SeriesError as error:
            log.info("left out a background: %s", error.reason.value)
            continue
        if Flag.NO_HU not in volume.flags:
            yield volume


def measure_background(volume: Volume) -> Background:
    """Organs and noise of a real CT."""
    organs = estimate_organs(volume.hu, volume.geometry)
    return Background(volume=volume, organs=organs, noise_hu=estimate_noise(volume.hu, organs))


def fill(background: Background, rng: np.random.Generator) -> Filled:
    """Two to seven lesions wherever the background has their organs."""
    volume = background.volume
    labels = fitting_labels(background.organs)
    count = int(rng.integers(2, 8))
    inserted = insert_lesions(
        volume.hu,
        volume.geometry,
        background.organs,
        rng,
        labels=[str(label) for label in rng.choice(labels, size=count)] if labels else [],
        thickness_mm=volume.thickness_mm,
        noise_hu=background.noise_hu,
    )
    hu = np.clip(np.rint(inserted.hu), -32768, 32767).astype(np.int16)
    return Filled(
        volume=replace(volume, hu=hu),
        lesions=inserted.lesions,
        lesion_map=inserted.lesion_map,
        organs=background.organs,
        all_organs=False,
    )


def fitting_labels(organs: NDArray[np.uint8]) -> list[str]:
    """Labels whose organ the map holds."""
    present = np.bincount(organs.ravel(), minlength=256) > 500
    head = present[Organ.BRAIN]
    return [
        label
        for label, kind in KINDS.items()
        if any(present[organ] for organ in kind.organs) and (head or Organ.BRAIN not in kind.organs)
    ]
