"""Slices of evaluated series with truth, claims and attention, read from the archive again.

In: a cohort and the folder of its run. Out: views and case studies for figures.
Does not know: how a case is chosen, how it is drawn.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raypipe.batch.evaluation import Cohort, Row
from raypipe.batch.output import Output
from raypipe.batch.review import load_volume
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError
from raypipe.evaluate.cases import choose_cases, choose_lesion, what_went_wrong
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.confusion import pairs_of
from raypipe.evaluate.figures import CaseStudy
from raypipe.evaluate.plot_slices import SliceBox, SliceView
from raypipe.evaluate.records import TruthSeries
from raypipe.geometry import Box, Geometry
from raypipe.knowledge.windows import BONE, BRAIN, LUNG, SOFT_TISSUE, Window
from raypipe.model.attention import attention_of
from raypipe.model.detector import Detector, stacks
from raypipe.sink.schema import has_scale
from raypipe.stages import geometry_of
from raypipe.types import ModelInput
from raypipe.volume.preprocess import preprocess

LUNG_HU, BONE_HU = -400.0, 250.0
AROUND_PIXELS = 12


@dataclass(frozen=True, kw_only=True)
class _Placed:
    """A box on the model's grid, and what is written beside it."""

    label: str
    box_zyx: Box
    text: str

    def crosses(self, z: int) -> bool:
        """Whether it lies on a slice."""
        return bool(np.floor(self.box_zyx.lower_zyx[0]) <= z < np.ceil(self.box_zyx.upper_zyx[0]))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    """A series that was read again."""

    model_input: ModelInput
    truth: tuple[_Placed, ...]
    claims: tuple[_Placed, ...]
    head: bool
    has_scale: bool


@dataclass(eq=False)
class CaseViewer:
    """Reads series of a cohort again and runs the detector on the slices that are shown.

    Args:
        output: folder of the run.
        cohort: its rows beside the truth.
        config: of the run.
        evaluation: what a hit is, and from which score on a claim is shown.
    """

    output: Output
    cohort: Cohort
    config: RaypipeConfig
    evaluation: DetectionEvaluationConfig
    _detector: Detector | None = field(default=None, init=False)

    def cases(self) -> list[CaseStudy]:
        """A case study of each kind whose series can be read."""
        cohort, evaluation = self.cohort, self.evaluation
        chosen = choose_cases(self._readable(), cohort.claims, cohort.repaired, evaluation)
        truths = {truth.series_key: truth for truth in cohort.truths}
        claims = {claimed.series_key: claimed for claimed in cohort.claims}
        studies = []
        for kind, key in chosen.items():
            opened = self._open(key)
            if opened is not None:
                pairs = pairs_of(truths[key], claims[key], evaluation)
                view = self._view(opened, _fullest_slice(opened))
                studies.append(
                    CaseStudy(
                        title=kind,
                        view=view,
                        text=report_text(cohort.rows[key]),
                        note=what_went_wrong(pairs),
                    )
                )
        return studies

    def of_labels(self, labels: Sequence[str], count: int = 3) -> dict[str, SliceView]:
        """The first so many labels that can be shown -> slice of the lesion of median diameter."""
        views: dict[str, SliceView] = {}
        readable = self._readable()
        for label in labels:
            if len(views) == count:
                break
            found = choose_lesion(readable, label)
            opened = None if found is None else self._open(found[0].series_key)
            if found is not None and opened is not None:
                grid = geometry_of(self.cohort.rows[found[0].series_key])
                box = grid.box_to(opened.model_input.geometry, found[1].box_zyx)
                views[label] = self._view(opened, round(box.center_zyx[0]), label)
        return views

    def _readable(self) -> list[TruthSeries]:
        """The series that ended "ok": no other has a grid."""
        rows = self.cohort.rows
        return [t for t in self.cohort.truths if rows[t.series_key]["report"] is not None]

    def _open(self, key: str) -> _Opened | None:
        row = self.cohort.rows[key]
        volume = load_volume(self.output, row, self.config)
        if volume is None:
            return None
        model_input = preprocess(volume, self.config.preprocess)
        move = _mover(geometry_of(row), model_input.geometry)
        truth = next(t for t in self.cohort.truths if t.series_key == key)
        claims = next(c for c in self.cohort.claims if c.series_key == key)
        return _Opened(
            model_input=model_input,
            truth=tuple(
                _Placed(label=t.label, box_zyx=move(t.box_zyx), text=t.label.replace("_", " "))
                for t in truth.lesions
            ),
            claims=tuple(
                _Placed(
                    label=c.label,
                    box_zyx=move(c.box_zyx),
                    text=f"{c.label.replace('_', ' ')} {c.score:.2f}",
                )
                for c in claims.claims
                if c.score >= self.evaluation.threshold_of(c.label)
            ),
            head=row["body_part"] == "head",
            has_scale=has_scale(row),
        )

    def _view(self, opened: _Opened, z: int, label: str | None = None) -> SliceView:
        """A slice with its boxes, of one label or of all."""
        hu, geometry = opened.model_input.hu, opened.model_input.geometry
        z = min(max(z, 0), len(hu) - 1)
        truth, claims = (
            tuple(p for p in boxes if p.crosses(z) and label in (None, p.label))
            for boxes in (opened.truth, opened.claims)
        )
        return SliceView(
            hu_yx=hu[z],
            spacing_yx_mm=geometry.spacing_zyx_mm[1:] if opened.has_scale else None,
            window=_window(hu[z], truth or claims, opened.head),
            heat_yx=attention_of(self._loaded(), stacks(opened.model_input.hu, z, z + 1))[0],
            truth=tuple(_on_slice(p) for p in truth),
            claims=tuple(_on_slice(p) for p in claims),
        )

    def _loaded(self) -> Detector:
        """The detector of the run.

        Raises:
            ConfigError: the config names other weights than the rows were made with.
        """
        if self._detector is None:
            detector = Detector(self.config.detector, self.config.preprocess.fingerprint)
            made_with = {row["provenance"]["weights_hash"] for row in self.cohort.rows.values()}
            if made_with - {None, detector.weights_hash}:
                raise ConfigError(
                    "evaluation: the rows were made with other weights than the config names, so "
                    "attention would not be theirs; hand in the run's config with --config"
                )
            self._detector = detector
        return self._detector


def report_text(row: Row) -> str:
    """Findings and impression of a row's report as running text."""
    report = row["report"] or {}
    return " ".join(
        sentence["text"]
        for section in ("findings", "impression")
        for sentence in report.get(section) or ()
    )


def _mover(source: Geometry, target: Geometry) -> Callable[[Box], Box]:
    return lambda box: source.box_to(target, box)


def _fullest_slice(opened: _Opened) -> int:
    """The slice that most lesions lie on, then most claims; of equal ones the middle one."""
    count = len(opened.model_input.hu)
    filled = [
        (sum(p.crosses(z) for p in opened.truth), sum(p.crosses(z) for p in opened.claims))
        for z in range(count)
    ]
    best = [z for z in range(count) if filled[z] == max(filled)]
    return best[len(best) // 2]


def _window(hu_yx: NDArray[np.int16], boxes: Sequence[_Placed], head: bool) -> Window:
    """The window for what surrounds the first box; soft tissue (brain in a head) without one."""
    usual = BRAIN if head else SOFT_TISSUE
    if not boxes:
        return usual
    (_, y0, x0), (_, y1, x1) = boxes[0].box_zyx.lower_zyx, boxes[0].box_zyx.upper_zyx
    rows = slice(max(int(y0) - AROUND_PIXELS, 0), int(y1) + AROUND_PIXELS)
    columns = slice(max(int(x0) - AROUND_PIXELS, 0), int(x1) + AROUND_PIXELS)
    around = float(np.median(hu_yx[rows, columns]))
    return LUNG if around < LUNG_HU else BONE if around > BONE_HU else usual


def _on_slice(placed: _Placed) -> SliceBox:
    lower, upper = placed.box_zyx.lower_zyx, placed.box_zyx.upper_zyx
    return SliceBox(lower_yx=lower[1:], upper_yx=upper[1:], text=placed.text)
