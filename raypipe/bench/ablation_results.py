"""What the runs of an ablation say: measures, differences to the base, Markdown, a figure.

In: runs with their claims, the held-out slices. Out: an AblationResult and how it is shown.
Does not know: how arms are trained.

Every slice is matched by itself; intervals draw whole series again, so that slices of one body
stay together.
"""

from collections.abc import Mapping, Sequence

from raypipe.bench.ablation_arms import ARMS, AblationConfig, AblationResult, ArmResult, ArmRun
from raypipe.bench.machine import machine
from raypipe.evaluate.comparison import Difference, compare_detection
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.detection import evaluate_detection
from raypipe.evaluate.measures import MACRO, MICRO
from raypipe.evaluate.plot_ablation import AblationArm, Interval
from raypipe.evaluate.records import Claim, ClaimSeries, TruthLesion, TruthSeries
from raypipe.geometry import Box
from raypipe.train.dataset import SampleStore

IOU = 0.5
EVALUATION = DetectionEvaluationConfig(
    boxes="slice", iou_thresholds=(0.3, IOU), match_iou=IOU, froc_iou=IOU
)
MEASURES = {
    "mAP at IoU 0.5": ("ap", MACRO, IOU, ""),
    "mAP at IoU 0.3": ("ap", MACRO, 0.3, ""),
    "mAP, subtle": ("ap", MACRO, IOU, "subtle"),
    "sensitivity, 1 FP a slice": ("sensitivity", MICRO, IOU, "1 FP per series"),
}
"""As a reader sees it -> name, label, IoU and group of a measure of boxes on slices."""


def slice_truths(store: SampleStore) -> tuple[TruthSeries, ...]:
    """Every slice as a series of one slice; slices of one series are drawn again together."""
    truths = []
    for index in range(len(store)):
        sample = store[index]
        lesions = tuple(
            TruthLesion(
                label=label,
                box_zyx=_box((y - h / 2, x - w / 2), (y + h / 2, x + w / 2)),
                subtle=bool(subtle),
            )
            for label, (x, y, w, h), subtle in zip(
                sample.labels, sample.boxes_m4.tolist(), sample.subtle_m, strict=True
            )
        )
        truths.append(
            TruthSeries(series_key=str(index), lesions=lesions, cluster_key=str(sample.series))
        )
    return tuple(truths)


def _box(lower_yx: tuple[float, float], upper_yx: tuple[float, float]) -> Box:
    return Box(lower_zyx=(0.0, *lower_yx), upper_zyx=(1.0, *upper_yx))


def _claimed(done: ArmRun, slices: int) -> tuple[ClaimSeries, ...]:
    of_slice: list[list[Claim]] = [[] for _ in range(slices)]
    for c in done.claims:
        box = _box(c.lower_yx, c.upper_yx)
        of_slice[c.slice].append(Claim(label=c.label, box_zyx=box, score=c.score))
    return tuple(ClaimSeries(series_key=str(i), claims=tuple(s)) for i, s in enumerate(of_slice))


def measure(
    store: SampleStore, runs: Mapping[str, Sequence[ArmRun]], config: AblationConfig
) -> AblationResult:
    """Measures of every run and the differences of the arms' means to the base."""
    truths = slice_truths(store)
    claims = {k: [_claimed(r, len(store)) for r in own] for k, own in runs.items()}
    arms = []
    for arm in ARMS:
        own = runs[arm.slug]
        arms.append(
            ArmResult(
                arm=arm,
                parameters=own[0].parameters,
                seconds=sum(r.seconds for r in own) / len(own),
                runs=_values(truths, claims[arm.slug]),
                differences={}
                if arm == ARMS[0]
                else _differences(truths, claims[ARMS[0].slug], claims[arm.slug], config.bootstrap),
            )
        )
    return AblationResult(
        budget=config,
        slices=len(truths),
        series=len({truth.cluster_key for truth in truths}),
        lesions=sum(len(truth.lesions) for truth in truths),
        arms=tuple(arms),
        machine=machine(),
    )


def _values(
    truths: Sequence[TruthSeries], runs: Sequence[Sequence[ClaimSeries]]
) -> dict[str, tuple[float, ...]]:
    config = EVALUATION.model_copy(update={"bootstrap": 0, "labels": _labels(truths)})
    found = [
        {(m.name, m.label, m.iou, m.group): m.value or 0.0 for m in evaluation.measures}
        for evaluation in (evaluate_detection(truths, claims, config) for claims in runs)
    ]
    return {
        shown: tuple(values[key] for values in found)
        for shown, key in MEASURES.items()
        if all(key in values for values in found)
    }


def _differences(
    truths: Sequence[TruthSeries],
    base: Sequence[Sequence[ClaimSeries]],
    arm: Sequence[Sequence[ClaimSeries]],
    bootstrap: int,
) -> dict[str, Difference]:
    config = EVALUATION.model_copy(update={"bootstrap": bootstrap, "labels": _labels(truths)})
    differences = compare_detection(truths, base, arm, config)
    known = {(d.name, d.label, d.iou, d.group): d for d in differences if d.level == "box"}
    return {shown: known[key] for shown, key in MEASURES.items() if key in known}


def _labels(truths: Sequence[TruthSeries]) -> tuple[str, ...]:
    return tuple(sorted({lesion.label for truth in truths for lesion in truth.lesions}))


def figure_arms(result: AblationResult) -> tuple[AblationArm, ...]:
    """The arms as the figure takes them: means, single runs, gains with intervals."""
    return tuple(
        AblationArm(
            name=arm.arm.name,
            measures={name: Interval(value=_mean(values)) for name, values in arm.runs.items()},
            runs=arm.runs,
            gains={
                name: Interval(value=d.difference or 0.0, low=d.low, high=d.high)
                for name, d in arm.differences.items()
            },
        )
        for arm in result.arms
    )


def ablation_markdown(result: AblationResult) -> str:
    """Two tables: what every arm reaches, and how it differs from the base."""
    names = list(result.arms[0].runs)
    budget = result.budget
    started = ", from one trained encoder" if budget.start else ""
    reached = [
        [a.arm.name, f"{a.parameters:,}", f"{a.seconds:.0f}", *(_spread(a.runs[n]) for n in names)]
        for a in result.arms
    ]
    gained = [
        [a.arm.name, *(_gain(a.differences[n]) for n in names)]
        for a in result.arms
        if a.differences
    ]
    parts = (
        "# Ablation",
        f"{len(budget.seeds)} runs an arm, {budget.steps} steps of {budget.batch_slices} slices "
        f"each, the same data, order and schedule{started}. Measured on {result.slices} slices of "
        f"{result.series} held-out series with {result.lesions} boxes.",
        "Mean over the runs; in brackets the lowest and the highest run.",
        _table(["arm", "parameters", "s a run", *names], reached),
        f"Difference to {ARMS[0].name}; in brackets the {EVALUATION.interval:.0%} interval of a "
        f"paired bootstrap over series ({budget.bootstrap} resamples), which does not cover "
        "the randomness of training.",
        _table(["arm", *names], gained),
    )
    return "\n\n".join(parts) + "\n"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spread(values: Sequence[float]) -> str:
    return f"{_mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _gain(difference: Difference) -> str:
    value = f"{difference.difference or 0.0:+.3f}"
    if difference.low is None or difference.high is None:
        return value
    return f"{value} ({difference.low:+.3f} to {difference.high:+.3f})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
