"""What a run did: counts, speed, how busy each stage was, and what a series costs.

In: the result rows and the run's wall time. Out: a RunSummary, which becomes run.json.
Does not know: how it is shown.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from typing import Any

from pydantic import Field

from raypipe.batch.advice import pool_advice
from raypipe.config import RunConfig
from raypipe.errors import Status
from raypipe.settings import Settings

STAGES = ("load", "prepare", "detect", "describe")


class StageUse(Settings):
    """How much of the run one stage worked."""

    seconds: float = Field(description="Sum over all series of the time in the stage, s.")
    busy_workers: float = Field(description="Workers busy at a time, on average over the run.")
    busy_share: float | None = Field(
        description="busy_workers over the size of the stage's actor pool; null for CPU tasks."
    )


class RunSummary(Settings):
    """The last run and the state of its output folder."""

    started_at: datetime
    wall_s: float
    series_in_manifest: int
    series_done_before: int = Field(description="Rows that earlier runs had committed.")
    series_done: int = Field(description="Rows that this run committed.")
    series_left: int
    status_counts: dict[str, int] = Field(description="All rows of the output, by status.")
    reason_counts: dict[str, int] = Field(description="All rows that are not ok, by reason.")
    flag_counts: dict[str, int] = Field(description="All rows, by flag.")
    begun_again: int = Field(0, description="Rows of series whose worker died at least once.")
    findings: int = Field(description="Findings in all rows of the output.")
    needs_review: int = Field(description="Reports of the output that a check marked.")
    series_per_hour: float
    stages: dict[str, StageUse]
    tokens: int = Field(description="Tokens that this run generated.")
    tokens_per_s: float = Field(description="Tokens over the time in Describe.")
    price_per_hour: float
    currency: str
    cost_per_series: float | None = Field(description="Null where the config names no price.")
    advice: str | None = Field(None, description="Which pool to enlarge where GPUs waited.")


class _Tally:
    """Running counts over result rows, so that no more than one file is in memory."""

    def __init__(self, started_at: datetime, wanted: Set[str]) -> None:
        self._started_at, self._wanted = started_at, wanted
        self.rows = self.own = self.findings = self.needs_review = self.tokens = 0
        self.begun_again = self.wanted_rows = 0
        self.statuses: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.flags: Counter[str] = Counter()
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def add(self, row: Mapping[str, Any]) -> None:
        self.rows += 1
        self.wanted_rows += row["series_key"] in self._wanted
        self.statuses[row["status"]] += 1
        if row["status"] != Status.OK:
            self.reasons[row["reason"]] += 1
        self.begun_again += (row.get("attempts") or 1) > 1
        self.flags.update(row["flags"] or ())
        self.findings += len(row["findings"] or ())
        report = row["report"]
        self.needs_review += bool(report and report["needs_review"])
        if row["timings"]["finished_at"] >= self._started_at:
            self.own += 1
            self.tokens += report["tokens"] if report else 0
            for stage in STAGES:
                self.seconds[stage] += row["timings"][stage] or 0.0


def summarize(
    rows: Iterable[Mapping[str, Any]],
    *,
    started_at: datetime,
    wall_s: float,
    wanted: Set[str],
    run: RunConfig,
) -> RunSummary:
    """Sum up an output folder after a run.

    Args:
        rows: all result rows of the folder (columns series_key, status, reason, attempts, flags,
            findings, report, timings).
        started_at: when this run began; rows finished later are its own.
        wall_s: how long it took.
        wanted: series of the manifest, or of the part that `--limit` chose; rows of others may
            be left from before.
        run: pools and price.
    """
    tally = _Tally(started_at, wanted)
    for row in rows:
        tally.add(row)
    per_hour = tally.own / wall_s * 3600.0 if wall_s > 0 else 0.0
    describing = tally.seconds["describe"]
    stages = {s: _stage_use(s, tally.seconds[s], wall_s, run) for s in STAGES}
    return RunSummary(
        started_at=started_at,
        wall_s=wall_s,
        series_in_manifest=len(wanted),
        series_done_before=tally.rows - tally.own,
        series_done=tally.own,
        series_left=len(wanted) - tally.wanted_rows,
        status_counts=dict(tally.statuses.most_common()),
        reason_counts=dict(tally.reasons.most_common()),
        flag_counts=dict(tally.flags.most_common()),
        begun_again=tally.begun_again,
        findings=tally.findings,
        needs_review=tally.needs_review,
        series_per_hour=per_hour,
        stages=stages,
        tokens=tally.tokens,
        tokens_per_s=tally.tokens / describing if describing else 0.0,
        price_per_hour=run.price_per_hour,
        currency=run.currency,
        cost_per_series=run.price_per_hour / per_hour if run.price_per_hour and per_hour else None,
        advice=_advice(stages, run) if tally.own else None,
    )


def _advice(stages: Mapping[str, StageUse], run: RunConfig) -> str | None:
    if run.schedule.hours:  # the time outside the hours counts as waiting
        return None
    shares = {stage: use.busy_share for stage, use in stages.items() if use.busy_share is not None}
    return pool_advice(shares, run)


def _stage_use(stage: str, seconds: float, wall_s: float, run: RunConfig) -> StageUse:
    pools = run.pools
    workers = seconds / wall_s if wall_s > 0 else 0.0
    share = workers / pools[stage].max_size if stage in pools else None
    return StageUse(seconds=seconds, busy_workers=workers, busy_share=share)
