"""Measures of reports as files: Markdown for people, Parquet and JSON for machines, figures.

In: a TextEvaluation. Out: files of a folder. Does not know: how measures are computed.
"""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.evaluate.plot_style import save_figure
from raypipe.evaluate.plot_text import errors_figure, scores_figure
from raypipe.evaluate.text import (
    FACT_ERRORS,
    FACT_SCORES,
    WORD_MEASURES,
    TextEvaluation,
    TextMeasure,
)

TEXT_SCHEMA = pa.schema(
    [
        pa.field("system", pa.string(), metadata={"meaning": "who wrote the texts"}),
        pa.field("name", pa.string(), metadata={"meaning": "what is measured"}),
        pa.field("value", pa.float64(), metadata={"meaning": "null where nothing to measure"}),
        pa.field("low", pa.float64(), metadata={"meaning": "lower end of the interval"}),
        pa.field("high", pa.float64(), metadata={"meaning": "upper end of the interval"}),
        pa.field("difference", pa.float64(), metadata={"meaning": "to the first system"}),
        pa.field("difference_low", pa.float64(), metadata={"meaning": "lower end of its interval"}),
        pa.field(
            "difference_high", pa.float64(), metadata={"meaning": "upper end of its interval"}
        ),
        pa.field("support", pa.int64(), metadata={"meaning": "reports or facts it rests on"}),
    ]
)
TITLES = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR (exact, stem)",
    "cider": "CIDEr",
    "fact_precision": "fact precision",
    "fact_recall": "fact recall",
    "fact_f1": "fact F1",
    "finding_f1": "finding F1",
    "hallucination_rate": "invented of claimed findings",
    "hallucinating_reports": "reports that invent",
    "omission_rate": "omitted of present findings",
    "side_error_rate": "wrong sides",
    "level_error_rate": "wrong levels",
    "size_error_rate": "wrong sizes",
}


def measures_table(evaluation: TextEvaluation) -> pa.Table:
    """One row a measure and system, by a fixed schema."""
    return pa.Table.from_pylist(
        [measure.model_dump() for measure in evaluation.measures], schema=TEXT_SCHEMA
    )


def write_text_evaluation(evaluation: TextEvaluation, folder: Path) -> tuple[Path, ...]:
    """Write reports.json, reports.parquet, reports.md and the figures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    as_json, parquet, text = (folder / f"reports.{kind}" for kind in ("json", "parquet", "md"))
    as_json.write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    pq.write_table(measures_table(evaluation), parquet)
    text.write_text(evaluation_markdown(evaluation), encoding="utf-8")
    scores = save_figure(scores_figure(evaluation, TITLES), folder / "reports_scores.png")
    errors = save_figure(errors_figure(evaluation, TITLES), folder / "reports_errors.png")
    return as_json, parquet, text, scores, errors


def evaluation_markdown(evaluation: TextEvaluation) -> str:
    """The whole result as a Markdown page of tables, intervals in brackets."""
    config = evaluation.config
    method = (
        f"{evaluation.reports} reports; facts are compared with {evaluation.truth}. Brackets: "
        f"{config.interval:.0%} interval, percentile bootstrap over reports, {config.bootstrap} "
        f"resamples, seed {config.seed}; it cannot widen a value of exactly 0 or 1. "
        f"Sizes agree within {config.size_tolerance_mm:g} mm."
    )
    parts = [f"# Reports\n\n{method}"]
    sections = (
        ("Words", WORD_MEASURES),
        ("Facts", FACT_SCORES),
        ("Errors of facts (lower is better)", FACT_ERRORS),
    )
    for heading, names in sections:
        known = [name for name in names if name in evaluation.names]
        if known:
            parts.append(f"## {heading}\n\n{_by_system(evaluation, known)}")
    if len(evaluation.systems) > 1:
        parts.append(
            f"## Differences to {evaluation.systems[0]}\n\nOn the same draws of reports.\n\n"
            + _differences(evaluation)
        )
    return "\n\n".join(parts) + "\n"


def _by_system(evaluation: TextEvaluation, names: Sequence[str]) -> str:
    rows = [
        [TITLES[name], *(evaluation.measure(system, name).shown() for system in evaluation.systems)]
        for name in names
    ]
    return _table(["measure", *evaluation.systems], rows)


def _differences(evaluation: TextEvaluation) -> str:
    others = evaluation.systems[1:]
    rows = [
        [TITLES[name], *(_difference(evaluation.measure(system, name)) for system in others)]
        for name in evaluation.names
    ]
    return _table(["measure", *others], rows)


def _difference(measure: TextMeasure) -> str:
    value, low, high = measure.difference, measure.difference_low, measure.difference_high
    if value is None:
        return "n/a"
    if low is None or high is None:
        return f"{value:+.3f}"
    return f"{value:+.3f} ({low:+.3f} to {high:+.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [list(head), ["---"] * len(head), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
