"""Multipart bodies, streamed to files as they arrive: multipart/form-data and multipart/related.

In: chunks of a request body and its content type. Out: files under names of our own making, and
the small fields. Does not know: what the files hold, who sent them.

No name that a caller gives becomes a name on disk: a file is called by the hash of its content,
so that the same file twice is one, and a NIfTI has the same series key however it is called.
"""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

from raypipe.serve.problems import Problem

_ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_ZIP_MAGIC = b"PK\x03\x04"
_AT_ONCE = 1 << 20
"""Bytes that one turn of the parser takes: a turn costs a change of threads."""
_MAX_FIELD = 4096
_MAX_FIELDS = 8


@dataclass(frozen=True, kw_only=True)
class BodyLimits:
    """What a body may hold.

    Args:
        max_bytes: of the whole body.
        max_files: in it.
        total_s: time for all of it.
        idle_s: time without a byte.
    """

    max_bytes: int
    max_files: int
    total_s: float
    idle_s: float


@dataclass
class Received:
    """What came in.

    Args:
        files: on disk, each once, in the order of arrival.
        fields: the small ones, by name.
        byte_size: of the body.
    """

    files: list[Path] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    byte_size: int = 0


async def receive(
    chunks: AsyncIterator[bytes], content_type: str, folder: Path, limits: BodyLimits
) -> Received:
    """Read a whole body.

    Raises:
        Problem: 408 too slow, 413 too large, 422 malformed.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind not in (b"multipart/form-data", b"multipart/related") or not boundary:
        raise Problem(415, "not_multipart", "send multipart/form-data with the field `files`")
    sink = _Sink(folder, limits, related=kind == b"multipart/related")
    try:
        parser = MultipartParser(boundary, sink.callbacks())
        async with asyncio.timeout(limits.total_s):
            await _feed(chunks, parser, sink, limits)
        parser.finalize()
        if not sink.ended:
            raise Problem(422, "malformed_multipart", "the body ends before its last boundary")
    except FormParserError as error:
        raise Problem(422, "malformed_multipart", "the body is not valid multipart") from error
    except TimeoutError as error:
        raise Problem(408, "too_slow", f"the body took more than {limits.total_s:g} s") from error
    finally:
        sink.close()
    return sink.received


async def _feed(
    chunks: AsyncIterator[bytes], parser: MultipartParser, sink: "_Sink", limits: BodyLimits
) -> None:
    """Push every chunk through the parser, within size and patience; many small ones at once."""
    held: list[bytes] = []
    size = 0
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks), limits.idle_s)
        except StopAsyncIteration:
            break
        except TimeoutError as error:
            raise Problem(408, "too_slow", f"no byte came for {limits.idle_s:g} s") from error
        sink.received.byte_size += len(chunk)
        if sink.received.byte_size > limits.max_bytes:
            raise too_large(limits.max_bytes)
        held.append(chunk)
        size += len(chunk)
        if size >= _AT_ONCE:
            await _write(parser, held)
            size = 0
    await _write(parser, held)


async def _write(parser: MultipartParser, held: list[bytes]) -> None:
    """Parse what is held, in a thread: it writes files, and others go on meanwhile."""
    content = b"".join(held)
    held.clear()
    if content:
        await asyncio.to_thread(parser.write, content)


def too_large(max_bytes: int) -> Problem:
    """The body is above the limit."""
    return Problem(413, "too_large", f"the body is larger than {max_bytes} bytes")


class _Sink:
    """Where the parser's callbacks put what they find."""

    def __init__(self, folder: Path, limits: BodyLimits, *, related: bool) -> None:
        self.received, self.ended = Received(), False
        self._folder, self._limits, self._related = folder, limits, related
        self._header, self._value = b"", b""
        self._headers: dict[bytes, bytes] = {}
        self._file: BinaryIO | None = None
        self._part, self._suffix, self._first = Path(), "", b""
        self._digest = hashlib.blake2b(digest_size=12)
        self._name, self._text = "", b""
        self._known: set[str] = set()

    def callbacks(self) -> "MultipartCallbacks":
        """For the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def close(self) -> None:
        """Let go of a file that was not finished."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self) -> None:
        self._headers, self._header, self._value = {}, b"", b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._related or b"filename" in options:
            given = options.get(b"filename", b"").decode("utf-8", "replace").lower()
            self._open(next((s for s in _ARCHIVES if given.endswith(s)), ""))
        elif len(self.received.fields) >= _MAX_FIELDS:
            raise Problem(413, "too_many_fields", f"more than {_MAX_FIELDS} fields")
        self._text = b""

    def _open(self, suffix: str) -> None:
        if len(self.received.files) >= self._limits.max_files:
            raise Problem(413, "too_many_files", f"more than {self._limits.max_files} files")
        self._part = self._folder / f"{secrets.token_hex(8)}.part"
        self._file = self._part.open("wb")
        self._suffix, self._first = suffix, b""
        self._digest = hashlib.blake2b(digest_size=12)

    def _data(self, data: bytes, start: int, end: int) -> None:
        chunk = memoryview(data)[start:end]
        if self._file is None:
            self._text += chunk
            if len(self._text) > _MAX_FIELD:
                raise Problem(413, "field_too_long", f"a field is longer than {_MAX_FIELD} bytes")
            return
        if len(self._first) < len(_ZIP_MAGIC):
            self._first += chunk[: len(_ZIP_MAGIC)]
        self._digest.update(chunk)
        self._file.write(chunk)

    def _end(self) -> None:
        if self._file is None:
            self.received.fields[self._name] = self._text.decode("utf-8", "replace")
            return
        size = self._file.tell()
        self.close()
        suffix = self._suffix or (".zip" if self._first.startswith(_ZIP_MAGIC) else "")
        name = f"{self._digest.hexdigest()}{suffix}"
        if size == 0 or name in self._known:
            self._part.unlink()
            return
        self._known.add(name)
        target = self._folder / name
        self._part.replace(target)
        self.received.files.append(target)

    def _all(self) -> None:
        self.ended = True
