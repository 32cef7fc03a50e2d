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
        self._known: dict[str, list[dict[str, Any]]] = {}
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.attempts = 0

    def poll(self) -> list[dict[str, Any]]:
        """Read files that are new; their rows with key, status, reason, stage and attempts.

        A file that went, because a run before had not committed it, is not counted any more.
        """
        listed = self._output.result_files()
        for file in self._known.keys() - set(listed):
            self._count(self._known.pop(file), -1)
        new: list[dict[str, Any]] = []
        for file in listed:
            table = self._output.read_rows(file, _COLUMNS) if file not in self._known else None
            if table is not None:
                self._known[file] = table.to_pylist()
                self._count(self._known[file], 1)
                new += self._known[file]
        return new

    def _count(self, rows: list[dict[str, Any]], sign: int) -> None:
        for row in rows:
            self.statuses[row["status"]] += sign
            self.attempts += sign * (row.get("attempts") or 1)
            if row["status"] != Status.OK:
                self.reasons[row["reason"]] += sign
            if row["status"] == Status.FAILED:
                self.failures[row["reason"]] += sign
        for counts in (self.statuses, self.reasons, self.failures):
            for name in [name for name, number in counts.items() if not number]:
                del counts[name]

    @property
    def done(self) -> int:
        """All rows."""
        return self.statuses.total()
