"""Work on rows so that a series that kills its worker again and again is set aside.

In: rows and the work of a stage. Out: the worked rows, with `attempts`, and `stage` where a series
ended. Does not know: what the work is, Ray.

An exception in a stage is a row already; this is for what takes the whole process away. The work is
done again elsewhere then, begins with the same rows, and finds how often it was begun. A row that
was begun before has its process to itself, so that no other dies with it again.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from raypipe.batch.attempts import Attempts
from raypipe.batch.turns import Turns
from raypipe.errors import Reason, Status

Row = dict[str, Any]
_TURNS = Turns()
"""Of all threads of this process that work on rows."""


@dataclass(frozen=True)
class Guard:
    """The guard of one stage.

    Args:
        attempts: where attempts are written down.
        stage: the name they are written under.
        quarantine_after: set a series aside after so many.
    """

    attempts: Attempts
    stage: str
    quarantine_after: int

    def one(self, row: Row, work: Callable[[Row], Row]) -> Row:
        """Work on one row."""
        if row["status"] != Status.OK:
            return _located(work(row), _stage_before(row))
        key = row["series_key"]
        return self._count(row, self.attempts.begun(self.stage, [key])[key], work)

    def batch(self, rows: Sequence[Row], work: Callable[[list[Row]], list[Row]]) -> list[Row]:
        """Work on rows together; one by one where a worker died of some of them before."""
        keys = [row["series_key"] for row in rows if row["status"] == Status.OK]
        before = self.attempts.begun(self.stage, keys)
        if any(before.values()):
            return [self._alone(row, before, work) for row in rows]
        with _TURNS.together():
            self.attempts.begin(self.stage, dict.fromkeys(keys, 1))
            done = work(list(rows))
            self.attempts.survived(self.stage, keys)
        return [_located(row, self.stage) for row in done]

    def _alone(
        self, row: Row, before: dict[str, int], work: Callable[[list[Row]], list[Row]]
    ) -> Row:
        def work_on_one(one: Row) -> Row:
            (done,) = work([one])
            return done

        if row["status"] != Status.OK:
            return work_on_one(row)
        return self._count(row, before[row["series_key"]], work_on_one)

    def _count(self, row: Row, before: int, work: Callable[[Row], Row]) -> Row:
        key, attempts = row["series_key"], row.get("attempts") or 1
        if before >= self.quarantine_after:
            message = f"the worker died {before} times in the stage {self.stage}"
            ended = {"status": Status.FAILED.value, "reason": Reason.QUARANTINED.value}
            done = work(row | ended | {"message": message})
            return _located(done | {"attempts": attempts - 1 + before}, self.stage)
        turn: AbstractContextManager[None] = _TURNS.alone() if before else _TURNS.together()
        with turn:
            self.attempts.begin(self.stage, {key: before + 1})
            done = work(row)
            self.attempts.survived(self.stage, [key])
        return _located(done | {"attempts": attempts + before}, self.stage)


def _stage_before(row: Row) -> str:
    """Where a row ended that comes in ended: without a mark of its own, in the index."""
    return str(row.get("stage") or "index")


def _located(row: Row, stage: str) -> Row:
    """Write the stage into a row that ended; the row knows best, by its timings, which it was."""
    if row["status"] == Status.OK or row.get("stage"):
        return row
    prepared = stage == "load" and row["timings"].get("prepare") is not None
    return row | {"stage": "prepare" if prepared else stage}
