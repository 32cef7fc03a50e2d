"""Read Parquet on the calling thread alone.

In: the bytes of a file. Out: a table. Does not know: where the bytes are from, what they mean.

A thread of pyarrow that still holds what was read when Python ends aborts the whole command
("terminate called without an active exception", apache/arrow#38352 and #50482), once in some
hundred times and after all its work. Files read by a path of pyarrow's own are not touched by it.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def read_parquet(content: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file.

    Args:
        content: the whole file.
        columns: those to read; all if None.

    Raises:
        pyarrow.ArrowInvalid: it is no Parquet.
    """
    file = pq.ParquetFile(pa.BufferReader(content), pre_buffer=False)
    return file.read(columns=columns, use_threads=False)
