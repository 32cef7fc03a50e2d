"""`raypipe evaluate`: how good the results of a run are, where the truth is known.

In: an output folder, a truth file. Out: tables, figures, a summary in the terminal.
Does not know: how a measure is computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from raypipe.cli.evaluate_reports import reports
from raypipe.cli.options import ConfigFile, Overrides

if TYPE_CHECKING:
    from raypipe.batch.evaluation import Cohort
    from raypipe.evaluate.detection import DetectionEvaluation
    from raypipe.evaluate.measures import Measure

app = typer.Typer(no_args_is_help=True, help="Compare results with the truth.")


app.command()(reports)


@app.command()
def detection(
    results: Annotated[str, typer.Argument(help="Output folder or s3:// prefix of a run.")],
    truth: Annotated[
        str,
        typer.Argument(help="Truth: .parquet, COCO .json, or the truth.json of `raypipe demo`."),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for tables and figures.")
    ] = Path("evaluation"),
    match_iou: Annotated[
        float, typer.Option(min=0.01, max=1, help="3D IoU from which a finding hits a lesion.")
    ] = 0.1,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Score from which a finding counts as claimed; by default what the weights and "
            "the config say, label by label.",
        ),
    ] = None,
    image_scores: Annotated[
        Literal["labels", "findings"],
        typer.Option(help="What scores a whole series: the network's labels, or its best finding."),
    ] = "labels",
    image_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Score from which a label of a series counts.")
    ] = 0.5,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for intervals.")] = 1000,
    pictures: Annotated[
        bool, typer.Option(help="Class grid and case studies; they read the archive again.")
    ] = True,
    config: ConfigFile = None,
    overrides: Overrides = None,
) -> None:
    """Accuracy, AUC, AP, FROC, sensitivity by size and calibration of a run, with intervals.

    Works with the config that lies in the output folder, unless --config gives one.

    Curves and AP reach as far down as the results do: for whole ones, make the results with low
    `findings.thresholds`. Precision, recall and F1 are those at the usual thresholds even then.

        raypipe evaluate detection raypipe-demo/results raypipe-demo/truth.json -o evaluation
    """
    from raypipe.batch.case_views import CaseViewer
    from raypipe.batch.evaluation import load_cohort, operating_thresholds
    from raypipe.batch.restart import open_run
    from raypipe.evaluate.config import DetectionEvaluationConfig
    from raypipe.evaluate.detection import evaluate_detection
    from raypipe.evaluate.figure_files import write_figures
    from raypipe.evaluate.tables import write_evaluation

    run, settings = open_run(results, config, overrides or ())
    cohort = load_cohort(run, truth, settings, scores=image_scores)
    measures = DetectionEvaluationConfig(
        labels=cohort.labels,
        iou_thresholds=(0.1, 0.3, 0.5),
        match_iou=match_iou,
        froc_iou=match_iou,
        coco_mean=True,
        threshold=threshold or 0.0,
        thresholds=operating_thresholds(settings, cohort.labels) if threshold is None else {},
        image_threshold=image_threshold,
        bootstrap=bootstrap,
    )
    evaluation = evaluate_detection(cohort.truths, cohort.claims, measures)
    viewer = CaseViewer(run, cohort, settings, measures)
    views = viewer.of_labels(evaluation.telling_labels()) if pictures else {}
    cases = viewer.cases() if pictures else []
    files = write_evaluation(evaluation, output)
    files += write_figures(evaluation, output, views, cases)
    _show(evaluation, cohort)
    typer.echo(f"wrote {', '.join(file.name for file in files)} into {output}")


def _show(evaluation: DetectionEvaluation, cohort: Cohort) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(
        f"{evaluation.series} series, {evaluation.lesions} lesions, {evaluation.claims} findings"
    )
    for what, number in cohort.left_out.items():
        console.print(f"[yellow]left out: {number} {what}[/]")
    config = evaluation.config
    summary = Table("measure", f"value ({config.interval:.0%} interval)", "positives")
    for name, measure in _headline(evaluation):
        summary.add_row(name, measure.shown(), str(measure.support))
    console.print(summary)
    labels = Table("label", "lesions", f"AP, IoU {config.match_iou:g}", "recall", "AUC-ROC")
    for label in evaluation.telling_labels():
        ap, recall = (
            evaluation.measure("box", name, label, iou=config.match_iou)
            for name in ("ap", "recall")
        )
        auc = evaluation.measure("image", "auc_roc", label)
        labels.add_row(
            label.replace("_", " "), str(ap.support), ap.shown(), recall.shown(), auc.shown()
        )
    console.print(labels)


def _headline(evaluation: DetectionEvaluation) -> list[tuple[str, Measure]]:
    from raypipe.evaluate.measures import MACRO, MICRO

    config, measure = evaluation.config, evaluation.measure
    hit = config.match_iou
    one = "1 FP per series"
    return [
        *((f"mAP, IoU {iou:g}", measure("box", "ap", MACRO, iou=iou)) for iou in config.ap_ious),
        ("mAP, IoU 0.50 to 0.95", measure("box", "ap_coco", MACRO)),
        (f"precision, IoU {hit:g}", measure("box", "precision", MICRO, iou=hit)),
        (f"recall, IoU {hit:g}", measure("box", "recall", MICRO, iou=hit)),
        (f"F1, IoU {hit:g}", measure("box", "f1", MICRO, iou=hit)),
        ("mean IoU of hits", measure("box", "mean_iou", MICRO, iou=hit)),
        ("CPM", measure("box", "cpm", MICRO, iou=hit)),
        ("sensitivity at 1 FP a series", measure("box", "sensitivity", MICRO, iou=hit, group=one)),
        ("accuracy of labels of series", measure("image", "accuracy", MICRO)),
        ("F1 of labels of series", measure("image", "f1", MICRO)),
        ("AUC-ROC of series, mean over labels", measure("image", "auc_roc", MACRO)),
        ("calibration error of findings", measure("box_calibration", "ece", MICRO, iou=hit)),
        ("Brier score of findings", measure("box_calibration", "brier", MICRO, iou=hit)),
    ]
