"""Run damaged files through index and load, where a crash, a hang or a hunger for memory is seen.

In: a folder of seeds, numbers that each stand for one damaged file. Out: one Outcome a number.
Does not know: which outcomes are acceptable to a test.

Each child process works on one file at a time under RLIMIT_AS; whoever waits for it kills it after
a limit of time, and goes on with the next number in a new one.
"""

import multiprocessing
import random
import resource
import shutil
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.isolation import IsolationConfig
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig, read_series
from raypipe.archive.storage import StorageConfig
from raypipe.errors import SeriesError
from raypipe.types import SliceStack, Volume
from raypipe.volume.assemble import VolumeConfig, to_volume
from tests.archive.fuzz_mutations import damaged

MEMORY_BYTES = 3 << 30
"""Address space of a child: what its libraries map, and a little more than one GiB to work in."""

TIME_LIMIT_S = 20.0
MAX_VOXELS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one damaged file.

    Args:
        number: of the file.
        what: its seed and what was done to it.
        result: "ok", the reasons of its rows, or "" where there is a bug.
        bug: what must never happen, "" where nothing did.
        seconds: of index and load.
        peak_mib: highest memory of the child so far.
    """

    number: int
    what: str
    result: str = ""
    bug: str = ""
    seconds: float = 0.0
    peak_mib: float = 0.0


@lru_cache(maxsize=1)
def _seeds(folder: Path) -> dict[str, list[tuple[str, bytes]]]:
    return {
        seed.name: [(f.name, f.read_bytes()) for f in sorted(seed.iterdir())]
        for seed in sorted(folder.iterdir())
    }


def damaged_series(seeds: Path, number: int) -> tuple[str, dict[str, bytes], str]:
    """The files of one series of which one is damaged; what was done; the name of that one."""
    rng = random.Random(number)
    known = _seeds(seeds)
    name = rng.choice(sorted(known))
    files = dict(known[name])
    victim = rng.choice(sorted(files))
    others = [content for seed in known.values() for _, content in seed[:1]]
    files[victim], done = damaged(files[victim], name.partition("_")[0], rng, others)
    if rng.random() < 0.5:
        files = {victim: files[victim]}  # alone it must be read, in company it must be kept apart
    return f"{name} {done}", files, victim


def index_and_load(folder: Path, work: Path, mode: Literal["process", "none"] = "none") -> str:
    """Index a folder and load every row of it; the reasons that it ended with, or "ok".

    Args:
        folder: of an archive.
        work: for the manifest.
        mode: whether decoding runs in a process of its own, as it does in a run.
    """
    build_index(str(folder), str(work / "manifest"), IndexConfig())
    rows = read_manifest(str(work / "manifest"), StorageConfig()).to_pylist()
    listed = {i["uri"].split("!/")[0] for row in rows for i in row["instances"] + row["repeated"]}
    missing = {str(f) for f in folder.iterdir()} - listed
    assert not missing, f"{len(missing)} files are in no row"
    isolation = IsolationConfig(mode=mode, time_limit_s=TIME_LIMIT_S)
    config = ArchiveConfig(max_voxels=MAX_VOXELS, isolation=isolation)
    reasons = set()
    for row in rows:
        if row["status"] != "ok":
            reasons.add(str(row["reason"]))
            continue
        try:
            read: SliceStack | Volume = read_series(series_ref(row), config)
            to_volume(read, VolumeConfig())
        except SeriesError as error:
            reasons.add(error.reason.value)
    return " ".join(sorted(reasons)) or "ok"


def try_folder(
    folder: Path, work: Path, mode: Literal["process", "none"] = "none"
) -> tuple[str, str]:
    """The result and the bug, one of them empty, of one folder."""
    try:
        return index_and_load(folder, work, mode), ""
    except BaseException:  # noqa: BLE001 - whatever is raised is the finding
        return "", traceback.format_exc(limit=-8)


def peak_memory_mib() -> float:
    """The highest resident memory of this process since its program started.

    Not ru_maxrss, which a new process inherits from the one that started it.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _prepared(seeds: Path, work: Path, number: int) -> str:
    """Write the files of a number; what was done to them."""
    what, files, _ = damaged_series(seeds, number)
    (work / "in").mkdir()
    for name, content in files.items():
        (work / "in" / name).write_bytes(content)
    return what


def _child(connection: Connection, seeds: Path, work: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while True:
        number, folder, mode = connection.recv()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        what = "" if folder else _prepared(seeds, work, number)
        started = time.perf_counter()
        result, bug = try_folder(folder or work / "in", work, mode)
        seconds = time.perf_counter() - started
        connection.send(
            Outcome(
                number=number,
                what=what,
                result=result,
                bug=bug,
                seconds=seconds,
                peak_mib=peak_memory_mib(),
            )
        )


class Guard:
    """One child at a time; a new one where the old one died or hung."""

    def __init__(self, seeds: Path, work: Path) -> None:
        self._seeds, self._work = seeds, work
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_child, args=(theirs, self._seeds, self._work))
        self._process.start()
        theirs.close()
        self._fresh = True

    def run(self, number: int, folder: Path | None = None) -> Outcome:
        """The outcome of one number, or of a folder, whatever it does to the child.

        Where a native decoder takes the child down with it, the same is done once more as a run
        does it, where the decoder has a process of its own.
        """
        outcome = self._run(number, folder, "none")
        if outcome is None:
            outcome = self._run(number, folder, "process")
        if outcome is not None:
            return outcome
        what = "" if folder else damaged_series(self._seeds, number)[0]
        return Outcome(number=number, what=what, bug="the process died or hung, isolated as well")

    def _run(
        self, number: int, folder: Path | None, mode: Literal["process", "none"]
    ) -> Outcome | None:
        """None where the child died or did not answer; a new one is then there."""
        self._connection.send((number, folder, mode))
        # a new child imports first, and the decoder's own process as well
        limit = TIME_LIMIT_S + (60.0 if self._fresh or mode == "process" else 0.0)
        self._fresh = False
        try:
            if self._connection.poll(limit):
                outcome: Outcome = self._connection.recv()
                return outcome
        except EOFError:
            pass
        self.stop()
        self._start()
        return None

    def stop(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.join()
        self._connection.close()


@contextmanager
def _guards(seeds: Path, work: Path, count: int) -> Iterator[list[Guard]]:
    guards = [Guard(seeds, work / f"child{i}") for i in range(count)]
    try:
        yield guards
    finally:
        for guard in guards:
            guard.stop()


def run_numbers(
    seeds: Path, work: Path, numbers: Sequence[int], processes: int = 1
) -> list[Outcome]:
    """The outcomes of many damaged files, several at a time."""
    with _guards(seeds, work, processes) as guards, ThreadPoolExecutor(processes) as pool:
        shares = [numbers[i::processes] for i in range(processes)]
        work_on = pool.map(
            lambda pair: [pair[0].run(n) for n in pair[1]], zip(guards, shares, strict=True)
        )
        return [outcome for share in work_on for outcome in share]
