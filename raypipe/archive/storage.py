"""Objects of an archive: on disk, on S3, and inside zip and tar files.

In: paths and s3:// addresses; "archive.zip!/member" names a member. Out: listings and bytes.
Does not know: what the bytes mean.

Credentials come from the standard AWS environment, profile or instance role, never from a config.
"""

import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import fsspec
from pydantic import Field

from raypipe.archive.ahead import in_order
from raypipe.errors import Reason, SeriesError
from raypipe.settings import Settings

MEMBER_MARK = "!/"
"""Parts an archive file from the member inside it."""


class StorageConfig(Settings):
    """How objects are reached."""

    s3_endpoint: str | None = Field(
        None, description="Address of an S3 server that is not AWS, with http:// or https://."
    )
    s3_region: str | None = Field(None, description="Region; the AWS environment's if null.")
    s3_anonymous: bool = Field(False, description="Read public buckets without credentials.")
    retries: int = Field(5, ge=0, description="How often a transient S3 fault is tried again.")
    backoff_base_s: float = Field(
        0.5, gt=0, description="Longest wait before the second try; doubles with every further one."
    )
    backoff_cap_s: float = Field(20.0, gt=0, description="Longest wait before any try, in seconds.")
    connect_timeout_s: float = Field(10.0, gt=0, description="Seconds to reach the S3 server.")
    read_timeout_s: float = Field(60.0, gt=0, description="Seconds without a byte from S3.")
    concurrency: int = Field(32, ge=1, description="Objects read at a time by one process.")
    max_members: int = Field(200_000, ge=1, description="Members that a zip or tar may have.")
    max_expanded_gib: float = Field(
        256.0, gt=0, description="GiB that the members of a zip or tar may have together."
    )
    max_expansion_ratio: float = Field(
        200.0, gt=1, description="Expanded over stored size that a zip or tar may reach."
    )


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """One object of a listing.

    Args:
        uri: path or s3:// address.
        relative: path below the listed root, with "/" and the same for disk and S3.
        byte_size: size in bytes.
        version: changes when the content may have changed (modification time or ETag).
        fault: why the object cannot be read, None where nothing is known against it.
    """

    uri: str
    relative: str
    byte_size: int
    version: str
    fault: Reason | None = None


_FILESYSTEMS: dict[tuple[int, StorageConfig], Any] = {}
_LOCK = threading.Lock()


def is_s3(uri: str) -> bool:
    """Whether an address names an object or prefix on S3."""
    return uri.startswith("s3://")


def absolute(uri: str) -> str:
    """An address that holds in every working folder."""
    return uri if is_s3(uri) else str(Path(uri).expanduser().absolute())


def filesystem_for(uri: str, config: StorageConfig) -> tuple[Any, str]:
    """The fsspec filesystem of an address, and the path on it."""
    if not is_s3(uri):
        return fsspec.filesystem("file"), absolute(uri)
    with _LOCK:
        # One client a process and config: a fork must not share its parent's connections.
        key = (os.getpid(), config)
        if key not in _FILESYSTEMS:
            _FILESYSTEMS[key] = _s3_filesystem(config)
        return _FILESYSTEMS[key], uri.removeprefix("s3://").rstrip("/")


def _s3_filesystem(config: StorageConfig) -> Any:
    from raypipe.archive.s3 import BackoffS3FileSystem

    client = {"region_name": config.s3_region} if config.s3_region else {}
    return BackoffS3FileSystem(
        backoff=(config.retries, config.backoff_base_s, config.backoff_cap_s),
        anon=config.s3_anonymous,
        endpoint_url=config.s3_endpoint,
        client_kwargs=client,
        config_kwargs={
            # archive.retry decides; botocore's own handler then says nothing
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": config.connect_timeout_s,
            "read_timeout": config.read_timeout_s,
            "max_pool_connections": config.concurrency,
        },
        default_block_size=5 << 20,  # the least that a multipart upload may have
        default_fill_cache=False,
        use_listings_cache=False,
    )


@contextmanager
def as_series_error() -> Iterator[None]:
    """Turn what disk and S3 raise into SeriesError; messages name the kind of fault alone."""
    import aiohttp
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except FileNotFoundError as error:
        raise SeriesError(Reason.SOURCE_MISSING, "an object is not there any more") from error
    except (
        *(OSError, MemoryError),
        *(BotoCoreError, ClientError, ResponseParserError),
        aiohttp.ClientError,  # an answer that was cut off
    ) as error:
        kind = type(error).__name__
        raise SeriesError(Reason.SOURCE_UNREADABLE, f"reading ended with {kind}") from error


def list_objects(root: str, config: StorageConfig) -> list[StoredObject]:
    """Every object below a root, or the root itself where it is one; sorted by relative path.

    Symbolic links are followed once; folders that cannot be entered are listed with a fault.

    Raises:
        SeriesError: SOURCE_MISSING or SOURCE_UNREADABLE.
    """
    found = _list_s3(root, config) if is_s3(root) else _list_local(Path(root).expanduser())
    return sorted(found, key=lambda o: o.relative)


def _list_s3(root: str, config: StorageConfig) -> Iterator[StoredObject]:
    filesystem, path = filesystem_for(root, config)
    with as_series_error():
        entries = filesystem.find(path, detail=True)
    for name, info in entries.items():
        if info["type"] != "file" or (name.endswith("/") and not info["size"]):
            continue
        relative = name.removeprefix(path).lstrip("/") or name.rsplit("/", 1)[-1]
        version = str(info.get("ETag") or info.get("LastModified") or "").strip('"')
        yield StoredObject(
            uri=f"s3://{name}", relative=relative, byte_size=int(info["size"]), version=version
        )


def _list_local(root: Path) -> Iterator[StoredObject]:
    root = root.absolute()
    with as_series_error():
        is_folder = stat.S_ISDIR(root.stat().st_mode)
    if not is_folder:
        yield _stat_object(str(root), root.name)
        return
    seen: set[tuple[int, int]] = set()
    folders = [(str(root), "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            info = Path(folder).stat()
            if (info.st_dev, info.st_ino) in seen:
                continue  # a link back into what is already listed
            seen.add((info.st_dev, info.st_ino))
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError:
            yield _faulty(folder, prefix.rstrip("/"), Reason.SOURCE_UNREADABLE)
            continue
        # Folders are taken in name order, so that links to one folder resolve the same every time.
        for entry in sorted(listed, key=lambda e: e.name, reverse=True):
            relative = prefix + entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:  # links that lead round in a circle
                is_folder = False
            if is_folder:
                folders.append((entry.path, relative + "/"))
            else:
                yield _stat_object(entry.path, relative)


def _stat_object(path: str, relative: str) -> StoredObject:
    try:
        info = Path(path).stat()
    except OSError:
        return _faulty(path, relative, Reason.SOURCE_MISSING)
    if not stat.S_ISREG(info.st_mode):
        return _faulty(path, relative, Reason.NOT_AN_IMAGE)  # a pipe or device: never opened
    return StoredObject(
        uri=path, relative=relative, byte_size=info.st_size, version=str(info.st_mtime_ns)
    )


def _faulty(path: str, relative: str, reason: Reason) -> StoredObject:
    return StoredObject(uri=path, relative=relative, byte_size=0, version="", fault=reason)


def read_bytes(uri: str, config: StorageConfig) -> bytes:
    """The whole content of an object or member.

    Raises:
        SeriesError: SOURCE_MISSING, SOURCE_UNREADABLE or ARCHIVE_MEMBER_UNREADABLE.
    """
    if MEMBER_MARK in uri:
        from raypipe.archive.members import read_members

        return next(iter(read_members([uri], config)))[1]
    with as_series_error():
        if not is_s3(uri):
            return Path(uri).read_bytes()
        filesystem, path = filesystem_for(uri, config)
        # one request, tried again as a whole where its answer is cut off; s3fs else asks for the
        # size first, and does not try parts of large objects again
        return bytes(filesystem.cat_file(path, max_concurrency=1))


def read_range(uri: str, start: int, end: int, config: StorageConfig) -> bytes:
    """Bytes [start, end) of an object that is not a member; shorter at its end."""
    with as_series_error():
        if is_s3(uri):
            filesystem, path = filesystem_for(uri, config)
            return bytes(filesystem.cat_file(path, start=start, end=end))
        with Path(uri).open("rb") as file:
            file.seek(start)
            return file.read(end - start)


def open_object(uri: str, config: StorageConfig) -> IO[bytes]:
    """A seekable file over an object that is not a member."""
    with as_series_error():
        if not is_s3(uri):
            return Path(uri).open("rb")
        filesystem, path = filesystem_for(uri, config)
        file: IO[bytes] = filesystem.open(path, "rb", cache_type="readahead")
        return file


def read_each(uris: Iterable[str], config: StorageConfig) -> Iterator[tuple[int, bytes]]:
    """Index and content of many objects, a few read ahead; members in the order of storage.

    Not more than a few objects are in memory at a time, and an archive is opened once, so that
    hundreds of members of one tar.gz cost one pass over it.

    Raises:
        SeriesError: as `read_bytes`.
    """
    from raypipe.archive.members import read_members

    listed = list(uris)
    members = [i for i, uri in enumerate(listed) if MEMBER_MARK in uri]
    plain = [i for i, uri in enumerate(listed) if MEMBER_MARK not in uri]
    if plain and is_s3(listed[plain[0]]):
        yield from _read_ahead([(i, listed[i]) for i in plain], config)
    else:
        for i in plain:
            yield i, read_bytes(listed[i], config)
    for k, content in read_members([listed[i] for i in members], config):
        yield members[k], content


def _read_ahead(
    objects: list[tuple[int, str]], config: StorageConfig
) -> Iterator[tuple[int, bytes]]:
    from concurrent.futures import ThreadPoolExecutor

    ahead = min(16, config.concurrency)
    with ThreadPoolExecutor(ahead, thread_name_prefix="read-ahead") as pool:
        read = partial(read_bytes, config=config)
        contents = in_order(pool, read, (uri for _, uri in objects), ahead)
        for (i, _), content in zip(objects, contents, strict=True):
            yield i, content
