"""How well lesions are found, small and faint ones among them, in bodies never trained on.

In: a detector, seeds apart from those of training, folders of real CT. Out: measures of boxes on
every slice and of findings in three dimensions, as JSON.
Does not know: training, how a measure is computed.

Boxes are measured before labels compete for a lesion, as is usual for average precision, each
scored with what the slices around it say. Every slice is matched by itself; intervals draw whole
series again, so that the slices of one body, and all fillings of one real CT, stay together. What
a real CT shows by itself counts as normal, so a claim on it counts as false.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from raypipe.bench.machine import machine
from raypipe.config import RaypipeConfig
from raypipe.errors import ConfigError
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import DetectionEvaluation, evaluate_detection
from raypipe.evaluate.measures import MACRO, MICRO, Measure
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from raypipe.findings.assemble import assemble_findings, candidates
from raypipe.findings.decode import FindingsConfig, slice_of
from raypipe.geometry import Box
from raypipe.model.detector import Detector
from raypipe.phantom import Lesion, slice_boxes
from raypipe.settings import Settings
from raypipe.train.backgrounds import Filled, fill, load_volumes, measure_background
from raypipe.train.calibrate import HIT_IOU, LOWEST, whole_series
from raypipe.train.dataset import LEAST_PIXELS, on_grid
from raypipe.train.synthesis import SynthesisConfig
from raypipe.types import ModelInput, Prediction
from raypipe.volume.preprocess import PreprocessConfig, preprocess

SLICE_IOU = 0.5
TARGET_MAP, PAPER_MAP = 0.85, 0.912
Done = Callable[[int, str], None]


class LesionBenchConfig(Settings):
    """What is measured on."""

    series: int = Field(default=60, ge=0, description="phantoms, each another body")
    seed: int = Field(default=970_000, ge=0, description="of the first one; far from training's")
    backgrounds: tuple[str, ...] = Field(
        default=(), description="folders or s3:// prefixes of real CT that training never saw"
    )
    insertions: int = Field(default=4, gt=0, description="fillings of each real CT")
    bootstrap: int = Field(default=500, ge=0, description="resamples for intervals")


class LesionBenchResult(Settings):
    """What was measured."""

    budget: LesionBenchConfig
    weights_hash: str
    series: int = Field(description="phantoms and fillings of real CT")
    real_series: int = Field(description="fillings of real CT among them")
    seconds: float
    slices: DetectionEvaluation = Field(description="boxes on single slices")
    findings: DetectionEvaluation = Field(description="findings in three dimensions")
    target_map: float = TARGET_MAP
    paper_map: float = PAPER_MAP
    machine: dict[str, str | int]

    @property
    def map50(self) -> Measure:
        """The main number: AP on slices at IoU 0.5, mean over labels."""
        return self.slices.measure("box", "ap", MACRO, iou=SLICE_IOU)

    @property
    def sensitivity_at_1(self) -> Measure:
        """Share of lesions found in three dimensions with one false finding a series."""
        return self.findings.measure(
            "box", "sensitivity", MICRO, iou=HIT_IOU, group="1 FP per series"
        )


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Truth and claims of one series: in three dimensions, and of each of its slices."""

    truth: TruthSeries
    claims: ClaimSeries
    slice_truths: tuple[TruthSeries, ...]
    slice_claims: tuple[ClaimSeries, ...]


def bench_lesions(
    config: RaypipeConfig, budget: LesionBenchConfig, on_series: Done
) -> LesionBenchResult:
    """Fill series with lesions, run the detector on every slice, measure.

    Args:
        config: detector and preprocessing.
        budget: what to measure on.
        on_series: called after each series with the number done and what it was.
    """
    started = time.perf_counter()
    detector = Detector(config.detector, config.preprocess.fingerprint)
    compared: list[Compared] = []
    real = 0
    for cluster, filled in filled_series(budget, config.preprocess):
        key = f"{len(compared)}"
        compared.append(compare(detector, filled, key, cluster, config))
        real += not filled.all_organs
        on_series(len(compared), cluster)
    if not compared:
        raise ConfigError("bench lesions: ask for at least one phantom, or name real CT")
    slices, findings = _measured(compared, detector, config, budget)
    return LesionBenchResult(
        budget=budget,
        weights_hash=detector.weights_hash,
        series=len(compared),
        real_series=real,
        seconds=time.perf_counter() - started,
        slices=slices,
        findings=findings,
        machine=machine(),
    )


def _measured(
    compared: Sequence[Compared],
    detector: Detector,
    config: RaypipeConfig,
    budget: LesionBenchConfig,
) -> tuple[DetectionEvaluation, DetectionEvaluation]:
    """Measures of boxes on slices, and of findings in three dimensions."""
    claimed = config.findings.completed_by(thresholds=detector.thresholds, slope={}, intercept={})
    slices = evaluate_detection(
        [truth for c in compared for truth in c.slice_truths],
        [claims for c in compared for claims in c.slice_claims],
        DetectionEvaluationConfig(
            boxes="slice",
            labels=detector.labels,
            iou_thresholds=(SLICE_IOU,),
            match_iou=SLICE_IOU,
            froc_iou=SLICE_IOU,
            bootstrap=budget.bootstrap,
        ),
    )
    findings = evaluate_detection(
        [c.truth for c in compared],
        [c.claims for c in compared],
        DetectionEvaluationConfig(
            labels=detector.labels,
            iou_thresholds=(HIT_IOU, 0.3),
            match_iou=HIT_IOU,
            froc_iou=HIT_IOU,
            thresholds={label: claimed.threshold_of(label) for label in detector.labels},
            bootstrap=budget.bootstrap,
        ),
    )
    return slices, findings


def filled_series(
    budget: LesionBenchConfig, preparation: PreprocessConfig
) -> Iterator[tuple[str, Filled]]:
    """What belongs together when series are drawn again, and a series with lesions."""
    phantoms = SynthesisConfig(
        phantom_series=budget.series, seed=budget.seed, preprocess=preparation
    )
    for number, filled in enumerate(whole_series(phantoms)):
        yield f"phantom {budget.seed + number}", filled
    number = 0
    for source in budget.backgrounds:
        for volume in load_volumes(source):
            background = measure_background(volume)
            for turn in range(budget.insertions):
                rng = np.random.default_rng([budget.seed, 5, number, turn])
                yield f"real CT {number}", fill(background, rng)
            number += 1
    if budget.backgrounds and number == 0:
        raise ConfigError(f"bench lesions: {', '.join(budget.backgrounds)}: no CT could be read")


def compare(
    detector: Detector, filled: Filled, key: str, cluster: str, config: RaypipeConfig
) -> Compared:
    """Run the detector on a series and put what it says beside the truth."""
    model_input = preprocess(filled.volume, config.preprocess)
    prediction = detector.predict(model_input)
    # so that curves are whole
    whole = config.findings.model_copy(update={"slice_floor": config.detector.score_floor})
    claims: dict[int, list[Claim]] = defaultdict(list)
    for track in candidates(prediction, model_input, True, whole, detector.rescoring):
        for box in track.in_context:
            claim = Claim(label=box.label, box_zyx=box.box_zyx, score=box.score)
            claims[slice_of(box)].append(claim)
    return Compared(
        truth=TruthSeries(
            series_key=key,
            lesions=tuple(_truth(lesion, lesion.box_zyx) for lesion in filled.lesions),
            cluster_key=cluster,
        ),
        claims=_claimed_findings(detector, filled, key, model_input, prediction, config.findings),
        slice_truths=slice_truths(filled, model_input, key, cluster),
        slice_claims=tuple(
            ClaimSeries(series_key=f"{key}/{z}", claims=tuple(of_slice))
            for z, of_slice in sorted(claims.items())
        ),
    )


def slice_truths(
    filled: Filled, model_input: ModelInput, key: str, cluster: str
) -> tuple[TruthSeries, ...]:
    """The lesions of each slice of the model's grid; a trace of a few pixels does not count."""
    lesion_map = on_grid(filled.lesion_map, filled.volume.geometry, model_input.geometry)
    truths = []
    for z in range(len(lesion_map)):
        lesions = tuple(
            _truth(filled.lesions[number], box)
            for number, box in slice_boxes(lesion_map, z)
            if np.count_nonzero(lesion_map[z] == number + 1) >= LEAST_PIXELS
        )
        truths.append(TruthSeries(series_key=f"{key}/{z}", lesions=lesions, cluster_key=cluster))
    return tuple(truths)


def _truth(lesion: Lesion, box: Box) -> TruthLesion:
    """A lesion with its box in the volume, or the one on a slice."""
    return TruthLesion(
        label=lesion.label,
        box_zyx=box,
        diameter_mm=lesion.diameter_mm,
        contrast_hu=lesion.contrast_hu,
        subtle=lesion.subtle,
    )


def _claimed_findings(
    detector: Detector,
    filled: Filled,
    key: str,
    model_input: ModelInput,
    prediction: Prediction,
    config: FindingsConfig,
) -> ClaimSeries:
    """Findings down to a low score, so that curves are whole."""
    calibration = detector.calibration
    low = {"threshold": LOWEST, "thresholds": {}}
    config = config.model_copy(update=low).completed_by(
        thresholds={},
        slope=calibration.slope if calibration else {},
        intercept=calibration.intercept if calibration else {},
    )
    found = assemble_findings(
        prediction,
        model_input,
        filled.volume.geometry,
        (),
        True,
        config,
        detector.rescoring,
    )
    return ClaimSeries(
        series_key=key,
        claims=tuple(
            Claim(label=f.label, box_zyx=f.box_zyx, score=f.score, probability=f.probability)
            for f in found
        ),
        image_scores=prediction.label_scores,
    )
