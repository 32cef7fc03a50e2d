"""The S3 filesystem: s3fs, whose requests wait as archive.retry says.

In: the options of s3fs, and how often and how long to wait. Out: an fsspec filesystem that pickles
into other processes and works there the same. Does not know: what is stored.
"""

from typing import Any

from aiobotocore.session import AioSession
from s3fs import S3FileSystem

from raypipe.archive.retry import retry_handler


class BackoffS3FileSystem(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """S3 whose every request is tried again on a transient fault.

    Args:
        backoff: further tries, longest first wait in s, longest wait in s.
        options: as S3FileSystem takes them.
    """

    def __init__(self, *, backoff: tuple[int, float, float], **options: Any) -> None:
        session = AioSession()
        session.register("needs-retry.s3", retry_handler(*backoff))
        super().__init__(session=session, **options)
