"""A worker process whose threads share it, as those of a stage do; run by test_guard.py.

Arguments: the output folder, batches as "abc,def", the series that kills the process. Prints the
rows in the end, one a line, if nothing kills it.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from raypipe.archive.storage import StorageConfig
from raypipe.batch.attempts import Attempts
from raypipe.batch.guard import Guard

Row = dict[str, Any]


def _work(rows: list[Row], deadly: str) -> list[Row]:
    time.sleep(0.1)
    if any(row["series_key"] == deadly and row["status"] == "ok" for row in rows):
        os._exit(9)
    time.sleep(0.1)
    return rows


def main(folder: str, batches: str, deadly: str) -> None:
    """Work on all batches at a time."""
    guard = Guard(Attempts(folder, StorageConfig()), "describe", 3)
    rows = [
        [{"series_key": key, "status": "ok", "reason": None, "timings": {}} for key in batch]
        for batch in batches.split(",")
    ]
    with ThreadPoolExecutor(len(rows)) as pool:
        done = pool.map(lambda batch: guard.batch(batch, lambda b: _work(b, deadly)), rows)
        for batch in done:
            for row in batch:
                sys.stdout.write(f"{row['series_key']} {row['status']} {row['reason']}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
