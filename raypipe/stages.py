"""The four stages that batch, training and serving share: Load, Prepare, Detect, Describe.

In: a row, which is a dict that begins as a row of the manifest. Out: the same row, further along;
after Describe it fits sink.schema.RESULT_SCHEMA. Between stages it carries typed objects under the
keys "volume" and "model_input", and what the detector saw of each finding, where a visual prefix
wants it, under ATTENDED; a stage that is the last to need one drops it.
Does not know: Ray, how rows travel. Every decision and threshold lives in a domain function below.

A stage never raises for a series. SeriesError becomes status, reason and message of its row; any
other exception becomes "internal_error" with the exception's type alone, because its text may hold
patient data. A row that is not "ok" passes through untouched, so nothing is ever filtered away.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raypipe import __version__
from raypipe.allocator import keep_freed_memory
from raypipe.archive.header_text import header_text
from raypipe.archive.identity import keyed_hash
from raypipe.archive.manifest import series_ref
from raypipe.archive.read import read_series
from raypipe.config import RaypipeConfig
from raypipe.errors import EngineError, Reason, SeriesError, Status
from raypipe.findings.assemble import assemble_findings, check_rescoring
from raypipe.geometry import Geometry
from raypipe.sink.schema import RESULT_SCHEMA, finding_row, report_row, typed_finding
from raypipe.types import (
    Finding,
    Flag,
    ModelInput,
    Prediction,
    SeriesContext,
    SeriesRef,
    Volume,
)
from raypipe.volume.assemble import to_volume
from raypipe.volume.preprocess import preprocess

if TYPE_CHECKING:
    from raypipe.report.reporter import Reporter

Row = dict[str, Any]

ATTENDED = "attended"
"""Key of a list of numbers a finding, float32: raypipe.model.attended. None without a prefix."""

_COPIED = (
    *("series_key", "study_key", "status", "reason", "message"),
    *("kind", "modality", "body_part", "manufacturer", "transfer_syntax", "kvp", "contrast"),
    *("shape_zyx", "spacing_zyx_mm", "thickness_mm"),
)


def start_row(manifest_row: Row) -> Row:
    """The result row that a row of the manifest begins as."""
    row: Row = {name: manifest_row[name] for name in _COPIED}
    row["flags"] = list(manifest_row["flags"] or ())
    row["instances"] = len(manifest_row["instances"] or ())
    row["source_bytes"] = sum(i["byte_size"] for i in manifest_row["instances"] or ())
    row["timings"] = {"started_at": datetime.now(UTC)}
    row["provenance"] = {"raypipe": __version__}
    return row


def _end(row: Row, reason: Reason, message: str, status: Status) -> None:
    row.update(status=status.value, reason=reason.value, message=message)


def _crash(row: Row, stage: str, error: Exception) -> None:
    message = f"{type(error).__name__} in the stage {stage}; run it alone to see the trace"
    _end(row, Reason.INTERNAL_ERROR, message, Status.FAILED)


def _attempt(row: Row, stage: str, work: Callable[[Row], None]) -> Row:
    """Run one stage on one row; whatever happens, the row comes back."""
    if row["status"] != Status.OK:
        return row
    keep_freed_memory()  # here, as a stage may be built in one process and called in another
    started = time.perf_counter()
    try:
        work(row)
    except SeriesError as error:
        _end(row, error.reason, error.message, error.status)
    except Exception as error:  # noqa: BLE001 - one series must never cost another
        _crash(row, stage, error)
    row["timings"][stage] = time.perf_counter() - started
    return row


class Load:
    """Read one series of the manifest into a Volume: decode, check, repair."""

    def __init__(self, config: RaypipeConfig) -> None:
        self._config = config

    def __call__(self, row: Row) -> Row:
        """A row of the manifest in; a result row with "volume" out."""
        return _attempt(start_row(row), "load", partial(self._load, series=row))

    def _load(self, row: Row, series: Row) -> None:
        ref = series_ref(series)
        row["header_text"] = self._header_text(ref)
        read = read_series(ref, self._config.archive)
        volume = to_volume(read, self._config.volume)
        row["volume"] = volume
        row["shape_zyx"] = list(volume.geometry.shape_zyx)
        row["spacing_zyx_mm"] = list(volume.geometry.spacing_zyx_mm)
        row["affine_zyx_to_lps"] = volume.geometry.affine_zyx_to_lps.ravel().tolist()
        if volume.thickness_mm is not None:
            row["thickness_mm"] = volume.thickness_mm
        row["flags"] = sorted({*row["flags"], *(flag.value for flag in volume.flags)})

    def _header_text(self, ref: SeriesRef) -> list[Row] | None:
        """The text that the config lets into a prompt, made harmless; None where it lets none."""
        from raypipe.report.request import escaped

        allowed = self._config.report.allow_header_text
        if not allowed:
            return None
        found = header_text(ref, allowed, self._config.archive.storage)
        return [{"name": name, "value": escaped(text)} for name, text in found.items()]


class Prepare:
    """THE preprocessing: a Volume onto the grid of the networks."""

    def __init__(self, config: RaypipeConfig) -> None:
        self._config = config

    def __call__(self, row: Row) -> Row:
        """Take "volume" of a row; give "model_input" and "instance_uids"."""
        row = _attempt(row, "prepare", self._prepare)
        row.pop("volume", None)
        return row

    def _prepare(self, row: Row) -> None:
        volume: Volume = row["volume"]
        row["model_input"] = preprocess(volume, self._config.preprocess)
        row["instance_uids"] = volume.instance_uids


class Detect:
    """Features, boxes and findings of one series; holds the network, as `detector`."""

    def __init__(self, config: RaypipeConfig) -> None:
        from raypipe.model.detector import Detector

        self._config = config
        self.detector = Detector(config.detector, config.preprocess.fingerprint)
        if config.report.prefix:
            from raypipe.model.attended import attended_width
            from raypipe.report.prefix import check_detector

            width = attended_width(self.detector)
            check_detector(config.report, self.detector.weights_hash, width)
        check_rescoring(self.detector.rescoring)
        calibration = self.detector.calibration
        self._findings = config.findings.completed_by(
            thresholds=self.detector.thresholds,
            slope=calibration.slope if calibration else {},
            intercept=calibration.intercept if calibration else {},
        )

    def __call__(self, row: Row) -> Row:
        """Take "model_input" of a row; give findings, features and label scores."""
        row = _attempt(row, "detect", self._detect)
        row["provenance"].update(
            config_hash=self._config.result_hash,
            preprocessing=self._config.preprocess.fingerprint,
            weights_hash=self.detector.weights_hash,
        )
        row.pop("model_input", None)
        row.pop("instance_uids", None)
        return row

    def _detect(self, row: Row) -> None:
        model_input: ModelInput = row["model_input"]
        prediction: Prediction = self.detector.predict(model_input)
        findings = assemble_findings(
            prediction,
            model_input,
            volume_geometry=geometry_of(row),
            instance_uids=row["instance_uids"],
            has_hu=Flag.NO_HU not in row["flags"],
            config=self._findings,
            rescoring=self.detector.rescoring,
        )
        has_scale = Flag.NO_GEOMETRY not in row["flags"]
        row["findings"] = [
            finding_row(f, self._instance_id(f.instance_uid), has_scale=has_scale) for f in findings
        ]
        row["features"] = prediction.features.tolist()
        row["label_scores"] = [
            {"label": label, "score": score}
            for label, score in sorted(prediction.label_scores.items())
        ]
        if self._config.report.prefix:
            from raypipe.model.attended import attended_features, places_of

            places = places_of(findings, geometry_of(row), model_input.geometry)
            row[ATTENDED] = attended_features(
                self.detector, model_input, places, prediction.features
            ).tolist()

    def _instance_id(self, instance_uid: str) -> str:
        if not instance_uid or self._config.sink.plain_uids:
            return instance_uid
        return keyed_hash(instance_uid, self._config.index.hash_key)


class _SharedClock:
    """Shares the time of an engine among concurrent calls: n at a time are charged 1 / n each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active, self._charged_s, self._at = 0, 0.0, 0.0

    def start(self) -> float:
        """Begin a call; what it returns goes to `stop`."""
        with self._lock:
            self._advance()
            self._active += 1
            return self._charged_s

    def stop(self, started: float) -> float:
        """End a call; the seconds that it is charged."""
        with self._lock:
            self._advance()
            self._active -= 1
            return self._charged_s - started

    def _advance(self) -> None:
        now = time.perf_counter()
        if self._active:
            self._charged_s += (now - self._at) / self._active
        self._at = now


class Describe:
    """Reports of a batch of series; holds the engine of the language model.

    Several threads may call it at a time: their requests are decoded together.
    """

    def __init__(self, config: RaypipeConfig, reporter: "Reporter | None" = None) -> None:
        from raypipe.report.reporter import Reporter

        self._reporter = reporter or Reporter(config.report)
        self._clock = _SharedClock()

    def __call__(self, rows: Sequence[Row]) -> list[Row]:
        """Finish rows: those that are "ok" get a report, all get exactly the result's columns."""
        from raypipe.report.reporter import ReportInput

        described = [row for row in rows if row["status"] == Status.OK]
        started = self._clock.start()
        try:
            inputs = [
                ReportInput(typed_findings(row), _context(row), _vectors(row)) for row in described
            ]
            for row, report in zip(described, self._reporter.describe(inputs), strict=True):
                row["report"] = report_row(report)
                row["provenance"]["language_model"] = report.model
        except EngineError:
            for row in described:
                message = "the language model's engine died and did not come back"
                _end(row, Reason.ENGINE_FAILED, message, Status.FAILED)
        except Exception as error:  # noqa: BLE001 - one batch must never cost another
            for row in described:
                _crash(row, "describe", error)
        seconds = self._clock.stop(started)
        for row in described:
            row["timings"]["describe"] = seconds / len(described)
        return [_finish(row) for row in rows]

    def close(self) -> None:
        """Stop the engine."""
        self._reporter.close()


def geometry_of(row: Row) -> Geometry:
    """The grid of the Volume that a row tells of."""
    affine = row["affine_zyx_to_lps"]
    return Geometry(
        shape_zyx=tuple(row["shape_zyx"]),
        affine_zyx_to_lps=[affine[i : i + 4] for i in range(0, 16, 4)],  # type: ignore[arg-type]
    )


def typed_findings(row: Row) -> tuple[Finding, ...]:
    """The findings of a row as types, from its Arrow values."""
    return tuple(typed_finding(value) for value in row["findings"])


def _vectors(row: Row) -> NDArray[np.float32] | None:
    vectors = row.get(ATTENDED)
    return np.asarray(vectors, dtype=np.float32) if vectors else None


def _context(row: Row) -> SeriesContext:
    return SeriesContext(
        modality=row["modality"] or "CT",
        body_part=row["body_part"],
        shape_zyx=tuple(row["shape_zyx"]),
        spacing_zyx_mm=tuple(row["spacing_zyx_mm"]),
        thickness_mm=row["thickness_mm"],
        kvp=row["kvp"],
        contrast=row["contrast"],
        flags=tuple(Flag(flag) for flag in row["flags"]),
        header_text=tuple((p["name"], p["value"]) for p in row.get("header_text") or ()),
    )


def _finish(row: Row) -> Row:
    row["timings"]["finished_at"] = datetime.now(UTC)
    return {name: row.get(name) for name in RESULT_SCHEMA.names}
