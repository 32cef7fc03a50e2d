"""How an output folder stands, also while a run works on it.

In: an output folder, on disk or S3. Out: a RunStatus. Does not know: Ray, how it is shown.

Everything comes from files; the run itself is not asked, so it may run anywhere.
"""

from datetime import UTC, datetime

from pydantic import Field

from raypipe.archive.manifest import series_keys
from raypipe.archive.storage import StorageConfig
from raypipe.batch.attempts import Attempts
from raypipe.batch.committed import Committed
from raypipe.batch.output import Output
from raypipe.batch.progress import PROGRESS_FILE, ProgressRecord
from raypipe.settings import Settings

SILENT_AFTER_S = 60.0
"""A run writes its progress every few seconds; after so long without, it is taken for dead."""


class RunStatus(Settings):
    """The state of an output folder."""

    state: str = Field(
        description="running, paused, silent (no sign of life), finished, stopped, interrupted, "
        "failed, or unknown where no run has told."
    )
    message: str = ""
    total: int
    done: int
    left: int
    status_counts: dict[str, int]
    failed_by_reason: dict[str, int]
    rejected_by_reason: dict[str, int]
    attempts: int = Field(description="Attempts of all rows; above `done` where workers died.")
    in_flight: int = Field(description="Series that are in a stage, or whose worker died there.")
    started_at: datetime | None = None
    last_activity: datetime | None = None
    series_per_hour: float | None = None
    eta_s: float | None = Field(None, description="Seconds to the end at the speed so far.")
    paused_until: datetime | None = None
    busy: dict[str, float] = Field({}, description="Share of each pool that had work lately.")
    advice: str | None = None


def run_status(output: Output, storage: StorageConfig, now: datetime | None = None) -> RunStatus:
    """Read the state of an output folder.

    Raises:
        ConfigError: the folder holds no job.
    """
    job = output.read_job()
    wanted = series_keys(job["manifest"], storage, job.get("limit"))
    committed = Committed(output, wanted)
    committed.poll()
    told = output.read_text(PROGRESS_FILE)
    record = None if told is None else ProgressRecord.model_validate_json(told)
    known = RunStatus(
        state="unknown",
        total=len(wanted),
        done=committed.done,
        left=len(wanted) - committed.done,
        status_counts=dict(committed.statuses.most_common()),
        failed_by_reason=dict(committed.failures.most_common()),
        rejected_by_reason=dict((committed.reasons - committed.failures).most_common()),
        attempts=committed.attempts,
        in_flight=len(Attempts(output.uri, storage).in_flight()),
    )
    return known if record is None else _with_run(known, record, now or datetime.now(UTC))


def _with_run(known: RunStatus, record: ProgressRecord, now: datetime) -> RunStatus:
    """Add what the last run says of itself."""
    working = record.state in ("running", "paused")
    silent = working and (now - record.updated_at).total_seconds() > SILENT_AFTER_S
    seconds = ((now if working else record.updated_at) - record.started_at).total_seconds()
    new = known.done - record.done_before
    per_hour = new / seconds * 3600.0 if new > 0 and seconds > 0 else None
    running = record.state == "running" and not silent
    return known.model_copy(
        update={
            "state": "silent" if silent else record.state,
            "message": record.message,
            "started_at": record.started_at,
            "last_activity": record.updated_at,
            "series_per_hour": per_hour,
            "eta_s": known.left / per_hour * 3600.0 if running and per_hour else None,
            "paused_until": record.paused_until,
            "busy": record.busy,
            "advice": record.advice,
        }
    )
