"""From scores to thresholds and probabilities, and how good findings of whole series are.

In: a detector, series with known lesions. Out: thresholds, a calibration, metrics.
Does not know: training.

A claimed finding hits a lesion of its label where it overlaps it by an IoU of 0.1 in three
dimensions, or where its centre lies in the lesion's box: what a reader would call the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from raypipe.evaluate.calibration import fit_platt
from raypipe.findings.assemble import assemble_findings
from raypipe.findings.decode import FindingsConfig
from raypipe.geometry import Box
from raypipe.model.checkpoint import Calibration
from raypipe.model.detector import Detector
from raypipe.phantom import Lesion, PhantomSpec, make_phantom
from raypipe.train.backgrounds import Filled, fill, load_volumes, measure_background
from raypipe.train.synthesis import SynthesisConfig, draw_spec
from raypipe.train.validate import Match, average_precision, froc_point
from raypipe.types import Finding
from raypipe.volume.preprocess import PreprocessConfig, preprocess

HIT_IOU = 0.1
LOWEST = 0.06
"""Findings below this score are not looked at."""
FEW = 8
"""A label with fewer hits or false findings takes the fit over all labels."""


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """What calibrate found.

    Args:
        thresholds: label -> score with the best F1.
        calibration: Platt scaling.
        metrics: named numbers; "fp" is false findings a series at the thresholds.
    """

    thresholds: dict[str, float]
    calibration: Calibration
    metrics: dict[str, float]


def whole_series(config: SynthesisConfig) -> Iterator[Filled]:
    """Series as an archive has them: every slice, phantoms first, then filled real CT."""
    for seed in range(config.seed, config.seed + config.phantom_series):
        spec = draw_spec(seed, config)
        slices = int(np.clip(160.0 / spec.spacing_zyx_mm[0], 20, 40))
        whole = {**spec.model_dump(), "shape_zyx": (slices, *spec.shape_zyx[1:])}
        phantom = make_phantom(PhantomSpec.model_validate(whole))
        yield Filled(
            volume=phantom.volume,
            lesions=phantom.lesions,
            lesion_map=phantom.lesion_map,
            organs=phantom.organs,
        )
    for number, source in enumerate(config.backgrounds):
        for volume in load_volumes(source):
            background = measure_background(volume)
            for turn in range(config.insertions_per_background):
                yield fill(background, np.random.default_rng([config.seed, 4, number, turn]))


def match_series(
    detector: Detector, series: Iterable[Filled], preparation: PreprocessConfig
) -> tuple[list[Match], int]:
    """Every finding of every series, matched; and how many series there were."""
    config = FindingsConfig(threshold=LOWEST)
    matches: list[Match] = []
    count = 0
    for filled in series:
        model_input = preprocess(filled.volume, preparation)
        found = assemble_findings(
            detector.predict(model_input),
            model_input,
            filled.volume.geometry,
            (),
            True,
            config,
            detector.rescoring,
        )
        matches += match_findings(found, filled.lesions)
        count += 1
    return matches, count


def match_findings(found: Sequence[Finding], lesions: Sequence[Lesion]) -> list[Match]:
    """Greedy: best scores first, each lesion is found once."""
    taken: set[int] = set()
    matches = []
    for finding in sorted(found, key=lambda f: -f.score):
        best = take_hit(finding.label, finding.box_zyx, lesions, taken)
        subtle = best is not None and lesions[best].subtle
        matches.append(
            Match(label=finding.label, score=finding.score, hit=best is not None, subtle=subtle)
        )
    for m, lesion in enumerate(lesions):
        if m not in taken:
            matches.append(
                Match(label=lesion.label, score=0.0, hit=False, subtle=lesion.subtle, missed=True)
            )
    return matches


def take_hit(label: str, box: Box, lesions: Sequence[Lesion], taken: set[int]) -> int | None:
    """The lesion that a claim hits best of those not taken yet, taken by it; None: none of them.

    Args:
        label: that is claimed.
        box: on the grid of the lesions' boxes.
        lesions: all of the series.
        taken: numbers of those that better claims hit; grows.
    """
    fits = [
        (overlap, m)
        for m, lesion in enumerate(lesions)
        if m not in taken
        and lesion.label == label
        and (
            (overlap := box.iou(lesion.box_zyx)) >= HIT_IOU
            or _holds(lesion.box_zyx, box.center_zyx)
        )
    ]
    if not fits:
        return None
    best = max(fits)[1]
    taken.add(best)
    return best


def _holds(box: Box, center_zyx: tuple[float, float, float]) -> bool:
    return all(
        lo - 0.5 <= c <= up - 0.5
        for lo, c, up in zip(box.lower_zyx, center_zyx, box.upper_zyx, strict=True)
    )


def calibrate(matches: Sequence[Match], series: int, labels: Sequence[str]) -> Calibrated:
    """Thresholds by F1 and Platt scaling, label by label where there is enough to go by."""
    scored = [m for m in matches if not m.missed]
    pooled_threshold = best_threshold(matches)
    pooled = platt(scored)
    thresholds, slope, intercept = {}, {}, {}
    for label in labels:
        own = [m for m in matches if m.label == label]
        hits = sum(m.hit for m in own)
        false = sum(not m.hit and not m.missed for m in own)
        enough = hits >= FEW and false >= FEW
        thresholds[label] = round(best_threshold(own) if hits >= FEW else pooled_threshold, 4)
        a, b = platt([m for m in own if not m.missed]) if enough else pooled
        slope[label], intercept[label] = round(a, 4), round(b, 4)
    return Calibrated(
        thresholds=thresholds,
        calibration=Calibration(slope=slope, intercept=intercept),
        metrics=series_metrics(matches, series, thresholds),
    )


def best_threshold(matches: Sequence[Match]) -> float:
    """The score with the highest F1; a little below the lowest kept score."""
    truths = sum(m.hit or m.missed for m in matches)
    scored = sorted((m for m in matches if not m.missed), key=lambda m: -m.score)
    if not truths or not scored:
        return 0.5
    hits = np.cumsum([m.hit for m in scored])
    f1 = 2.0 * hits / (np.arange(1, len(scored) + 1) + truths)
    last = int(np.argmax(f1))
    below = scored[last + 1].score if last + 1 < len(scored) else 0.0
    return float(np.clip((scored[last].score + below) / 2.0, 0.1, 0.9))


def platt(scored: Sequence[Match]) -> tuple[float, float]:
    """Slope and intercept of the logit of the score; 1 and 0 where hits or misses are missing."""
    score = np.array([m.score for m in scored], dtype=np.float64)
    fitted = fit_platt(score, np.array([m.hit for m in scored], dtype=np.bool_))
    return (1.0, 0.0) if fitted is None else (fitted.slope, fitted.intercept)


def series_metrics(
    matches: Sequence[Match], series: int, thresholds: dict[str, float]
) -> dict[str, float]:
    """Sensitivity and false findings at the thresholds, FROC point, AP by label."""
    scored = [m for m in matches if not m.missed]
    truths = [m for m in matches if m.hit or m.missed]
    claimed = [m for m in scored if m.score > thresholds.get(m.label, 0.5)]
    out = {
        "series": float(series),
        "lesions": float(len(truths)),
        "sensitivity": _share(sum(m.hit for m in claimed), len(truths)),
        "sensitivity_plain": _share(
            sum(m.hit and not m.subtle for m in claimed), sum(not m.subtle for m in truths)
        ),
        "sensitivity_subtle": _share(
            sum(m.hit and m.subtle for m in claimed), sum(m.subtle for m in truths)
        ),
        "fp": sum(not m.hit for m in claimed) / max(series, 1),
        "froc_at_1": froc_point(matches, series, 1.0),
    }
    for label in sorted({m.label for m in truths}):
        out[f"ap/{label}"] = average_precision([m for m in matches if m.label == label])
    by_label = [value for key, value in out.items() if key.startswith("ap/")]
    out["map"] = float(np.mean(by_label)) if by_label else 0.0
    return out


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
