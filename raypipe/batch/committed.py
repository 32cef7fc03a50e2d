"""Counts over the rows that are in an output folder; every file is read once.

In: an output folder, and the series of a run. Out: what was not there before, and totals.
Does not know: Ray.
"""

from collections import Counter
from collections.abc import Callable, Set
from typing import Any

from raypipe.batch.output import ID_COLUMN, Output
from raypipe.errors import Status

_Ending = tuple[str, str | None, int]
"""Status, reason and attempts of a row."""
_COLUMNS = (ID_COLUMN, "status", "reason", "stage", "attempts")


class Committed:
    """What is done, by status, and by reason where it is not ok.

    Args:
        output: the folder.
        wanted: series that count; rows of others, which have left the archive or lie behind
            `--limit`, are no part of what is to be done.
    """

    def __init__(self, output: Output, wanted: Set[str]) -> None:
        self._output, self._wanted = output, wanted
        self._of_file: dict[str, Counter[_Ending]] = {}
        self._known: dict[frozenset[tuple[_Ending, int]], Counter[_Ending]] = {}
        self._endings: Counter[_Ending] = Counter()

    def poll(self) -> list[dict[str, Any]]:
        """Read files that are new; their rows with key, status, reason, stage and attempts.

        A file that went, because a run before had not committed it, is not counted any more.
        """
        listed = self._output.result_files()
        for file in self._of_file.keys() - set(listed):
            self._endings -= self._of_file.pop(file)
        new: list[dict[str, Any]] = []
        for file in listed:
            table = self._output.read_rows(file, _COLUMNS) if file not in self._of_file else None
            if table is not None:
                # only counts are kept, and equal ones once: an archive may have millions of rows
                rows = [row for row in table.to_pylist() if row[ID_COLUMN] in self._wanted]
                counts = Counter(
                    (row["status"], row["reason"], row.get("attempts") or 1) for row in rows
                )
                self._of_file[file] = self._known.setdefault(frozenset(counts.items()), counts)
                self._endings += self._of_file[file]
                new += rows
        return new

    @property
    def statuses(self) -> Counter[str]:
        """Rows by status."""
        return self._by(lambda status, reason: status)

    @property
    def reasons(self) -> Counter[str]:
        """Rows that are not ok, by reason."""
        return self._by(lambda status, reason: None if status == Status.OK else reason)

    @property
    def failures(self) -> Counter[str]:
        """Failed rows, by reason."""
        return self._by(lambda status, reason: reason if status == Status.FAILED else None)

    @property
    def attempts(self) -> int:
        """Attempts of all rows."""
        return sum(attempts * number for (_, _, attempts), number in self._endings.items())

    @property
    def done(self) -> int:
        """All rows."""
        return self._endings.total()

    def _by(self, name_of: Callable[[str, str | None], str | None]) -> Counter[str]:
        counts: Counter[str] = Counter()
        for (status, reason, _), number in self._endings.items():
            name = name_of(status, reason)
            if name is not None:
                counts[name] += number
        return counts
