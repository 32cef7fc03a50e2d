"""Slices with exact truth, kept on disk and read by memory map.

In: volumes with a lesion map. Out: SliceSamples behind the same preprocessing as every other
input of the network; a SampleStore of many. Does not know: networks, losses, where volumes
come from.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.errors import ConfigError
from raypipe.geometry import Geometry
from raypipe.knowledge.graph import REGIONS
from raypipe.model.detector import stacks
from raypipe.model.encoder import IMAGE_SIZE
from raypipe.phantom import Lesion, Organ, slice_boxes
from raypipe.phantom.organs import KIDNEYS, LUNGS
from raypipe.train.tissues import MAP_SIZE, TISSUES, tissue_map
from raypipe.types import HuArray, ModelInput

LEAST_PIXELS = 3
"""A lesion counts on a slice where it covers at least so many pixels."""

_REGION_ORGANS: dict[str, tuple[Organ, ...]] = {
    "chest": (*LUNGS, Organ.HEART),
    "abdomen": (Organ.LIVER, Organ.SPLEEN, Organ.BOWEL, Organ.BLADDER, *KIDNEYS),
    "head": (Organ.BRAIN, Organ.CSF, Organ.ORBIT, Organ.SINUS_AIR),
}
LEAST_REGION_SHARE = 0.004
"""A region is in view where its organs fill at least this share of the slice."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceSample:
    """One slice and its truth.

    Args:
        hu: (3, 256, 256) int16: the slice below, itself, the slice above.
        boxes_m4: (M, 4) float32; centre x, centre y, width, height in pixels.
        labels: M keys of findings.
        attributes: M mappings attribute -> value.
        subtle_m: (M,) bool.
        regions: keys of the body regions in view; empty where not known.
        series: number of the series, so that no series is on both sides of a split.
        tissues: (128, 128) codes of tissues.TISSUES at half resolution; 255 where not known.
    """

    hu: HuArray = field(repr=False)
    boxes_m4: NDArray[np.float32]
    labels: tuple[str, ...]
    attributes: tuple[dict[str, str], ...]
    subtle_m: NDArray[np.bool_]
    regions: tuple[str, ...]
    series: int
    tissues: NDArray[np.uint8] = field(repr=False)


def on_grid(label_map: NDArray[np.uint8], source: Geometry, target: Geometry) -> NDArray[np.uint8]:
    """A label map on another grid, by nearest neighbour; 0 outside."""
    step = np.linalg.inv(source.affine_zyx_to_lps) @ target.affine_zyx_to_lps
    moved: NDArray[np.uint8] = ndimage.affine_transform(
        label_map, step[:3, :3], step[:3, 3], output_shape=target.shape_zyx, order=0
    )
    return moved


def slice_samples(
    model_input: ModelInput,
    lesion_map: NDArray[np.uint8],
    organs: NDArray[np.uint8],
    lesions: Sequence[Lesion],
    *,
    series: int,
    all_organs: bool,
) -> list[SliceSample]:
    """Every slice of a series with its truth.

    Args:
        model_input: the series as networks see it.
        lesion_map: on the same grid; 0, or 1 + index into lesions.
        organs: on the same grid; codes of phantom.Organ.
        lesions: the truth.
        series: number of the series.
        all_organs: whether the organ map is complete; else it tells a head for sure, but not
            which part of a torso is in view.
    """
    samples = []
    for z in range(len(model_input.hu)):
        found = [
            (number, box)
            for number, box in slice_boxes(lesion_map, z)
            if np.count_nonzero(lesion_map[z] == number + 1) >= LEAST_PIXELS
        ]
        boxes = np.array(
            [
                (*_center_xy(box.lower_zyx, box.upper_zyx), box.size_zyx[2], box.size_zyx[1])
                for _, box in found
            ],
            dtype=np.float32,
        ).reshape(-1, 4)
        own = [lesions[number] for number, _ in found]
        samples.append(
            SliceSample(
                hu=stacks(model_input.hu, z, z + 1)[0],
                boxes_m4=boxes,
                labels=tuple(lesion.label for lesion in own),
                attributes=tuple(lesion.attributes for lesion in own),
                subtle_m=np.array([lesion.subtle for lesion in own], dtype=bool),
                regions=_regions(organs[z], all_organs=all_organs),
                series=series,
                tissues=tissue_map(organs[z], lesion_map[z], lesions, all_organs=all_organs),
            )
        )
    return samples


def _center_xy(
    lower_zyx: tuple[float, float, float], upper_zyx: tuple[float, float, float]
) -> tuple[float, float]:
    """Centre in pixels from the outer face of pixel 0, as the network's cells count."""
    return (lower_zyx[2] + upper_zyx[2]) / 2, (lower_zyx[1] + upper_zyx[1]) / 2


def regions_in_view(organs_yx: NDArray[np.uint8]) -> tuple[str, ...]:
    """The body regions of one slice of an organ map."""
    counts = np.bincount(organs_yx.ravel(), minlength=256)
    least = LEAST_REGION_SHARE * organs_yx.size
    return tuple(r for r in REGIONS if counts[list(_REGION_ORGANS[r])].sum() >= least)


def _regions(organs_yx: NDArray[np.uint8], *, all_organs: bool) -> tuple[str, ...]:
    seen = regions_in_view(organs_yx)
    return seen if all_organs else ("head",) if "head" in seen else ()


class SampleStore:
    """Samples on disk; slices are read by memory map.

    A folder with `hu.npy` (S, 3, 256, 256) int16, `tissues.npy` (S, 128, 128) uint8 and
    `truth.npz`.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        truth_file = self.folder / "truth.npz"
        if not truth_file.is_file():
            raise ConfigError(f"data set: {truth_file.name} is missing; build the data set first")
        self.hu: HuArray = np.load(self.folder / "hu.npy", mmap_mode="r")
        self.tissues = np.load(self.folder / "tissues.npy", mmap_mode="r")
        with np.load(truth_file, allow_pickle=False) as truth:
            self.boxes = truth["boxes"]
            self.labels = truth["labels"]
            self.attributes = truth["attributes"]  # "density=fluid;margin=smooth"
            self.subtle = truth["subtle"]
            self.first = truth["first"]  # (S + 1,) row of the slice's first box
            self.regions = truth["regions"]  # (S, R)
            self.series = truth["series"]
            self.fingerprint = str(truth["fingerprint"])
            if truth["tissue_names"].tolist() != list(TISSUES):
                raise ConfigError("data set: made for other tissues; build the data set again")

    def __len__(self) -> int:
        return len(self.hu)

    def __getitem__(self, index: int) -> SliceSample:
        rows = slice(int(self.first[index]), int(self.first[index + 1]))
        return SliceSample(
            hu=self.hu[index],
            boxes_m4=self.boxes[rows],
            labels=tuple(str(label) for label in self.labels[rows]),
            attributes=tuple(_parse(str(text)) for text in self.attributes[rows]),
            subtle_m=self.subtle[rows],
            regions=tuple(r for r, seen in zip(REGIONS, self.regions[index], strict=True) if seen),
            series=int(self.series[index]),
            tissues=self.tissues[index],
        )


def write_store(
    folder: str | Path, samples: Iterable[SliceSample], fingerprint: str
) -> SampleStore:
    """Write samples one after the other (slices never all in memory) and open the store."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    boxes: list[NDArray[np.float32]] = []
    labels: list[str] = []
    attributes: list[str] = []
    subtle: list[NDArray[np.bool_]] = []
    first: list[int] = [0]
    regions: list[list[bool]] = []
    series: list[int] = []
    raw, raw_tissues = target / "hu.raw", target / "tissues.raw"
    with raw.open("wb") as file, raw_tissues.open("wb") as tissue_file:
        for sample in samples:
            file.write(np.ascontiguousarray(sample.hu).tobytes())
            tissue_file.write(np.ascontiguousarray(sample.tissues).tobytes())
            boxes.append(sample.boxes_m4)
            labels += sample.labels
            attributes += [_text(a) for a in sample.attributes]
            subtle.append(sample.subtle_m)
            first.append(first[-1] + len(sample.labels))
            regions.append([r in sample.regions for r in REGIONS])
            series.append(sample.series)
    if not series:
        raise ConfigError("data set: no slice was made; ask for more series")
    shape = (len(series), 3, IMAGE_SIZE, IMAGE_SIZE)
    np.save(target / "hu.npy", np.memmap(raw, dtype=np.int16, mode="r", shape=shape))
    small = (len(series), MAP_SIZE, MAP_SIZE)
    np.save(target / "tissues.npy", np.memmap(raw_tissues, dtype=np.uint8, mode="r", shape=small))
    raw.unlink()
    raw_tissues.unlink()
    np.savez(
        target / "truth.npz",
        boxes=np.concatenate(boxes),
        labels=np.array(labels, dtype=np.str_),
        attributes=np.array(attributes, dtype=np.str_),
        subtle=np.concatenate(subtle),
        first=np.array(first),
        regions=np.array(regions),
        series=np.array(series),
        fingerprint=np.array(fingerprint),
        tissue_names=np.array(TISSUES, dtype=np.str_),
    )
    return SampleStore(target)


def _text(attributes: dict[str, str]) -> str:
    return ";".join(f"{name}={value}" for name, value in sorted(attributes.items()))


def _parse(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in text.split(";") if part)
