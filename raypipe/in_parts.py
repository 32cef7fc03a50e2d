"""A file that nobody reads as a whole.

In: a file. Out: the same, which refuses to be read without a size. Does not know: formats.

pydicom expands a deflated dataset at once, however large it becomes, and reads the rest of the file
for that; a few kilobytes can stand for gigabytes.
"""

from typing import IO, Any


class InParts:
    """The part of a binary file that pydicom's reader uses."""

    def __init__(self, file: IO[bytes] | Any) -> None:
        self._file, self.seek, self.tell = file, file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        """As the file's own.

        Raises:
            ValueError: no size is told.
        """
        if size < 0:
            raise ValueError("the dataset is deflated, and its file meta does not say so plainly")
        content: bytes = self._file.read(size)
        return content
