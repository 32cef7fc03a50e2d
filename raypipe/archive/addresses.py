"""Names of files as text that Parquet holds, also where the names are no text.

In: paths and names as the file system or an archive file gives them. Out: text, and back.
Does not know: storage.

Old archives hold names in Latin-1 or Shift-JIS, which Python reads as lone surrogates. Such a name
becomes "bytes:" and its bytes in percent notation; every other name stays as it is.
"""

import os
from urllib.parse import quote, unquote_to_bytes

from raypipe.archive.storage import MEMBER_MARK

_MARK = "bytes:"


def as_text(name: str) -> str:
    """A name that is valid text, parts no member from its archive, and leads back to `name`."""
    if name.startswith(_MARK) or MEMBER_MARK in name or not _is_text(name):
        return _MARK + quote(os.fsencode(name))
    return name


def as_address(uri: str) -> str:
    """The same for a whole address, which may name a member."""
    if uri.startswith(_MARK) or not _is_text(uri):
        return _MARK + quote(os.fsencode(uri))
    return uri


def as_name(text: str) -> str:
    """The name or address that became this text."""
    if not text.startswith(_MARK):
        return text
    return os.fsdecode(unquote_to_bytes(text.removeprefix(_MARK)))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
