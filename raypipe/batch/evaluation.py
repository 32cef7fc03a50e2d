"""Put the rows of a run beside the truth.

In: an output folder, a truth file. Out: truth and claims of the same series on the same grids,
and what had to be left out. Does not know: measures, figures.

A row that ended "rejected" or "failed" claims nothing: its lesions count as missed. A series of
the truth that the run has no row of (it was not in the archive, or a limit left it out) is left
out and told.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Literal

from raypipe.archive.manifest import read_manifest
from raypipe.archive.storage import filesystem_for
from raypipe.batch.output import ID_COLUMN, JOB_FILE, Output
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError, Status
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from raypipe.evaluate.truth import FindSeries, KnownSeries, KnownTruth, read_truth
from raypipe.evaluate.truth_models import check_label
from raypipe.findings.assemble import clipped
from raypipe.geometry import Geometry
from raypipe.model.config import RANDOM_WEIGHTS
from raypipe.sink.schema import has_scale
from raypipe.stages import geometry_of, typed_findings
from raypipe.types import Flag

Row = dict[str, Any]
_COLUMNS = [
    *(ID_COLUMN, "study_key", "status", "body_part", "flags", "shape_zyx", "affine_zyx_to_lps"),
    *("findings", "label_scores", "report", "provenance"),
]
ImageScores = Literal["labels", "findings"]
REPAIRED = frozenset(
    {Flag.GANTRY_TILT, Flag.UNEVEN_SPACING, Flag.SLICE_GAPS, Flag.DUPLICATE_SLICES}
)


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Truth and claims of the series that both sides know.

    Args:
        truths: by series_key; boxes on the grid of the row.
        claims: one a truth, in the same order.
        rows: series_key -> result row.
        left_out: what could not be compared, in words -> how often.
    """

    truths: tuple[TruthSeries, ...]
    claims: tuple[ClaimSeries, ...]
    rows: Mapping[str, Row]
    left_out: Mapping[str, int]

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label of a lesion or a finding."""
        truths = {lesion.label for truth in self.truths for lesion in truth.lesions}
        claims = {claim.label for series in self.claims for claim in series.claims}
        return tuple(sorted(truths | claims))

    @property
    def repaired(self) -> frozenset[str]:
        """Keys of series whose geometry had to be repaired."""
        return frozenset(k for k, row in self.rows.items() if REPAIRED & set(row["flags"] or ()))


def load_cohort(
    output: Output,
    truth: str,
    config: RaypipeConfig,
    *,
    scores: ImageScores = "labels",
) -> Cohort:
    """Read rows and truth of a run.

    Args:
        output: folder of the run.
        truth: path or s3:// address of a truth file (see evaluate.truth).
        config: for the storage.
        scores: what a series as a whole is scored by: the network's labels, or its best finding.

    Raises:
        ConfigError: the truth cannot be read, names a label that no finding has, or shares no
            series with the rows.
    """
    filesystem, path = filesystem_for(truth, config.archive.storage)
    if not filesystem.isfile(path):
        raise ConfigError(f"truth {truth}: there is no such file")
    known = read_truth(filesystem.cat_file(path), truth, series_finder(output, config))
    for label in sorted({lesion.label for series in known.series for lesion in series.lesions}):
        check_label(label, f"truth {truth}")
    wanted = {series.series_key for series in known.series}
    rows: dict[str, Row] = {}
    others = 0
    for row in output.iterate_rows(_COLUMNS):  # an archive may hold far more than has a truth
        if row[ID_COLUMN] in wanted:
            rows[row[ID_COLUMN]] = row
        else:
            others += 1
    if not rows and not others:
        raise ConfigError(f"{output.uri} holds no result rows; run `raypipe run` first")
    cohort = join(rows, known, scores)
    told = {"result rows without a truth": others} if others else {}
    return replace(cohort, left_out={**cohort.left_out, **told})


def operating_thresholds(config: RaypipeConfig, labels: Sequence[str]) -> dict[str, float]:
    """Label -> score from which a run with this config claims a finding."""
    from raypipe.model.checkpoint import load_checkpoint

    known: dict[str, float] = {}
    detector = config.detector
    if detector.weights != RANDOM_WEIGHTS:
        known = load_checkpoint(detector.weights, detector.weights_s3_endpoint)[1].thresholds
    findings = config.findings.completed_by(thresholds=known, slope={}, intercept={})
    return {label: findings.threshold_of(label) for label in labels}


def series_finder(output: Output, config: RaypipeConfig) -> FindSeries:
    """A function from a file name or folder to the series_key that the manifest gives it.

    The manifest is read when the first name is looked up.
    """
    index: dict[str, set[tuple[str, str]]] = {}

    def find(source: str) -> str | None:
        if not index:
            index.update(_by_name(_addresses(output, config)))
        return _look_up(source, index)

    return find


def _addresses(output: Output, config: RaypipeConfig) -> Iterator[tuple[str, list[str]]]:
    """series_key and the addresses of all files of each series."""
    record = output.read_text(JOB_FILE)
    if record is None:
        raise ConfigError(
            f"{output.uri} holds no {JOB_FILE}, so file names cannot be looked up; name series by "
            "series_key in the truth"
        )
    columns = [ID_COLUMN, "instances", "repeated"]
    manifest = read_manifest(json.loads(record)["manifest"], config.archive.storage, columns)
    for row in manifest.to_pylist():
        yield row[ID_COLUMN], [i["uri"] for i in (*row["instances"], *row["repeated"])]


def _by_name(table: Iterable[tuple[str, Sequence[str]]]) -> dict[str, set[tuple[str, str]]]:
    """Last part of a file's or folder's address -> (address, series_key)."""
    index: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for key, uris in table:
        for uri in uris:
            address = PurePosixPath(_plain(uri))
            for place in (address, address.parent):
                index[place.name].add((str(place), key))
    return index


def _look_up(source: str, index: Mapping[str, set[tuple[str, str]]]) -> str | None:
    wanted = _plain(source)
    found = {
        key
        for address, key in index.get(PurePosixPath(wanted).name, ())
        if address == wanted or address.endswith(f"/{wanted}")
    }
    if len(found) > 1:
        raise ConfigError(
            f"truth: {source} fits {len(found)} series; write more of the path, or series_key"
        )
    return next(iter(found), None)


def _plain(address: str) -> str:
    """An address as a path; members of zip and tar files as if these were folders."""
    return str(PurePosixPath(address.replace("!/", "/").removeprefix("./")))


def join(rows: Mapping[str, Row], known: KnownTruth, scores: ImageScores = "labels") -> Cohort:
    """Truth and claims of the series that have both a row and a truth."""
    left_out: Counter[str] = Counter()
    left_out["file names of the truth that are not in the manifest"] = len(known.unknown)
    truths, claims, kept = [], [], {}
    for series in known.series:
        row = rows.get(series.series_key)
        if row is None:
            left_out["series of the truth without a result row"] += 1
            continue
        if series.geometry is not None and not has_scale(row):
            left_out["series whose place in the patient is not known, so boxes cannot be"] += 1
            continue
        truth = _placed(series, row)
        left_out["lesions outside the series' grid"] += len(series.lesions) - len(truth.lesions)
        truths.append(truth)
        claims.append(_claimed(row, scores))
        kept[series.series_key] = row
    if not truths:
        raise ConfigError(
            "evaluation: the truth names no series of these results; compare series_key (or "
            "source) of both, and the archive that was run"
        )
    return Cohort(
        truths=tuple(truths),
        claims=tuple(claims),
        rows=kept,
        left_out={what: n for what, n in left_out.items() if n},
    )


def _placed(series: KnownSeries, row: Row) -> TruthSeries:
    """The truth of a series with its boxes on the grid of the row, where it has one."""
    cluster = series.cluster_key or row["study_key"] or ""
    lesions: tuple[TruthLesion, ...] = series.lesions
    grid = series.geometry
    if row["status"] == Status.OK:
        target = geometry_of(row)
        placed = []
        for lesion in lesions:
            on_row = lesion.box_zyx
            if grid is not None and not grid.same_grid(target):
                on_row = grid.box_to(target, on_row)
            box = clipped(on_row, target)
            if box is not None:
                placed.append(replace(lesion, box_zyx=box))
        lesions = tuple(placed)
        grid = target if has_scale(row) else None
    return TruthSeries(
        series_key=series.series_key,
        lesions=tuple(_sized(lesion, grid) for lesion in lesions),
        cluster_key=cluster,
    )


def _sized(lesion: TruthLesion, grid: Geometry | None) -> TruthLesion:
    """A lesion with the diameter of its box where the truth tells none and its grid has a scale."""
    if lesion.diameter_mm is not None or grid is None:
        return lesion
    return replace(lesion, diameter_mm=grid.diameter_mm(lesion.box_zyx))


def _claimed(row: Row, scores: ImageScores) -> ClaimSeries:
    if row["status"] != Status.OK:
        return ClaimSeries(series_key=row[ID_COLUMN])
    labelled = {pair["label"]: pair["score"] for pair in row["label_scores"] or ()}
    return ClaimSeries(
        series_key=row[ID_COLUMN],
        claims=tuple(
            Claim(label=f.label, box_zyx=f.box_zyx, score=f.score, probability=f.probability)
            for f in typed_findings(row)
        ),
        image_scores=labelled if scores == "labels" else {},
    )
