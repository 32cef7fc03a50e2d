"""Which addresses a caller may name instead of uploading.

In: an address and the allow-list of the config. Out: the same address made plain, or a Problem.
Does not know: what lies there.

Only two kinds of address exist: s3:// objects of the configured server, and files below folders of
the config. There is no http, so that a caller cannot make the service ask anybody for anything; a
path is judged after every link in it has been followed.
"""

import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from raypipe.archive.storage import MEMBER_MARK, is_s3
from raypipe.serve.problems import Problem

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAX_LENGTH = 2048


def allowed_source(uri: str, allowed: Sequence[str]) -> str:
    """The address to read.

    Raises:
        Problem: 403 where it lies outside of the list, 422 where it is no address. What is there
            and what is not looks the same outside of the list.
    """
    if not uri or len(uri) > _MAX_LENGTH or _CONTROL.search(uri) or MEMBER_MARK in uri:
        raise Problem(422, "invalid_uri", "uri: an absolute path, or s3://BUCKET/PREFIX")
    plain = _plain_s3(uri) if is_s3(uri) else _plain_path(uri)
    for root in allowed:
        if is_s3(root) != is_s3(uri):
            continue
        if is_s3(uri):
            prefix = root.rstrip("/")
            if plain == prefix or plain.startswith(f"{prefix}/"):
                return plain
        elif Path(plain).is_relative_to(Path(root).resolve()):
            return plain
    raise Problem(403, "uri_not_allowed", "uri: not below any address of limits.uris")


def _plain_s3(uri: str) -> str:
    path = uri.removeprefix("s3://")
    bucket = path.partition("/")[0]
    steps = path.rstrip("/").split("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,62}", bucket) or {".", "..", ""} & set(steps):
        raise Problem(422, "invalid_uri", "uri: s3://BUCKET/PREFIX without . or .. or empty steps")
    return f"s3://{posixpath.join(*steps)}"


def _plain_path(uri: str) -> str:
    if not uri.startswith("/") or uri.startswith("//"):
        raise Problem(422, "invalid_uri", "uri: an absolute path, or s3://BUCKET/PREFIX")
    try:
        return str(Path(uri).resolve())
    except (OSError, RuntimeError) as error:  # a loop of links
        raise Problem(422, "invalid_uri", "uri: the path cannot be followed") from error
