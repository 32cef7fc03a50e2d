"""Damaged files through index and load: only SeriesError or success, in bounded time and memory.

A thousand damaged files by default; twenty thousand, or any number, in two processes by

    RAYPIPE_FUZZ=20000 pytest tests/archive/test_fuzz.py -k damaged -s

Number n is the same file on every machine. What a run finds is kept as a file in fuzz_corpus/ and
stays there as a regression test.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from raypipe.errors import Reason
from tests.archive.fuzz_run import Guard, Outcome, run_numbers, try_folder
from tests.archive.fuzz_seeds import write_seeds

COUNT = int(os.environ.get("RAYPIPE_FUZZ", "1000"))
CORPUS = sorted((Path(__file__).parent / "fuzz_corpus").glob("*"))
MAX_PEAK_MIB = 1024
REASONS = {reason.value for reason in Reason} - {Reason.INTERNAL_ERROR.value}


def _tell(outcomes: list[Outcome]) -> None:
    """Print what the run met; shown with -s."""
    results = Counter(o.result for o in outcomes)
    slowest = max(outcomes, key=lambda o: o.seconds)
    lines = [f"{number:6d} {result or 'BUG'}" for result, number in results.most_common()]
    lines.append(f"slowest {slowest.seconds:.2f} s: {slowest.number} {slowest.what}")
    lines.append(f"highest memory of a child {max(o.peak_mib for o in outcomes):.0f} MiB")
    sys.stdout.write("\n" + "\n".join(lines) + "\n")


def test_seeds_themselves_are_read(tmp_path: Path) -> None:
    for name in write_seeds(tmp_path / "seeds"):
        # a lookup table cannot give HU below 0, so that its picture is no CT
        expected = "hu_implausible" if name == "dicom_lut" else "ok"
        assert try_folder(tmp_path / "seeds" / name, tmp_path / name) == (expected, ""), name


def test_damaged_files_end_with_a_reason(tmp_path: Path) -> None:
    write_seeds(tmp_path / "seeds")
    processes = 1 if COUNT <= 1000 else 2
    outcomes = run_numbers(tmp_path / "seeds", tmp_path, range(COUNT), processes)
    _tell(outcomes)
    assert len(outcomes) == COUNT
    bugs = [f"{o.number} {o.what}: {o.bug}" for o in outcomes if o.bug]
    assert not bugs, f"{len(bugs)} bugs:\n" + "\n".join(bugs)
    assert {word for o in outcomes for word in o.result.split()} <= {*REASONS, "ok"}
    assert max(o.peak_mib for o in outcomes) < MAX_PEAK_MIB
    read = sum(o.result == "ok" for o in outcomes)
    assert 0.1 * COUNT < read < 0.9 * COUNT, "the damage is neither harmless nor always fatal"


@pytest.fixture(scope="module")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    """A process that may die of what it reads."""
    folder = tmp_path_factory.mktemp("guard")
    guard = Guard(folder, folder / "work")
    yield guard
    guard.stop()


@pytest.mark.parametrize("file", CORPUS, ids=lambda file: file.name)
def test_what_was_found_before_stays_mended(tmp_path: Path, guard: Guard, file: Path) -> None:
    (tmp_path / file.name).write_bytes(file.read_bytes())
    outcome = guard.run(0, tmp_path)
    assert not outcome.bug
    assert set(outcome.result.split()) <= {*REASONS, "ok"}
    assert outcome.peak_mib < MAX_PEAK_MIB
