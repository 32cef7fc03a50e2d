"""raypipe/archive/scan.py: many files are shared out among processes, and nothing else changes."""

from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from raypipe.archive import scan as scan_module
from raypipe.archive.scan import Scanned, scan
from raypipe.archive.storage import StorageConfig, StoredObject, list_objects
from raypipe.errors import Reason, SeriesError
from raypipe.phantom import FAULTS, Phantom, write_broken

KEY = SecretStr("k")


@pytest.fixture
def listed(tmp_path: Path, phantom: Phantom) -> list[StoredObject]:
    for fault in FAULTS:
        write_broken(phantom, tmp_path / "archive" / fault, fault)
    (tmp_path / "archive" / "notes.txt").write_text("not a picture")
    return list(list_objects(str(tmp_path / "archive"), StorageConfig()))


def scanned(listed: list[StoredObject]) -> list[Scanned]:
    return list(scan(listed, StorageConfig(), KEY))


@pytest.fixture
def shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_module, "_PROCESS_OBJECTS", 10)
    monkeypatch.setattr(scan_module, "_SHARE_OBJECTS", 7)
    monkeypatch.setattr(scan_module, "usable_cores", lambda: 2)


def test_the_same_records_in_the_same_order(
    listed: list[StoredObject], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = scanned(listed)
    request.getfixturevalue("shared_out")
    shares: list[int] = []
    isolated = scan_module.isolated

    def counted(function: Any, objects: list[StoredObject], *args: Any, **limits: Any) -> Any:
        shares.append(len(objects))
        return isolated(function, objects, *args, **limits)

    monkeypatch.setattr(scan_module, "isolated", counted)
    before = set(psutil.Process().children())
    assert scanned(listed) == alone
    assert sum(shares) == len(listed) and max(shares) == 7
    assert set(psutil.Process().children()) <= before, "a process was left behind"


@pytest.mark.usefixtures("shared_out")
def test_a_process_that_dies_costs_no_record(
    listed: list[StoredObject], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = scanned(listed)

    def dies(*args: Any, **limits: Any) -> Any:
        raise SeriesError(Reason.DECODER_CRASHED, "the decoder process ended with SIGSEGV")

    monkeypatch.setattr(scan_module, "isolated", dies)
    assert scanned(listed) == apart
