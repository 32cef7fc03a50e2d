"""raypipe/parquet.py: the same table, and no thread that could outlive the command."""

import io
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.parquet import read_parquet


def content() -> bytes:
    """Two row groups of three columns."""
    table = pa.table({name: [f"{name}{i}" for i in range(20)] for name in "abc"})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=10)
    return buffer.getvalue()


def test_it_reads_what_pyarrow_reads() -> None:
    assert read_parquet(content()).equals(pq.read_table(io.BytesIO(content())))
    assert read_parquet(content(), ["c", "a"]).column_names == ["c", "a"]


def test_what_is_no_parquet_is_refused() -> None:
    with pytest.raises(pa.ArrowInvalid):
        read_parquet(b"series_key,status\n")


def test_no_thread_is_started(tmp_path: Path) -> None:
    """Threads of pyarrow are never joined: one that is left may abort the command as it ends."""
    file = tmp_path / "table.parquet"
    file.write_bytes(content())
    script = (
        "import os, sys, pathlib, io\n"
        "import pyarrow.parquet as pq\n"
        "from raypipe.parquet import read_parquet\n"
        "content = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "def threads(): return len(os.listdir('/proc/self/task'))\n"
        "before = threads(); read_parquet(content); alone = threads()\n"
        "pq.read_table(io.BytesIO(content))\n"
        "print(alone - before, threads() - alone, flush=True)\n"
        "os._exit(0)  # else what pyarrow started just now may abort it\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True
    )
    own, usual = map(int, told.stdout.split())
    assert own == 0 < usual
