"""Counts over the rows that are in an output folder; every file is read once.

In: an output folder. Out: what was not there before, and totals. Does not know: runs, Ray.
"""

from collections import Counter
from typing import Any

from raypipe.batch.output import ID_COLUMN, Output
from raypipe.errors import Status

_COLUMNS = (ID_COLUMN, "status", "reason", "stage", "attempts")


class Committed:
    """What is done, by status, and by reason where it is not ok.

    Args:
        output: the folder.
    """

    def __init__(self, output: Output) -> None:
        self._output = output
        self._known: set[str] = set()
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.attempts = 0

    def poll(self) -> list[dict[str, Any]]:
        """Read files that are new; their rows with key, status, reason, stage and attempts."""
        new: list[dict[str, Any]] = []
        for file in self._output.result_files():
            table = self._output.read_rows(file, _COLUMNS) if file not in self._known else None
            if table is not None:
                self._known.add(file)
                new += table.to_pylist()
        for row in new:
            self.statuses[row["status"]] += 1
            self.attempts += row.get("attempts") or 1
            if row["status"] != Status.OK:
                self.reasons[row["reason"]] += 1
            if row["status"] == Status.FAILED:
                self.failures[row["reason"]] += 1
        return new

    @property
    def done(self) -> int:
        """All rows."""
        return self.statuses.total()
