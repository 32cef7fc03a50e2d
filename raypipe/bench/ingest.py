"""Reading DICOM series against the tools that people use for it, and indexing many small files.

In: a folder of DICOM series. Out: seconds of each tool on each series, cold and warm, from disk and
from S3; whether the voxels are the same; files indexed a second against a plain loop.
Does not know: how a series is read.

One series at a time every tool has its turn (GDCM, in SimpleITK, decodes JPEG 2000 on all cores,
raypipe on one), and ends with what its user gets: an uncompressed NIfTI file for dcm2niix and
dicom2nifti, an image in memory for SimpleITK. raypipe is timed for both. "Cold" drops a series'
files from the page cache first. All series of the folder are then read side by side, one loader a
core as in a job and several times over without a pause, as in an archive; the other tools know one
process alone, and their times add up.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig
from raypipe.archive.storage import StorageConfig
from raypipe.bench.empty import need_empty
from raypipe.bench.ingest_tools import (
    by_dcm2niix,
    by_dicom2nifti,
    by_simple_itk,
    copied,
    ours,
    read_header,
    s3_server,
    same_voxels,
    small_files,
    to_file,
)
from raypipe.bench.machine import machine
from raypipe.cores import usable_cores
from raypipe.errors import ConfigError, Status
from raypipe.settings import Settings
from raypipe.types import Kind, SeriesRef

OURS, OURS_FILE = "raypipe, to memory", "raypipe, to .nii"
PEERS = ("dcm2niix", "SimpleITK", "dicom2nifti")
_ROUNDS = 40
"""How often all loaders go through the folder: a loader that waits at its end counts once."""


def what_it_ends_with(tool: str) -> str:
    """raypipe to the same end as a tool."""
    return OURS if tool in (OURS, "SimpleITK") else OURS_FILE


class ToolTime(Settings):
    """One tool on one series."""

    tool: str
    warm_s: float | None = Field(description="median; null where the tool refused the series")
    warm_runs_s: tuple[float, ...]
    cold_s: float | None
    problem: str = Field(default="", description="why the tool refused the series")


class SeriesTimes(Settings):
    """All tools on one series."""

    name: str
    slices: int
    megabytes: float
    times: tuple[ToolTime, ...]
    same_voxels: bool | None = Field(
        description="as dcm2niix, within 1 HU; null where the series was put on another grid or "
        "refused"
    )

    def warm_s(self, tool: str) -> float | None:
        """Median seconds of a tool."""
        return next(t.warm_s for t in self.times if t.tool == tool)


class IndexTimes(Settings):
    """The index of many small files."""

    files: int
    seconds: float
    again_s: float = Field(description="a second run, with nothing new")
    loop_files: int
    loop_s: float = Field(description="a plain loop of pydicom headers over some of the files")

    @property
    def speedup(self) -> float:
        """Files a second over those of the plain loop."""
        return (self.files / self.seconds) / (self.loop_files / self.loop_s)


class IngestResult(Settings):
    """Everything that was measured."""

    repeats: int
    series: tuple[SeriesTimes, ...]
    s3_warm_s: dict[str, float] = Field(
        description="series that raypipe reads -> its seconds from S3"
    )
    all_cores_s: dict[str, float] = Field(
        description="peer -> median seconds of raypipe on all cores, a round of all series that "
        "both read; without a peer that refuses all of them"
    )
    index: IndexTimes | None
    machine: dict[str, str | int]

    def total_s(self, tool: str) -> tuple[float, float]:
        """Seconds of a tool, and of raypipe to the same end, over the series that both read."""
        than = what_it_ends_with(tool)
        both = [(s.warm_s(tool), s.warm_s(than)) for s in self.series]
        kept = [(a, b) for a, b in both if a is not None and b is not None]
        return sum(a for a, _ in kept), sum(b for _, b in kept)


def bench_ingest(
    source: str, folder: Path, *, repeats: int, files: int, on_step: Callable[[str], None]
) -> IngestResult:
    """Time every tool on every DICOM series of a folder.

    Args:
        source: folder of DICOM series, one a folder.
        folder: empty working folder.
        repeats: timed passes of each tool.
        files: small files for the index; 0 leaves it out.
        on_step: called with what is timed next.

    Raises:
        ConfigError: there is no DICOM series that raypipe reads, a peer is not installed, or the
            working folder is not empty.
    """
    _need_peers()
    need_empty(folder)
    series = tuple(_series(source, folder))
    if not series:
        raise ConfigError(f"bench ingest: {source} holds no DICOM series that can be read")
    with s3_server() as storage:  # first, since long-lived decoders keep the environment they saw
        times = tuple(_times(_name(ref, source), ref, folder, repeats, on_step) for ref in series)
        if all(t.warm_s(OURS) is None for t in times):
            raise ConfigError(f"bench ingest: raypipe refuses every DICOM series of {source}")
        on_step("S3")
        s3 = _from_s3(series, times, storage, repeats)
    on_step(f"all series on {usable_cores()} cores")
    together = _all_cores_s(series, times, folder, repeats)
    on_step(f"the index of {files:,} files")
    return IngestResult(
        repeats=repeats,
        series=times,
        s3_warm_s=s3,
        all_cores_s=together,
        index=_index_times(folder / "small", files) if files else None,
        machine=machine(),
    )


def _need_peers() -> None:
    from importlib.util import find_spec

    missing = [name for name in (*PEERS, "moto") if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"bench ingest: {', '.join(missing)} must be installed to compare with: "
            "pip install 'raypipe[dev]'"
        )


def _series(source: str, folder: Path) -> Iterator[SeriesRef]:
    config = ArchiveConfig()
    manifest = str(folder / "manifest")
    build_index(source, manifest, IndexConfig())
    for row in read_manifest(manifest, config.storage).to_pylist():
        if row["status"] == Status.OK.value and row["kind"] == Kind.DICOM.value:
            yield series_ref(row)


def _name(ref: SeriesRef, source: str) -> str:
    """The folder of a series within the source: folders of two patients may have one name."""
    parent = Path(ref.instances[0].uri).parent
    within = os.path.relpath(parent, source)
    return parent.name if within == os.curdir else within


def _times(
    name: str, ref: SeriesRef, folder: Path, repeats: int, on_step: Callable[[str], None]
) -> SeriesTimes:
    paths = [Path(i.uri) for i in ref.instances]
    source = paths[0].parent
    tools: dict[str, Callable[[Path], Any]] = {
        OURS: lambda _: ours(ref, ArchiveConfig()),
        OURS_FILE: lambda out: to_file(ours(ref, ArchiveConfig()), out / "ours.nii"),
        "dcm2niix": lambda out: by_dcm2niix(source, out),
        "SimpleITK": lambda _: by_simple_itk(paths),
        "dicom2nifti": lambda out: by_dicom2nifti(source, out / "dicom2nifti.nii"),
    }
    times = []
    for tool, work in tools.items():
        on_step(f"{tool} on {name}")
        times.append(_time(tool, partial(_into_new_folder, work, folder), paths, repeats))
    same = None
    if all(t.warm_s is not None for t in times if t.tool in (OURS, "dcm2niix")):
        with tempfile.TemporaryDirectory(dir=folder) as out:
            by_dcm2niix(source, Path(out))
            same = same_voxels(ours(ref, ArchiveConfig()), Path(out))
    return SeriesTimes(
        name=name,
        slices=len(paths),
        megabytes=sum(path.stat().st_size for path in paths) / 1e6,
        times=tuple(times),
        same_voxels=same,
    )


def _into_new_folder(work: Callable[[Path], Any], folder: Path) -> float:
    """Seconds of a tool that overwrites nothing: many file systems wait for the disk there."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return _seconds(partial(work, Path(out)))


def _time(tool: str, work: Callable[[], float], paths: Sequence[Path], repeats: int) -> ToolTime:
    """Time a tool that tells its seconds."""
    try:
        work()  # imports, and the files into the page cache
    except Exception as error:  # noqa: BLE001 - a peer may refuse a series in any way
        told = type(error).__name__
        return ToolTime(tool=tool, warm_s=None, warm_runs_s=(), cold_s=None, problem=told)
    warm = tuple(work() for _ in range(repeats))
    cold = []
    for _ in range(min(3, repeats)):
        _forget(paths)
        cold.append(work())
    return ToolTime(
        tool=tool,
        warm_s=statistics.median(warm),
        warm_runs_s=warm,
        cold_s=statistics.median(cold),
    )


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _forget(paths: Sequence[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _from_s3(
    series: Sequence[SeriesRef], times: Sequence[SeriesTimes], storage: StorageConfig, repeats: int
) -> dict[str, float]:
    """Median seconds from an S3 server on this machine, one series after the other."""
    config, out = ArchiveConfig(storage=storage), {}
    for number, (ref, known) in enumerate(zip(series, times, strict=True)):
        if known.warm_s(OURS) is None:
            continue
        there = copied(ref, f"s3://bench/{number}", storage)
        ours(there, config)
        runs = [_seconds(partial(ours, there, config)) for _ in range(repeats)]
        out[known.name] = statistics.median(runs)
    return out


def _all_cores_s(
    series: Sequence[SeriesRef], times: Sequence[SeriesTimes], folder: Path, repeats: int
) -> dict[str, float]:
    """Median seconds a round of raypipe on all cores over what each peer and raypipe read."""
    out = {}
    with ThreadPoolExecutor(usable_cores()) as loaders:
        for peer in PEERS:
            end = what_it_ends_with(peer)
            read = [
                s
                for s, t in zip(series, times, strict=True)
                if t.warm_s(peer) is not None and t.warm_s(end) is not None
            ]
            if not read:
                continue
            all_of_them = partial(_read_all, loaders, read, folder, end)
            all_of_them()  # starts the loaders
            out[peer] = statistics.median(_seconds(all_of_them) for _ in range(repeats)) / _ROUNDS
    return out


def _read_all(
    loaders: ThreadPoolExecutor, series: Sequence[SeriesRef], folder: Path, end: str
) -> None:
    def read(number: int) -> None:
        volume = ours(series[number % len(series)], ArchiveConfig())
        if end == OURS_FILE:
            path = folder / f"{number}.nii"
            to_file(volume, path)
            path.unlink()  # before it goes to the disk; this counts as our time

    list(loaders.map(read, range(_ROUNDS * len(series))))


def _index_times(folder: Path, files: int) -> IndexTimes:
    """Copies of one small instance under UIDs of their own, 200 to a series."""
    paths = small_files(folder / "archive", files)
    config = IndexConfig()
    seconds = _seconds(lambda: build_index(str(folder / "archive"), str(folder / "m"), config))
    again = _seconds(lambda: build_index(str(folder / "archive"), str(folder / "m"), config))
    some = paths[: min(len(paths), 5000)]
    return IndexTimes(
        files=len(paths),
        seconds=seconds,
        again_s=again,
        loop_files=len(some),
        loop_s=_seconds(lambda: [read_header(path) for path in some]),
    )
