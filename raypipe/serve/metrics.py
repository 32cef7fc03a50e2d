"""The numbers of the service, as Prometheus reads them.

In: requests, ended jobs, counts. Out: the text of /metrics.
Does not know: routes, Ray. No label holds anything of a patient or a job.

One registry lives beside the queue; the replicas that answer HTTP send it what they counted, so
that one scrape sees all of them.
"""

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from raypipe.serve.jobs import Counts
from raypipe.serve.store import JobRecord

Seen = tuple[str, str, int, float]
"""One answered request: method, route, status, seconds."""

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)


class Metrics:
    """The registry."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "raypipe_http_requests",
            "Requests answered.",
            ("method", "route", "status"),
            registry=registry,
        )
        self._request_s = Histogram(
            "raypipe_http_request_seconds",
            "Time to answer a request, upload included.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._ended = Counter("raypipe_jobs_ended", "Jobs ended.", ("state",), registry=registry)
        self._job_s = Histogram(
            "raypipe_job_seconds", "Time that a job ran.", buckets=_SECONDS, registry=registry
        )
        self._waited_s = Histogram(
            "raypipe_job_wait_seconds",
            "Time from acceptance to the end of a job.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._series = Counter(
            "raypipe_series", "Series ended.", ("status", "reason"), registry=registry
        )
        self._findings = Counter("raypipe_findings", "Findings claimed.", registry=registry)
        self._review = Counter(
            "raypipe_reports_needing_review", "Reports that need review.", registry=registry
        )
        self._jobs = Gauge("raypipe_jobs", "Jobs kept.", ("state",), registry=registry)
        self._waiting = Gauge("raypipe_jobs_waiting", "Jobs that wait.", registry=registry)
        self._running = Gauge("raypipe_jobs_running", "Jobs that run.", registry=registry)
        self._resumed = Gauge(
            "raypipe_jobs_resumed", "Jobs taken up when the queue started.", registry=registry
        )
        self._replicas = Gauge(
            "raypipe_replicas", "Replicas.", ("deployment", "state"), registry=registry
        )

    def requests(self, seen: Sequence[Seen]) -> None:
        """Count answered requests."""
        for method, route, status, seconds in seen:
            self._requests.labels(method, route, str(status)).inc()
            self._request_s.labels(route).observe(seconds)

    def job(self, record: JobRecord, seconds: float) -> None:
        """Count an ended job."""
        self._ended.labels(record.state.value).inc()
        self._job_s.observe(seconds)
        if record.finished_at is not None:
            waited = record.finished_at - record.created_at
            self._waited_s.observe(max(0.0, waited.total_seconds()))
        for series in record.series:
            if series.status != "pending":
                self._series.labels(series.status, series.reason or "").inc()
            self._findings.inc(series.findings or 0)
            self._review.inc(bool(series.needs_review))

    def text(self, counts: Counts, replicas: Mapping[str, Mapping[str, int]]) -> bytes:
        """Everything, in the text format."""
        for state, number in counts.states.items():
            self._jobs.labels(state).set(number)
        self._waiting.set(counts.waiting)
        self._running.set(counts.running)
        self._resumed.set(counts.resumed)
        self._replicas.clear()
        for deployment, states in replicas.items():
            for state, number in states.items():
                self._replicas.labels(deployment, state.lower()).set(number)
        return generate_latest(self._registry)
