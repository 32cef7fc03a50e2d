"""The metrics of a run, which Ray exports to Prometheus with the prefix "ray_".

In: what a run sees. Out: Ray metrics under raypipe's own names, which configs/grafana/run.json
draws. Does not know: who looks at them.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from ray.util.metrics import Counter, Gauge, Histogram

from raypipe.batch.summary import STAGES

SERIES = "raypipe_series_total"
LEFT = "raypipe_series_left"
RETRIED = "raypipe_retried_attempts_total"
STAGE_SECONDS = "raypipe_stage_seconds"
TOKENS = "raypipe_tokens_total"
QUEUE = "raypipe_queue"
BUSY = "raypipe_device_busy"
PAUSED = "raypipe_paused"

_SECONDS = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]
_METRICS: dict[str, tuple[type, str, tuple[str, ...]]] = {
    SERIES: (Counter, "Series committed.", ("status", "reason")),
    LEFT: (Gauge, "Series that have no row yet.", ()),
    RETRIED: (Counter, "Attempts at series whose worker died.", ()),
    STAGE_SECONDS: (Histogram, "Time of one series in a stage, in seconds.", ("stage",)),
    TOKENS: (Counter, "Tokens that the language model generated.", ()),
    QUEUE: (Gauge, "Blocks of series that wait for a stage.", ("stage",)),
    BUSY: (Gauge, "Share of a stage's actors that have work, 0 to 1.", ("stage",)),
    PAUSED: (Gauge, "1 outside the hours of the schedule.", ()),
}
NAMES = frozenset(_METRICS)


def tags_of(name: str) -> tuple[str, ...]:
    """The tags of a metric."""
    return _METRICS[name][2]


@cache
def _metric(name: str) -> Any:
    """One instrument a process; made when first used, because it needs a running Ray."""
    kind, description, tags = _METRICS[name]
    options = {"boundaries": _SECONDS} if kind is Histogram else {}
    return kind(name, description=description, tag_keys=tags, **options)


def count(name: str, number: float = 1.0, **tags: str) -> None:
    """Add to a counter; adding nothing leaves no trace."""
    if number > 0:
        _metric(name).inc(number, tags=tags)


def show(name: str, value: float, **tags: str) -> None:
    """Set a gauge."""
    _metric(name).set(value, tags=tags)


def observe_rows(rows: Iterable[Mapping[str, Any]]) -> None:
    """What finished rows tell: seconds of every stage, tokens, attempts that were lost."""
    for row in rows:
        for stage in STAGES:
            seconds = row["timings"].get(stage)
            if seconds is not None:
                _metric(STAGE_SECONDS).observe(seconds, tags={"stage": stage})
        count(TOKENS, row["report"]["tokens"] if row["report"] else 0)
        count(RETRIED, (row.get("attempts") or 1) - 1)
