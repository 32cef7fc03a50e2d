"""Slices whose class is the folder that they lie in, and how they are parted without leaks.

In: FOLDER/<Class>/ with pictures or DICOM. Out: a SliceFolder on disk behind the same reading and
preprocessing as every other input of the network; indices of training, validation and test.
Does not know: networks, losses.

A picture is numbered by the last number in its name; the slices of a DICOM or NIfTI series by
their place in it, far from those of any other series.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.addresses import as_name
from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import Row, read_manifest
from raypipe.archive.storage import MEMBER_MARK
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError, Status
from raypipe.model.encoder import IMAGE_SIZE
from raypipe.stages import Load, Prepare
from raypipe.train.slices_config import SplitConfig
from raypipe.types import HuArray, Kind

Indices = NDArray[np.int64]
RUN_BREAK = 1
"""Numbers further apart than this do not follow each other: the run is broken."""
HIGHEST_NUMBER = 10**15
"""A name with a higher one holds a UID."""
SERIES_APART = 1_000_000
"""Between the first numbers of two series."""
OVERFULL = 1.5
"""A block may exceed what its part still lacks by this factor."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """Indices of slices; what the gaps left out is in none."""

    train: Indices
    validation: Indices
    test: Indices


class SliceFolder:
    """Decoded slices on disk; pixels are read by memory map.

    A folder with `hu.npy` (S, 256, 256) int16 and `slices.json`.

    Attributes:
        classes: names, sorted.
        label_s: (S,) index into classes.
        number_s: (S,) number of the slice within its class.
        below_above_s2: (S, 2) indices of the neighbours in a series; itself where there is none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        told = self.folder / "slices.json"
        if not told.is_file():
            raise ConfigError(f"slices: {told.name} is missing in the store; read the folder first")
        truth = json.loads(told.read_text(encoding="utf-8"))
        self.hu: HuArray = np.load(self.folder / "hu.npy", mmap_mode="r")
        self.classes: tuple[str, ...] = tuple(truth["classes"])
        self.fingerprint: str = truth["fingerprint"]
        self.label_s: Indices = np.array(truth["label"], dtype=np.int64)
        self.number_s: Indices = np.array(truth["number"], dtype=np.int64)
        self.below_above_s2: Indices = np.array(truth["neighbours"], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.hu)

    def stack(self, index: int) -> HuArray:
        """(3, 256, 256): the slice below, itself, the slice above."""
        below, above = self.below_above_s2[index]
        found: HuArray = self.hu[[below, index, above]]
        return found


def read_folder(source: str, target: str | Path) -> SliceFolder:
    """Decode every slice of every class and write the store.

    Raises:
        ConfigError: there are not two classes, a series lies in several, a picture's name holds
            no number, or a class has no slice that can be read.
    """
    config = RaypipeConfig()
    with tempfile.TemporaryDirectory() as manifest:
        build_index(source, manifest, IndexConfig(), storage=config.archive.storage)
        rows = read_manifest(manifest, config.archive.storage).to_pylist()
    by_class = _by_class(rows)
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    label_s: list[int] = []
    number_s: list[int] = []
    neighbours: list[tuple[int, int]] = []
    raw = folder / "hu.raw"
    with raw.open("wb") as file:
        for label, name in enumerate(by_class):
            for number, hu in _in_order(by_class[name], config):
                first, last = len(label_s), len(label_s) + len(hu) - 1
                file.write(np.ascontiguousarray(hu).tobytes())
                label_s += [label] * len(hu)
                number_s += range(number, number + len(hu))
                every = range(first, last + 1)
                neighbours += [(max(i - 1, first), min(i + 1, last)) for i in every]
            if label not in label_s:
                raise ConfigError(f"slices: class {name!r} holds no slice that can be read as CT")
    shape = (len(label_s), IMAGE_SIZE, IMAGE_SIZE)
    np.save(folder / "hu.npy", np.memmap(raw, dtype=np.int16, mode="r", shape=shape))
    raw.unlink()
    told = {
        "classes": list(by_class),
        "fingerprint": config.preprocess.fingerprint,
        "label": label_s,
        "number": number_s,
        "neighbours": neighbours,
    }
    (folder / "slices.json").write_text(json.dumps(told), encoding="utf-8")
    return SliceFolder(folder)


def _by_class(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Class -> its readable rows; the class is the name of the folder right under the source."""
    classes: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] != Status.OK.value:
            continue
        source = PurePosixPath(_plain(row["source"]))
        inside = [_path(i["uri"]).relative_to(source) for i in row["instances"]]
        if len(inside[0].parts) < 2:
            raise ConfigError(
                f"slices: {inside[0]} lies beside the classes; put it into a folder named by its "
                "class"
            )
        own = sorted({path.parts[0] for path in inside})
        if len(own) > 1:
            raise ConfigError(
                f"slices: one series has files in {' and '.join(own)}, but a series is of one "
                "class; put it into one folder, or write its slices as numbered pictures"
            )
        classes.setdefault(own[0], []).append(row)
    if len(classes) < 2:
        raise ConfigError(
            f"slices: found {len(classes)} folder(s) with slices, at least two classes are needed: "
            "FOLDER/<Class>/*.jpg, *.png or DICOM"
        )
    return dict(sorted(classes.items()))


def _in_order(rows: Sequence[Row], config: RaypipeConfig) -> Iterator[tuple[int, HuArray]]:
    """The number of the first slice and the slices, picture by picture, then series by series."""
    pictures = sorted(
        (_number(_first_path(row)), str(_first_path(row)), i)
        for i, row in enumerate(rows)
        if row["kind"] == Kind.IMAGE.value
    )
    series = sorted(
        (str(_first_path(row)), i) for i, row in enumerate(rows) if row["kind"] != Kind.IMAGE.value
    )
    numbered = [(number, i) for number, _, i in pictures]
    start = pictures[-1][0] + SERIES_APART if pictures else 0
    numbered += [(start + k * SERIES_APART, i) for k, (_, i) in enumerate(series)]
    load, prepare = Load(config), Prepare(config)
    for number, i in numbered:
        loaded = prepare(load(rows[i]))
        if loaded["status"] == Status.OK.value:
            yield number, loaded["model_input"].hu


def _number(path: PurePosixPath) -> int:
    digits = re.findall(r"\d+", path.stem)
    if not digits or int(digits[-1]) > HIGHEST_NUMBER:
        raise ConfigError(
            f"slices: the name {path.name} holds no number of a slice; number pictures so that "
            "neighbouring slices of a patient follow each other"
        )
    return int(digits[-1])


def _first_path(row: Row) -> PurePosixPath:
    return _path(row["instances"][0]["uri"])


def _path(uri: str) -> PurePosixPath:
    """Where a file lies; a zip or tar counts as a folder."""
    return PurePosixPath(_plain(as_name(uri)).replace(MEMBER_MARK, "/"))


def _plain(uri: str) -> str:
    return uri.split("://", 1)[-1].rstrip("/")


def split(folder: SliceFolder, config: SplitConfig) -> Split:
    """Part slices by blocks; the same seed gives the same parts.

    Raises:
        ConfigError: a class has too few blocks to stand in every part, or the gap leaves it none
            to train on.
    """
    part_s = np.zeros(len(folder), dtype=np.int64)  # 0 training, 1 validation, 2 test
    for label, name in enumerate(folder.classes):
        own = np.flatnonzero(folder.label_s == label)
        blocks = _blocks(folder, own, config)
        for part, block in zip(_assign(blocks, name, label, config), blocks, strict=True):
            part_s[block] = part
    keep_s = _away_from_borders(folder, part_s, config.gap)
    train, validation, test = (np.flatnonzero(keep_s & (part_s == part)) for part in range(3))
    for label, name in enumerate(folder.classes):
        if label not in folder.label_s[train]:
            raise ConfigError(
                f"split: a gap of {config.gap} leaves class {name!r} no slice for training; lower "
                "split.gap or split.blocks, or give more slices"
            )
    return Split(train=train, validation=validation, test=test)


def _blocks(folder: SliceFolder, own: Indices, config: SplitConfig) -> list[Indices]:
    """The slices of one class, in order, cut into blocks."""
    if config.whole_runs:
        return list(np.split(own, np.flatnonzero(np.diff(folder.number_s[own]) > RUN_BREAK) + 1))
    return [block for block in np.array_split(own, config.blocks) if len(block)]


def _assign(blocks: Sequence[Indices], name: str, label: int, config: SplitConfig) -> list[int]:
    """A part for each block: test, then validation, are filled in random order to their shares."""
    shares = {part: s for part, s in ((2, config.test), (1, config.validation)) if s > 0}
    if len(blocks) <= len(shares):
        raise ConfigError(
            f"split: class {name!r} has {len(blocks)} block(s), but {len(shares) + 1} parts need "
            "one each; give more slices, or split into more blocks"
        )
    total = sum(len(block) for block in blocks)
    order = [int(i) for i in np.random.default_rng([config.seed, label]).permutation(len(blocks))]
    parts = [0] * len(blocks)
    needed = len(shares)  # blocks for the parts behind this one, of which training is the last
    for part, share in shares.items():
        room = share * total
        # a block that is far too large for the part stays in training
        fitting = [i for i in order if parts[i] == 0 and len(blocks[i]) <= OVERFULL * room]
        free = [i for i in order if parts[i] == 0]
        for i in fitting:
            if 0 < len(blocks[i]) <= OVERFULL * room and parts.count(0) > needed:
                parts[i] = part
                room -= len(blocks[i])
        if part not in parts:
            parts[min(free, key=lambda i: len(blocks[i]))] = part
        needed -= 1
    return parts


def _away_from_borders(folder: SliceFolder, part_s: Indices, gap: int) -> NDArray[np.bool_]:
    """Which slices stay: none of training near validation or test, none of validation near test."""
    keep_s = np.ones(len(folder), dtype=np.bool_)
    for later in (1, 2):
        for label in range(len(folder.classes)):
            own = folder.label_s == label
            others = folder.number_s[own & (part_s == later)]
            earlier = np.flatnonzero(own & (part_s < later))
            away = np.abs(folder.number_s[earlier][:, None] - others[None, :])
            keep_s[earlier[(away <= gap).any(axis=1)]] = False
    return keep_s
