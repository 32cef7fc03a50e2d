"""Open the files of an archive, many at a time, and read what their first bytes tell.

In: stored objects that are new or changed. Out: what to remember of each, members included.
Does not know: which files belong together.

Threads wait for storage. Many objects are shared out among processes as well, one a core, for
parsing headers is Python's work, and threads of one process take turns at it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import IO

from pydantic import SecretStr

from raypipe.archive.addresses import as_text
from raypipe.archive.ahead import in_order
from raypipe.archive.headers import Header, HeadFile, other, read_header
from raypipe.archive.isolation import end_idle, isolated
from raypipe.archive.members import (
    Member,
    damage_as_series_error,
    is_archive,
    iterate_members,
)
from raypipe.archive.state import Remembered
from raypipe.archive.storage import (
    MEMBER_MARK,
    StorageConfig,
    StoredObject,
    is_s3,
    open_object,
    read_range,
)
from raypipe.cores import usable_cores
from raypipe.errors import FAILURES, ConfigError, Reason, SeriesError

_LOCAL_THREADS = 16
"""Enough to wait for a network file system; more only contend for the interpreter."""
_IN_FLIGHT = 4
"""Objects waiting a thread: enough that none idles, few enough to keep memory flat."""
_PROCESS_OBJECTS = 2000
"""Objects that a process of its own is worth starting for."""
_SHARE_OBJECTS = 200
"""Objects that a process is given at a time."""
_SHARE_S, _SHARE_GIB = 86_400.0, 16.0
"""Limits of such a share, for what no parser should do."""


@dataclass(frozen=True)
class Scanned:
    """What one stored object held.

    Args:
        records: one for the object, or one for an archive file and one a member.
        bytes_read: how much was fetched.
        lasting: whether to remember it; a file that could not be reached is tried again.
    """

    records: tuple[Remembered, ...]
    bytes_read: int
    lasting: bool = True


def scan(
    objects: Sequence[StoredObject], storage: StorageConfig, key: SecretStr
) -> Iterator[Scanned]:
    """Read the headers of objects concurrently; results come in the order of the objects."""
    remote = bool(objects) and is_s3(objects[0].uri)
    threads = storage.concurrency if remote else min(storage.concurrency, _LOCAL_THREADS)
    processes = min(usable_cores(), len(objects) // _PROCESS_OBJECTS)
    if processes < 2:
        yield from _scan_here(objects, storage, key, threads)
        return
    shares = (objects[i : i + _SHARE_OBJECTS] for i in range(0, len(objects), _SHARE_OBJECTS))
    work = partial(_scan_apart, storage=storage, key=key, threads=-(-threads // processes))
    try:
        with ThreadPoolExecutor(processes, thread_name_prefix="scan") as pool:
            for share in in_order(pool, work, shares, 2 * processes):
                yield from share
    finally:
        end_idle()


def _scan_apart(
    objects: Sequence[StoredObject], storage: StorageConfig, key: SecretStr, threads: int
) -> list[Scanned]:
    """In another process; in this one where that comes to grief."""
    told = (objects, storage, key, threads)
    try:
        return isolated(_scan_share, *told, seconds=_SHARE_S, memory_gib=_SHARE_GIB)
    except SeriesError:
        return _scan_share(*told)


def _scan_share(
    objects: Sequence[StoredObject], storage: StorageConfig, key: SecretStr, threads: int
) -> list[Scanned]:
    return list(_scan_here(objects, storage, key, threads))


def _scan_here(
    objects: Sequence[StoredObject], storage: StorageConfig, key: SecretStr, threads: int
) -> Iterator[Scanned]:
    work = partial(_scan_object, storage=storage, key=key)
    with ThreadPoolExecutor(threads, thread_name_prefix="scan") as pool:
        yield from in_order(pool, work, objects, _IN_FLIGHT * threads)


def _scan_object(stored: StoredObject, storage: StorageConfig, key: SecretStr) -> Scanned:
    if MEMBER_MARK in stored.uri:
        return _one(
            stored,
            other(
                Reason.SOURCE_UNREADABLE,
                f'a folder\'s name ends with "!", and "{MEMBER_MARK}" parts an archive file from '
                f"its members: rename it",
            ),
        )
    if stored.fault is not None:
        message = {
            Reason.NOT_AN_IMAGE: "neither a file nor a folder",
            Reason.SOURCE_MISSING: "a link to nothing",
        }.get(stored.fault, "a folder that cannot be entered")
        return _one(stored, other(stored.fault, message))
    try:
        if is_archive(stored.uri):
            return _scan_archive(stored, storage, key)
        return _scan_file(stored, storage, key)
    except SeriesError as error:
        return _one(stored, other(error.reason, error.message))
    except MemoryError:  # no fault of the file
        return _one(stored, other(Reason.SOURCE_UNREADABLE, "reading it ended with MemoryError"))
    except Exception as error:  # noqa: BLE001 - readers of foreign bytes raise anything
        kind = type(error).__name__
        return _one(stored, other(Reason.HEADER_UNREADABLE, f"reading it ended with {kind}"))


def _one(stored: StoredObject, header: Header, bytes_read: int = 0) -> Scanned:
    record = Remembered(stored.relative, stored.byte_size, stored.version, False, header.to_json())
    lasting = not header.reason or Reason(header.reason) not in FAILURES
    return Scanned((record,), bytes_read, lasting)


def _scan_file(stored: StoredObject, storage: StorageConfig, key: SecretStr) -> Scanned:
    if is_s3(stored.uri):
        head = HeadFile(
            lambda start, end: read_range(stored.uri, start, end, storage), stored.byte_size
        )
        return _one(stored, _header(head, stored.byte_size, key), head.fetched)
    with open_object(stored.uri, storage) as file:
        head = HeadFile(lambda start, end: _read_part(file, start, end), stored.byte_size)
        return _one(stored, _header(head, stored.byte_size, key), head.fetched)


def _header(head: HeadFile, size: int, key: SecretStr) -> Header:
    """The header of a file, whatever its bytes do to the parsers: no file may stop the scan."""
    try:
        return read_header(head, size, key)
    except (SeriesError, ConfigError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - parsers of foreign bytes raise anything
        kind = type(error).__name__
        return other(Reason.HEADER_UNREADABLE, f"reading the header ended with {kind}")


def _read_part(file: IO[bytes], start: int, end: int) -> bytes:
    try:
        file.seek(start)
        return file.read(end - start)
    except OSError as error:
        kind = type(error).__name__
        raise SeriesError(Reason.SOURCE_UNREADABLE, f"reading ended with {kind}") from error


def _read_member_part(file: IO[bytes], start: int, end: int) -> bytes:
    with damage_as_series_error():
        return _read_part(file, start, end)


def _scan_archive(stored: StoredObject, storage: StorageConfig, key: SecretStr) -> Scanned:
    """One record a member; a member that cannot be read is a row of its own."""
    marker = Remembered(stored.relative, stored.byte_size, stored.version, True, "{}")
    records = [marker]
    names: Counter[str] = Counter()
    used: set[str] = set()

    def remember(member: Member, header: Header) -> None:
        base = relative = f"{stored.relative}{MEMBER_MARK}{as_text(member.name)}"
        while relative in used or (member.repeated and relative == base):
            names[base] += 1  # a name written twice makes two rows
            relative = f"{base} #{names[base] + 1}"
        used.add(relative)
        size = member.byte_size
        records.append(Remembered(relative, size, stored.version, False, header.to_json()))

    try:
        for member, file in iterate_members(stored.uri, stored.byte_size, storage):
            remember(member, _member_header(member, file, key))
    except SeriesError as error:
        header = other(error.reason, error.message)
        if len(records) == 1 or error.reason in FAILURES:
            return _one(stored, header)
        remember(Member("", 0), header)  # for what lies behind the damage
    if len(records) == 1:
        return _one(stored, other(Reason.NOT_AN_IMAGE, "an archive file without members"))
    return Scanned(tuple(records), stored.byte_size)


def _member_header(member: Member, file: IO[bytes] | None, key: SecretStr) -> Header:
    if file is None:
        return other(Reason.ARCHIVE_MEMBER_UNREADABLE, member.fault)
    if is_archive(member.name):
        return other(Reason.ARCHIVE_MEMBER_UNREADABLE, "an archive inside an archive is not opened")
    head = HeadFile(lambda start, end: _read_member_part(file, start, end), member.byte_size)
    try:
        return _header(head, member.byte_size, key)
    except SeriesError as error:
        return other(error.reason, error.message)
