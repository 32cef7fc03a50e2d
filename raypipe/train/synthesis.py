"""Make training series: phantoms with lesions, and lesions inserted into real CT.

In: seeds, and folders of real CT where the user has some. Out: slices with exact truth.
Does not know: networks, losses.

Every series goes through the same volume.preprocess as an archive's; a store remembers its
fingerprint.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from pydantic import Field

from raypipe.phantom import DEFAULT_LABELS, PhantomSpec, make_phantom
from raypipe.settings import Settings
from raypipe.train.backgrounds import Filled, fill, load_volumes, measure_background
from raypipe.train.dataset import SampleStore, SliceSample, on_grid, slice_samples, write_store
from raypipe.volume.preprocess import PreprocessConfig, preprocess


class SynthesisConfig(Settings):
    """How many series to make and how many slices to keep of each."""

    phantom_series: int = Field(default=400, ge=0, description="phantoms, each another body")
    slices_per_series: int = Field(default=10, gt=0, description="slices kept of a series")
    empty_share: float = Field(
        default=0.25, ge=0, le=1, description="share of the kept slices without a lesion"
    )
    backgrounds: tuple[str, ...] = Field(
        default=(),
        description="folders or s3:// prefixes of real CT in which lesions are inserted; what "
        "these series show by themselves counts as normal",
    )
    insertions_per_background: int = Field(
        default=12, ge=0, description="times that each real CT is filled with new lesions"
    )
    slab_slices: tuple[int, int] = Field(default=(10, 20), description="slices of a phantom")
    seed: int = Field(default=0, ge=0, description="of the first series")
    workers: int = Field(default=1, gt=0, description="processes that make series")
    preprocess: PreprocessConfig = Field(
        default_factory=PreprocessConfig, description="the preprocessing of every series"
    )


_REGION_WEIGHTS = {"chest": 0.3, "abdomen": 0.36, "head": 0.22, "chest_abdomen": 0.12}
_REGION_CENTER_MM = {
    "chest": (-20.0, 150.0),
    "abdomen": (-200.0, -20.0),
    "head": (-50.0, 70.0),
    "chest_abdomen": (-150.0, 100.0),
}


def draw_spec(seed: int, config: SynthesisConfig) -> PhantomSpec:
    """A random phantom: region, slab, field of view, spacing, noise, contrast medium."""
    rng = np.random.default_rng([seed, 11])  # 1 is the phantom's own: region and size are no pair
    region = str(rng.choice(list(_REGION_WEIGHTS), p=list(_REGION_WEIGHTS.values())))
    head = region == "head"
    spacing_z = float(rng.choice([1.0, 2.0, 2.5, 3.0, 5.0, 5.0, 7.0]))
    field_mm = float(rng.uniform(190, 250) if head else rng.uniform(310, 440))
    # thin slices need a thicker slab to hold a whole lesion, but cost time: a compromise
    slices = int(rng.integers(config.slab_slices[0], config.slab_slices[1] + 1))
    labels = DEFAULT_LABELS[region] if head else (*DEFAULT_LABELS[region], "osteolytic_lesion")
    # a slab holds few organs, and a lesion without its organ is left out: ask for more there
    few, many = {"head": (1, 3), "chest": (2, 6)}.get(region, (5, 10))
    count = int(rng.integers(few, many))
    lesions = tuple(str(label) for label in rng.choice(labels, size=count))
    return PhantomSpec.model_validate(
        {
            "region": region,
            "shape_zyx": (slices, 256, 256),
            "spacing_zyx_mm": (spacing_z, field_mm / 256, field_mm / 256),
            "seed": seed,
            "lesions": () if rng.random() < 0.08 else lesions,
            "center_z_mm": float(rng.uniform(*_REGION_CENTER_MM[region])),
            "noise_hu": float(rng.uniform(2, 6) if head else rng.uniform(4, 22)),
            "kernel": str(rng.choice(["soft", "standard", "sharp"])),
            "contrast": str(rng.choice(["none", "arterial", "portal"])),
            "streaks_hu": float(rng.choice([0.0, 0.0, rng.uniform(5, 30)])),
        }
    )


def phantom_samples(seed: int, config: SynthesisConfig) -> list[SliceSample]:
    """The kept slices of one phantom."""
    phantom = make_phantom(draw_spec(seed, config))
    filled = Filled(
        volume=phantom.volume,
        lesions=phantom.lesions,
        lesion_map=phantom.lesion_map,
        organs=phantom.organs,
    )
    return keep(_samples(filled, seed, config), config, np.random.default_rng([seed, 2]))


def _samples(filled: Filled, series: int, config: SynthesisConfig) -> list[SliceSample]:
    model_input = preprocess(filled.volume, config.preprocess)
    grid = filled.volume.geometry
    return slice_samples(
        model_input,
        on_grid(filled.lesion_map, grid, model_input.geometry),
        on_grid(filled.organs, grid, model_input.geometry),
        filled.lesions,
        series=series,
        all_organs=filled.all_organs,
    )


def keep(
    samples: Sequence[SliceSample], config: SynthesisConfig, rng: np.random.Generator
) -> list[SliceSample]:
    """Some slices with lesions and some without, in slice order; truly empty air is left out."""
    full = [i for i, s in enumerate(samples) if s.labels]
    empty = [i for i, s in enumerate(samples) if not s.labels and (s.hu[1] > -400).mean() > 0.02]
    want_empty = round(config.empty_share * config.slices_per_series)
    picked = list(rng.permutation(full)[: config.slices_per_series - want_empty])
    picked += list(rng.permutation(empty)[:want_empty])
    return [samples[int(i)] for i in sorted(picked)]


def make_store(folder: str | Path, config: SynthesisConfig) -> SampleStore:
    """Make the series of a data set and write them.

    The same config gives the same store, whatever the number of workers.
    """
    samples = chain(_phantoms(config), _inserted(config))
    return write_store(folder, samples, config.preprocess.fingerprint)


def _phantoms(config: SynthesisConfig) -> Iterator[SliceSample]:
    seeds = range(config.seed, config.seed + config.phantom_series)
    make = partial(phantom_samples, config=config)
    if config.workers == 1:
        for seed in seeds:
            yield from make(seed)
        return
    with ProcessPoolExecutor(config.workers) as pool:
        for samples in pool.map(make, seeds, chunksize=4):
            yield from samples


def _inserted(config: SynthesisConfig) -> Iterator[SliceSample]:
    number = config.seed + config.phantom_series  # one series number a real CT
    for source in config.backgrounds:
        for volume in load_volumes(source):
            background = measure_background(volume)
            for turn in range(config.insertions_per_background):
                rng = np.random.default_rng([config.seed, 3, number, turn])
                filled = fill(background, rng)
                yield from keep(_samples(filled, number, config), config, rng)
            number += 1
