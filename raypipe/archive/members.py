"""Members of zip and tar files, read without unpacking to disk.

In: addresses such as "archive.zip!/member". Out: listings and contents, within limits.
Does not know: what the members are. An archive inside an archive is never opened.
"""

import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from raypipe.archive.storage import MEMBER_MARK, StorageConfig, as_series_error, open_object
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
)


@dataclass(frozen=True)
class Member:
    """One file in an archive; `encrypted` members are listed and not read."""

    name: str
    byte_size: int
    encrypted: bool = False


def is_archive(name: str) -> bool:
    """Whether a name ends like a zip or tar file."""
    return name.lower().endswith(_SUFFIXES)


def iterate_members(
    uri: str, stored_size: int, config: StorageConfig
) -> Iterator[tuple[Member, IO[bytes] | None]]:
    """Every member and an open file over it, valid until the next one; None where encrypted.

    Raises:
        SeriesError: ARCHIVE_MEMBER_UNREADABLE: damaged, or beyond the limits of the config;
            SOURCE_MISSING or SOURCE_UNREADABLE.
    """
    limit = _Limit(stored_size, config)
    with _opened(uri, config) as archive:
        if isinstance(archive, zipfile.ZipFile):
            infos = [i for i in archive.infolist() if not i.is_dir()]
            for info in infos:
                limit.add(info.file_size)  # before any member is expanded
            for info in infos:
                if info.flag_bits & 1:
                    yield Member(info.filename, info.file_size, encrypted=True), None
                    continue
                with archive.open(info) as file:
                    yield Member(info.filename, info.file_size), file
            return
        for entry in archive:
            # A tar may hold one name twice; the last one counts for unpackers, here each counts.
            if not entry.isreg():
                continue
            limit.add(entry.size)
            yield Member(entry.name, entry.size), archive.extractfile(entry)


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
            self._refuse(f"more than max_members {config.max_members} members")
        if self._bytes > config.max_expanded_gib * (1 << 30):
            self._refuse(f"expands beyond max_expanded_gib {config.max_expanded_gib:g}")
        if self._bytes > _RATIO_FROM_BYTES and ratio > config.max_expansion_ratio:
            self._refuse(
                f"expands {ratio:.0f} fold, max_expansion_ratio is {config.max_expansion_ratio:g}"
            )

    def _refuse(self, what: str) -> None:
        raise SeriesError(Reason.ARCHIVE_MEMBER_UNREADABLE, f"the archive file {what}")


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
def _opened(uri: str, config: StorageConfig) -> Iterator[Any]:
    """An open ZipFile or TarFile; damage found while it is open becomes SeriesError."""
    with as_series_error(), damage_as_series_error(), open_object(uri, config) as file:
        if uri.lower().endswith(".zip"):
            with zipfile.ZipFile(file) as archive:
                yield archive
        else:
            with tarfile.open(fileobj=file, mode="r:*") as tar:
                yield tar
