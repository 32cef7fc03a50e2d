"""Measures of boxes: AP, precision, recall, F1, IoU, FROC, sensitivity by size, calibration.

In: matched claims per label and IoU, weights of the series. Out: values under their keys.
Does not know: how matches were made, intervals.

"macro" is the mean over labels that have a lesion in the (re)sample; "micro" pools the claims of
all labels. Precision without a claim counts 0 where there are lesions (as scikit-learn's
zero_division=0): a label that was never claimed must not raise the mean by staying out of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from raypipe.evaluate.calibration import brier, expected_calibration_error, reliability
from raypipe.evaluate.config import COCO_IOUS, DetectionEvaluationConfig
from raypipe.evaluate.curves import average_precision, froc, precision_recall, sensitivity_at
from raypipe.evaluate.matching import LabelMatches, merge
from raypipe.evaluate.measures import MACRO, MICRO, Key, Value, Values

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
NAN = float("nan")
SUBTLE, PLAIN = "subtle", "not subtle"


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedBoxes:
    """Every matching that the measures need, made once and weighted many times.

    Args:
        labels: the evaluated ones.
        by_label: IoU -> label -> its matches.
        pooled: matches of all labels together, at match_iou and at froc_iou.
        series: number of series.
    """

    labels: tuple[str, ...]
    by_label: Mapping[float, Mapping[str, LabelMatches]]
    pooled: Mapping[float, LabelMatches]
    series: int

    @classmethod
    def of(
        cls,
        by_label: Mapping[float, Mapping[str, LabelMatches]],
        series: int,
        config: DetectionEvaluationConfig,
    ) -> "MatchedBoxes":
        """Pool what the config asks for over labels."""
        pooled = {
            iou: merge(list(by_label[iou].values())) for iou in {config.match_iou, config.froc_iou}
        }
        labels = tuple(by_label[config.match_iou])
        return cls(labels=labels, by_label=by_label, pooled=pooled, series=series)


def box_measures(
    boxes: MatchedBoxes, weight: FloatArray, config: DetectionEvaluationConfig
) -> Values:
    """All measures of boxes under weights (series,)."""
    return {
        **_precisions(boxes, weight, config),
        **_at_threshold(boxes, weight, config),
        **_froc(boxes, weight, config),
        **_by_group(boxes, weight, config),
        **_calibration(boxes, weight, config),
    }


def size_groups(edges_mm: Sequence[float]) -> list[tuple[str, float, float]]:
    """Name, least and limiting diameter (mm) of each size bin, half-open."""
    if not edges_mm:
        return []
    borders = [0.0, *edges_mm, np.inf]
    groups = []
    for low, high in pairwise(borders):
        name = f"{low:g} to {high:g} mm"
        if low == 0:
            name = f"under {high:g} mm"
        elif np.isinf(high):
            name = f"from {low:g} mm"
        groups.append((name, low, float(high)))
    return groups


def _precisions(
    boxes: MatchedBoxes, weight: FloatArray, config: DetectionEvaluationConfig
) -> Values:
    values: Values = {}
    ious = set(config.ap_ious) | set(COCO_IOUS if config.coco_mean else ())
    parted = any(m.subtle.any() for m in boxes.by_label[config.match_iou].values())
    for iou in sorted(ious):
        each: dict[str, Value] = {}
        easy: dict[str, Value] = {}
        hard: dict[str, Value] = {}
        for label, matches in boxes.by_label[iou].items():
            each[label] = _ap(matches, weight, config)
            if iou in config.ap_ious and parted:  # a label without subtle lesions has plain ones
                easy[label] = _ap(matches.only(~matches.subtle), weight, config)
                if matches.subtle.any():
                    hard[label] = _ap(matches.only(matches.subtle), weight, config)
        for group, found in (("", each), (SUBTLE, hard), (PLAIN, easy)):
            if found:
                values |= {Key("box", "ap", k, iou, group): v for k, v in found.items()}
                values[Key("box", "ap", MACRO, iou, group)] = macro(found)
    if config.coco_mean:
        values |= _over_coco_ious(values, boxes.labels)
    return {
        key: value
        for key, value in values.items()
        if key.iou in config.ap_ious or key.name == "ap_coco"
    }


def _ap(matches: LabelMatches, weight: FloatArray, config: DetectionEvaluationConfig) -> Value:
    lesions = float(weight[matches.lesion_series].sum())
    if lesions <= 0:
        return Value(NAN, 0.0)
    curve = precision_recall(matches.score, matches.hit, weight[matches.series], lesions)
    return Value(average_precision(curve, config.interpolation), lesions)


def _over_coco_ious(values: Values, labels: Sequence[str]) -> Values:
    mean: Values = {}
    for label in (*labels, MACRO):
        parts = [values[Key("box", "ap", label, iou)] for iou in COCO_IOUS]
        average = float(np.mean([part.value for part in parts]))
        mean[Key("box", "ap_coco", label)] = Value(average, parts[0].support)
    return mean


def _at_threshold(
    boxes: MatchedBoxes, weight: FloatArray, config: DetectionEvaluationConfig
) -> Values:
    iou = config.match_iou
    values: Values = {}
    tables: dict[str, dict[str, Value]] = {}
    sums = np.zeros(4)
    for label, matches in boxes.by_label[iou].items():
        made = matches.score >= config.threshold_of(label)
        w = weight[matches.series] * made
        hits, claims = float(np.sum(w * matches.hit)), float(w.sum())
        number = float(weight[matches.lesion_series].sum())
        counts = np.array([hits, claims, number, float(np.sum(w * matches.overlap))])
        sums += counts
        tables[label] = _rates(counts)
    tables[MICRO] = _rates(sums)
    lesions = {label: tables[label]["recall"].support for label in boxes.labels}
    for name in ("precision", "recall", "f1", "mean_iou"):
        per_label = {label: tables[label][name] for label in boxes.labels}
        values[Key("box", name, MACRO, iou)] = macro(per_label, support=lesions)
    for label, table in tables.items():
        values |= {Key("box", name, label, iou): value for name, value in table.items()}
    return values


def _rates(counts: FloatArray) -> dict[str, Value]:
    hits, claims, lesions, overlap = (float(n) for n in counts)
    precision = hits / claims if claims > 0 else (0.0 if lesions > 0 else NAN)
    return {
        "true_positives": Value(hits, lesions),
        "false_positives": Value(claims - hits, lesions),
        "false_negatives": Value(lesions - hits, lesions),
        "precision": Value(precision, claims),
        "recall": Value(hits / lesions if lesions > 0 else NAN, lesions),
        "f1": Value(2 * hits / (claims + lesions) if claims + lesions > 0 else NAN, lesions),
        "mean_iou": Value(overlap / hits if hits > 0 else NAN, hits),
    }


def _froc(boxes: MatchedBoxes, weight: FloatArray, config: DetectionEvaluationConfig) -> Values:
    iou = config.froc_iou
    values: Values = {}
    cpm: dict[str, Value] = {}
    for label, matches in {**boxes.by_label[iou], MICRO: boxes.pooled[iou]}.items():
        lesions = float(weight[matches.lesion_series].sum())
        curve = froc(
            matches.score, matches.hit, weight[matches.series], lesions, float(weight.sum())
        )
        reached = sensitivity_at(curve, config.froc_rates)
        cpm[label] = Value(float(np.mean(reached)), lesions)
        for rate, sensitivity in zip(config.froc_rates, reached, strict=True):
            key = Key("box", "sensitivity", label, iou, f"{rate:g} FP per series")
            values[key] = Value(float(sensitivity), lesions)
    values |= {Key("box", "cpm", label, iou): value for label, value in cpm.items()}
    values[Key("box", "cpm", MACRO, iou)] = macro({k: cpm[k] for k in boxes.labels})
    return values


def _by_group(boxes: MatchedBoxes, weight: FloatArray, config: DetectionEvaluationConfig) -> Values:
    iou = config.froc_iou
    values: Values = {}
    parts = boxes.by_label[iou]
    found = {k: m.lesion_score >= config.threshold_of(k) for k, m in parts.items()}
    pooled_found = np.concatenate(list(found.values())) if found else np.zeros(0, np.bool_)
    for label, matches in {**parts, MICRO: boxes.pooled[iou]}.items():
        is_found = pooled_found if label == MICRO else found[label]
        for group, member in _groups(matches, config):
            w = weight[matches.lesion_series] * member
            total = float(w.sum())
            share = float(np.sum(w * is_found) / total) if total > 0 else NAN
            values[Key("box", "sensitivity", label, iou, group)] = Value(share, total)
    return values


def _groups(
    matches: LabelMatches, config: DetectionEvaluationConfig
) -> list[tuple[str, BoolArray]]:
    d = matches.diameter_mm
    groups = [(n, (d >= low) & (d < high)) for n, low, high in size_groups(config.size_edges_mm)]
    return [*groups, (SUBTLE, matches.subtle), (PLAIN, ~matches.subtle)]


def _calibration(
    boxes: MatchedBoxes, weight: FloatArray, config: DetectionEvaluationConfig
) -> Values:
    iou = config.match_iou
    values: Values = {}
    for label, m in {**boxes.by_label[iou], MICRO: boxes.pooled[iou]}.items():
        w = weight[m.series]
        bins = reliability(m.probability, m.hit, w, config.calibration_bins)
        total = float(w.sum())
        for name, value in (
            ("ece", expected_calibration_error(bins)),
            ("brier", brier(m.probability, m.hit, w)),
        ):
            values[Key("box_calibration", name, label, iou)] = Value(value, total)
    return values


def macro(per_label: Mapping[str, Value], *, support: Mapping[str, float] | None = None) -> Value:
    """Mean over the labels that have positives and a value.

    Args:
        per_label: label -> value.
        support: label -> positives, where the value's own support counts something else.
    """
    positives = support or {label: value.support for label, value in per_label.items()}
    chosen = [
        value.value
        for label, value in per_label.items()
        if positives[label] > 0 and not np.isnan(value.value)
    ]
    return Value(float(np.mean(chosen)) if chosen else NAN, float(sum(positives.values())))
