"""How far a run is, as it is shown, and as it stands in the output folder for others to read.

    OUTPUT/progress.json    written by a run every few seconds, read by `raypipe status`

In: counts. Out: a Progress, a ProgressRecord. Does not know: how a run is watched, how it is shown.
"""

from dataclasses import dataclass
from datetime import datetime

from pydantic import Field

from raypipe.settings import Settings

PROGRESS_FILE = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a run is; counts come from committed rows, not from work in flight.

    Args:
        done: rows in the output.
        total: series of the manifest, or of the part that `--limit` chose.
        done_before: rows that were there when the run began.
        status_counts: rows by status.
        elapsed_s: since the run began.
        paused_until: when the hours of the schedule begin again; None while it may work.
        advice: which pool to enlarge; None where nothing is to be said.
    """

    done: int
    total: int
    done_before: int
    status_counts: dict[str, int]
    elapsed_s: float
    paused_until: datetime | None = None
    advice: str | None = None


class ProgressRecord(Settings):
    """What a run says of itself while it runs, and when it ended."""

    run: str
    state: str = Field(description="running, paused, finished, stopped, interrupted or failed.")
    message: str = Field("", description="Why, where it ended before everything was done.")
    started_at: datetime
    updated_at: datetime
    total: int
    done_before: int
    done: int
    busy: dict[str, float] = Field({}, description="Share of each pool that had work lately.")
    queue: dict[str, int] = Field({}, description="Blocks that wait for each pool.")
    paused_until: datetime | None = None
    advice: str | None = None
