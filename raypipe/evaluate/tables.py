"""Results as tables: Parquet for machines, Markdown for people.

In: a DetectionEvaluation. Out: Arrow tables, Markdown text.
Does not know: how measures are computed.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.evaluate.box_measures import PLAIN, SUBTLE, size_groups
from raypipe.evaluate.detection import DetectionEvaluation
from raypipe.evaluate.measures import MACRO, MICRO, Key, Level, Measure

MEASURE_SCHEMA = pa.schema(
    [
        pa.field("level", pa.string(), metadata={"meaning": "boxes, series, or calibration"}),
        pa.field("name", pa.string(), metadata={"meaning": "what is measured"}),
        pa.field("label", pa.string(), metadata={"meaning": f"a label, {MICRO} or {MACRO}"}),
        pa.field("iou", pa.float64(), metadata={"meaning": "IoU of a hit; null without boxes"}),
        pa.field("group", pa.string(), metadata={"meaning": "which lesions or operating point"}),
        pa.field("value", pa.float64(), metadata={"meaning": "null where nothing to measure"}),
        pa.field("low", pa.float64(), metadata={"meaning": "lower end of the interval"}),
        pa.field("high", pa.float64(), metadata={"meaning": "upper end of the interval"}),
        pa.field("support", pa.int64(), metadata={"meaning": "positives that it rests on"}),
    ]
)
Column = tuple[str, Level, str, float, str]  # heading, level, name, iou, group


def measures_table(evaluation: DetectionEvaluation) -> pa.Table:
    """One row a measure, by a fixed schema."""
    return pa.Table.from_pylist(
        [measure.model_dump() for measure in evaluation.measures], schema=MEASURE_SCHEMA
    )


def write_evaluation(evaluation: DetectionEvaluation, folder: Path) -> tuple[Path, ...]:
    """Write evaluation.json, measures.parquet and evaluation.md into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, parquet = folder / "evaluation.json", folder / "measures.parquet"
    text = folder / "evaluation.md"
    as_json.write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    pq.write_table(measures_table(evaluation), parquet)
    text.write_text(evaluation_markdown(evaluation), encoding="utf-8")
    return as_json, parquet, text


def evaluation_markdown(evaluation: DetectionEvaluation) -> str:
    """The whole result as a Markdown page of tables, intervals in brackets."""
    has_boxes = evaluation.lesions > 0 or evaluation.claims > 0
    parts = [_heading(evaluation)]
    if has_boxes:
        parts += [_boxes(evaluation), _froc(evaluation), _sizes(evaluation)]
    parts += [_images(evaluation), *_confusions(evaluation), _calibration(evaluation)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heading(evaluation: DetectionEvaluation) -> str:
    config = evaluation.config
    facts = (
        f"{evaluation.series} series ({evaluation.clusters} independent), "
        f"{evaluation.lesions} lesions, {evaluation.claims} claims."
    )
    if evaluation.series_without_claims:
        facts += f" {evaluation.series_without_claims} series had no claims handed in."
    method = (
        f"Brackets: {config.interval:.0%} interval, percentile bootstrap over series, "
        f"{config.bootstrap} resamples, seed {config.seed}; "
        "it cannot widen a value of exactly 0 or 1. "
        f"{MACRO}: mean over labels; {MICRO}: all labels pooled."
    )
    return f"# Detection\n\n{facts}\n\n{method}"


def _boxes(evaluation: DetectionEvaluation) -> str:
    config = evaluation.config
    columns: list[Column] = [(f"AP at IoU {iou:g}", "box", "ap", iou, "") for iou in config.ap_ious]
    if config.coco_mean:
        columns.append(("AP, IoU 0.50 to 0.95", "box", "ap_coco", 0.0, ""))
    for name, heading in _RATES.items():
        columns.append((heading, "box", name, config.match_iou, ""))
    columns.append((f"CPM at IoU {config.froc_iou:g}", "box", "cpm", config.froc_iou, ""))
    cut = _cut([config.threshold_of(label) for label in evaluation.labels])
    note = (
        f"Precision, recall, F1 and mean IoU: claims with a score of at least {cut}; "
        f"a hit has IoU {config.match_iou:g} or more."
    )
    table = _by_label(evaluation, columns, (*evaluation.labels, MACRO, MICRO))
    return f"## Boxes\n\n{note}\n\n{table}"


def _cut(thresholds: Iterable[float]) -> str:
    """From which score on a label's claims count, in words."""
    cuts = sorted(set(thresholds))
    if len(cuts) == 1:
        return f"{cuts[0]:.3g}"
    return f"its label's threshold ({cuts[0]:.3g} to {cuts[-1]:.3g})"


def _froc(evaluation: DetectionEvaluation) -> str:
    iou = evaluation.config.froc_iou
    columns: list[Column] = [
        (f"{rate:g}", "box", "sensitivity", iou, f"{rate:g} FP per series")
        for rate in evaluation.config.froc_rates
    ]
    table = _by_label(evaluation, columns, (*evaluation.labels, MICRO))
    return f"## Sensitivity at false positives per series (IoU {iou:g})\n\n{table}"


def _sizes(evaluation: DetectionEvaluation) -> str:
    config, known = evaluation.config, _known(evaluation)
    names = [name for name, _, _ in size_groups(config.size_edges_mm)]
    labels = (*evaluation.labels, MICRO)
    rows = []
    for group in (*names, SUBTLE, PLAIN):
        found = [known.get(Key("box", "sensitivity", n, config.froc_iou, group)) for n in labels]
        if any(m is not None and m.value is not None for m in found):
            rows.append([group, *(f"{_measure_cell(m)} n={m.support}" if m else "" for m in found)])
    for group in (SUBTLE, PLAIN):
        for iou in config.ap_ious:
            found = [known.get(Key("box", "ap", n, iou, group)) for n in labels[:-1]]
            macro = known.get(Key("box", "ap", MACRO, iou, group))
            if macro is not None:
                cells = [_measure_cell(m) for m in found]
                rows.append([f"AP at IoU {iou:g}, {group}", *cells, f"{_measure_cell(macro)} mean"])
    note = (
        f"Sensitivity at the threshold, IoU {config.froc_iou:g}, by diameter. Subtle: under "
        f"{config.subtle_diameter_mm:g} mm or {config.subtle_contrast_hu:g} HU of contrast, "
        "unless the truth says otherwise."
    )
    return f"## Size and subtlety\n\n{note}\n\n{_table(['lesions', *labels], rows)}"


def _images(evaluation: DetectionEvaluation) -> str:
    columns: list[Column] = [
        (heading, "image", name, 0.0, "") for name, heading in _IMAGE_RATES.items()
    ]
    table = _by_label(evaluation, columns, (*evaluation.labels, MACRO, MICRO))
    exact = evaluation.measure("image", "exact_match", MICRO)
    single = evaluation.config.image_mode == "single"
    name = "Accuracy (one label a series)" if single else "Series with every label right"
    cut = _cut(evaluation.config.image_threshold_of(label) for label in evaluation.labels)
    note = "" if single else f"A label counts as claimed with a score of at least {cut}. "
    return f"## Series\n\n{note}{name}: {_measure_cell(exact)}\n\n{table}"


def _confusions(evaluation: DetectionEvaluation) -> list[str]:
    tables = (
        ("Confusion", evaluation.confusion),
        ("What lesions were taken for", evaluation.lesion_confusion),
    )
    parts = []
    for heading, confusion in tables:
        used = None if confusion is None else confusion.only_used()
        if used is not None and used.labels:
            rows = [
                [label, *(str(n) for n in counts)]
                for label, counts in zip(used.labels, used.counts, strict=True)
            ]
            table = _table(["truth (down), claim (across)", *used.labels], rows)
            parts.append(f"## {heading}\n\n{table}")
    return parts


def _calibration(evaluation: DetectionEvaluation) -> str:
    known, iou = _known(evaluation), evaluation.config.match_iou
    places: tuple[tuple[Level, str, float], ...] = (
        ("box_calibration", "boxes", iou),
        ("image_calibration", "series", 0.0),
    )
    rows = []
    for level, what, at in places:
        cells = [known.get(Key(level, name, MICRO, at)) for name in ("ece", "brier")]
        if any(m is not None and m.value is not None for m in cells):
            rows.append([what, *(_measure_cell(m) for m in cells)])
    note = "probabilities" if evaluation.calibrated else "scores, not calibrated"
    head = ["", "expected calibration error", "Brier score"]
    return f"## Calibration\n\nBoxes: {note}. Lower is better.\n\n{_table(head, rows)}"


_RATES = {"precision": "precision", "recall": "recall", "f1": "F1", "mean_iou": "mean IoU"}
_IMAGE_RATES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "f1": "F1",
    "auc_roc": "AUC-ROC",
    "ap": "AP",
}


def _by_label(
    evaluation: DetectionEvaluation, columns: Sequence[Column], labels: Sequence[str]
) -> str:
    known = _known(evaluation)
    rows = []
    for label in labels:
        found = [
            known.get(Key(level, name, label, iou, group)) for _, level, name, iou, group in columns
        ]
        of_recall = [m for m in found if m is not None and m.name in ("recall", "sensitivity")]
        rows.append([label, str(of_recall[0].support), *(_measure_cell(m) for m in found)])
    return _table(["label", "positives", *(heading for heading, *_ in columns)], rows)


def _known(evaluation: DetectionEvaluation) -> dict[Key, Measure]:
    return {measure.key: measure for measure in evaluation.measures}


def _measure_cell(measure: Measure | None) -> str:
    return "" if measure is None else _cell(measure.value, measure.low, measure.high)


def _cell(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "n/a"
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
