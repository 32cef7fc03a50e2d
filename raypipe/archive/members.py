"""Members of zip and tar files, read without unpacking to disk.

In: addresses such as "archive.zip!/member". Out: listings and contents, within limits.
Does not know: what the members are. An archive inside an archive is never opened, a link inside one
never followed: nothing is ever written or read by the name of a member.
"""

import errno
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from raypipe.archive.storage import (
    MEMBER_MARK,
    StorageConfig,
    as_series_error,
    is_s3,
    open_object,
)
from raypipe.errors import Reason, SeriesError

_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_RATIO_FROM_BYTES = 256 << 20
"""Small archives of flat pictures compress beyond any ratio and harm nobody."""

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a compression method that zipfile does not know
    RuntimeError,  # zipfile's way to say "encrypted"
    *(ValueError, OverflowError, struct.error),  # numbers and names that are none
)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The others are expanded a few kilobytes at a time, and each may be gigabytes."""
_LONGEST_TAR_HEADER = 1 << 20


@dataclass(frozen=True)
class Member:
    """One file in an archive.

    Args:
        name: as the archive file has it.
        byte_size: when it is expanded.
        fault: why it is listed and not read, "" where it is read.
        repeated: whether it is another one that is read under this name.
    """

    name: str
    byte_size: int
    fault: str = ""
    repeated: bool = False


def is_archive(name: str) -> bool:
    """Whether a name ends like a zip or tar file."""
    return name.lower().endswith(_SUFFIXES)


def iterate_members(
    uri: str, stored_size: int, config: StorageConfig
) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """Every member and an open file over it, valid until the next one; None where it has a fault.

    Raises:
        SeriesError: ARCHIVE_MEMBER_UNREADABLE: damaged, or beyond the limits of the config;
            SOURCE_MISSING or SOURCE_UNREADABLE.
    """
    limit = _Limit(stored_size, config)
    with _opened(uri, config) as archive:
        if isinstance(archive, zipfile.ZipFile):
            yield from _zip_members(archive, limit)
        else:
            yield from _tar_members(archive, limit)


def _zip_members(
    archive: zipfile.ZipFile, limit: "_Limit"
) -> Iterator[tuple[Member, IO[bytes] | None]]:
    infos = [i for i in archive.infolist() if not i.filename.endswith("/")]
    for info in infos:
        limit.add(info.file_size)  # before any member is expanded
    for info in infos:
        repeated = archive.NameToInfo.get(info.filename) is not info
        fault, file = _zip_fault(info, repeated=repeated), None
        if not fault:
            try:
                file = archive.open(info)
            except _DAMAGE as error:
                fault = f"the member is damaged ({type(error).__name__})"
        yield Member(info.filename, info.file_size, fault, repeated), file
        if file is not None:
            file.close()


def _zip_fault(info: zipfile.ZipInfo, *, repeated: bool) -> str:
    """Why a member is not read, "" where it is."""
    if info.flag_bits & 1:
        return "the member is encrypted"
    if info.compress_type not in _METHODS:
        return f"compression method {info.compress_type} is not read: pack with deflate or store"
    if repeated:
        return "the archive file holds this name twice: the last one is read"
    return ""


def _tar_members(
    archive: tarfile.TarFile, limit: "_Limit"
) -> Iterator[tuple[Member, IO[bytes] | None]]:
    seen: set[str] = set()
    for entry in archive:
        if entry.isdir():
            continue
        limit.add(entry.size if entry.isreg() else 0)
        fault, repeated = "", entry.name in seen
        if not entry.isreg():
            fault = "a link, pipe or device inside a tar file is not read"
        elif repeated:
            fault = "the archive file holds this name twice: the first one is read"
        else:
            seen.add(entry.name)
        file = None if fault else archive.extractfile(entry)
        yield Member(entry.name, entry.size, fault, repeated), file


def read_members(uris: Sequence[str], config: StorageConfig) -> Iterator[tuple[int, bytes]]:
    """Index and content of members, one pass over each archive.

    Raises:
        SeriesError: ARCHIVE_MEMBER_UNREADABLE, SOURCE_MISSING (the member is not in the archive
            any more) or SOURCE_UNREADABLE.
    """
    wanted: dict[str, dict[str, list[int]]] = {}
    for i, uri in enumerate(uris):
        archive, _, name = uri.partition(MEMBER_MARK)
        wanted.setdefault(archive, {}).setdefault(name, []).append(i)
    for archive_uri, names in wanted.items():
        with _opened(archive_uri, config) as archive:
            if isinstance(archive, zipfile.ZipFile):
                yield from _read_zip(archive, names)
            else:
                yield from _read_tar(archive, names)


def _read_zip(archive: zipfile.ZipFile, names: dict[str, list[int]]) -> Iterator[tuple[int, bytes]]:
    known = set(archive.namelist())
    for name, indices in names.items():
        if name not in known:
            raise SeriesError(Reason.SOURCE_MISSING, "a member is not in its archive any more")
        content = archive.read(name)
        for i in indices:
            yield i, content


def _read_tar(archive: tarfile.TarFile, names: dict[str, list[int]]) -> Iterator[tuple[int, bytes]]:
    left = dict(names)
    for entry in archive:
        if entry.name not in left or not entry.isreg():
            continue
        file = archive.extractfile(entry)
        assert file is not None, "a regular member has content"
        content = file.read()
        for i in left.pop(entry.name):
            yield i, content
        if not left:
            return
    raise SeriesError(Reason.SOURCE_MISSING, "a member is not in its archive any more")


class _TarInfo(tarfile.TarInfo):
    """A header of a tar file whose long names and attributes are read within a limit."""

    def _proc_gnulong(self, archive: tarfile.TarFile) -> Any:
        self._check_size()
        return super()._proc_gnulong(archive)  # type: ignore[misc]

    def _proc_pax(self, archive: tarfile.TarFile) -> Any:
        self._check_size()
        return super()._proc_pax(archive)  # type: ignore[misc]

    def _check_size(self) -> None:
        if self.size > _LONGEST_TAR_HEADER:
            raise tarfile.ReadError("a header is longer than any name")


class _Limit:
    """Counts members and bytes, and stops a decompression bomb before it is expanded."""

    def __init__(self, stored_size: int, config: StorageConfig) -> None:
        self._config, self._stored = config, max(1, stored_size)
        self._members, self._bytes = 0, 0

    def add(self, size: int) -> None:
        self._members += 1
        self._bytes += size
        config = self._config
        ratio = self._bytes / self._stored
        if self._members > config.max_members:
            self._refuse("max_members", f"has more than {config.max_members} members")
        if self._bytes > config.max_expanded_gib * (1 << 30):
            self._refuse(
                "max_expanded_gib", f"expands to more than {config.max_expanded_gib:g} GiB"
            )
        if self._bytes > _RATIO_FROM_BYTES and ratio > config.max_expansion_ratio:
            self._refuse(
                "max_expansion_ratio",
                f"expands {ratio:.0f} fold, more than {config.max_expansion_ratio:g}",
            )

    def _refuse(self, setting: str, what: str) -> None:
        raise SeriesError(
            Reason.ARCHIVE_MEMBER_UNREADABLE,
            f"the archive file {what}: raise archive.storage.{setting}, or unpack the file; a "
            f"service has limits.{setting} too, and the smaller one holds",
        )


@contextmanager
def damage_as_series_error() -> Iterator[None]:
    """Turn what zipfile, tarfile and the decompressors raise into SeriesError."""
    try:
        yield
    except _DAMAGE as error:
        kind = type(error).__name__
        raise SeriesError(
            Reason.ARCHIVE_MEMBER_UNREADABLE, f"the archive file is damaged or locked ({kind})"
        ) from error


@contextmanager
def _wrong_offsets_as_series_error(uri: str) -> Iterator[None]:
    """A local file that is asked for an impossible place is damaged, and its disk is not."""
    try:
        yield
    except OSError as error:
        if is_s3(uri) or error.errno not in (None, errno.EINVAL):
            raise
        raise SeriesError(
            Reason.ARCHIVE_MEMBER_UNREADABLE, "the archive file is damaged (wrong offsets)"
        ) from error


@contextmanager
def _opened(uri: str, config: StorageConfig) -> Iterator[Any]:
    """An open ZipFile or TarFile; damage found while it is open becomes SeriesError."""
    with (
        as_series_error(),
        damage_as_series_error(),
        _wrong_offsets_as_series_error(uri),
        open_object(uri, config) as file,
    ):
        if uri.lower().endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                yield archive
        else:
            with tarfile.open(fileobj=file, mode="r:*", tarinfo=_TarInfo) as tar:
                yield tar
