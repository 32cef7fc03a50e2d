"""What the runs of the prefix's ablation say: accuracies, differences, Markdown, a figure.

In: runs with their answers. Out: measures with intervals, and how they are shown.
Does not know: how arms are trained.

A question is an attribute of a finding. Intervals draw whole series again; both arms see the same
draws, and a measure is the mean over the seeds.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raypipe.bench.prefix_records import (
    PREFIX_ARM,
    TEXT_ARM,
    Answer,
    PrefixBenchConfig,
    PrefixResult,
)
from raypipe.evaluate.bootstrap import percentile_interval, resamples
from raypipe.evaluate.plot_ablation import AblationArm, Interval
from raypipe.train.prefix_text import ASKED

ALL = "all attributes"
COVERAGE = 0.95
FloatArray = NDArray[np.float64]
Measured = dict[str, float]
"""Measure -> value."""


class Scored:
    """Questions of the held-out cases in a fixed order, to be weighted by resamples.

    Args:
        answers: of any run; all runs answer the same questions.
    """

    def __init__(self, answers: Sequence[Answer]) -> None:
        told = [(i, name) for i, answer in enumerate(answers) for name in answer.truth]
        self.names = np.array([name for _, name in told])
        self.series = [answers[i].series for i, _ in told]

    def right(self, answers: Sequence[Answer]) -> FloatArray:
        """(questions,) whether each was answered right."""
        return np.array(
            [float(a.said.get(name) == value) for a in answers for name, value in a.truth.items()]
        )

    def accuracies(self, right_q: FloatArray, weights_q: FloatArray | None = None) -> Measured:
        """Measure -> share of right answers; attributes that no question asks for are left out."""
        weights = np.ones(len(right_q)) if weights_q is None else weights_q
        out = {}
        for shown in (ALL, *ASKED):
            own = weights * (1.0 if shown == ALL else self.names == shown)
            if own.sum() > 0:
                out[shown] = float((own * right_q).sum() / own.sum())
        return out

    def draws(self, count: int) -> list[FloatArray]:
        """Weights of the questions in each resample of the series."""
        return list(resamples(self.series, count, seed=0))


def measures(
    scored: Scored, runs: Mapping[str, Sequence[Sequence[Answer]]], bootstrap: int
) -> dict[str, Mapping[str, object]]:
    """Accuracy of every run, intervals of the means over seeds, and the paired difference."""
    right = {arm: [scored.right(answers) for answers in own] for arm, own in runs.items()}
    mean = {arm: np.mean(values, axis=0) for arm, values in right.items()}
    accuracy = {
        arm: _columns([scored.accuracies(one) for one in values]) for arm, values in right.items()
    }
    drawn = {
        arm: _columns([scored.accuracies(one, w) for w in scored.draws(bootstrap)])
        for arm, one in mean.items()
    }
    gain = {
        name: np.subtract(drawn[PREFIX_ARM][name], drawn[TEXT_ARM][name])
        for name in drawn[PREFIX_ARM]
    }
    plain = {arm: scored.accuracies(one) for arm, one in mean.items()}
    return {
        "accuracy": accuracy,
        "intervals": {
            arm: {name: percentile_interval(v, COVERAGE) for name, v in own.items()}
            for arm, own in drawn.items()
        },
        "difference": {
            name: (
                plain[PREFIX_ARM][name] - plain[TEXT_ARM][name],
                *percentile_interval(values.tolist(), COVERAGE),
            )
            for name, values in gain.items()
        },
    }


def _columns(rows: Sequence[Measured]) -> dict[str, tuple[float, ...]]:
    # a draw may hold no question of a rare attribute
    names = [name for name in (ALL, *ASKED) if any(name in row for row in rows)]
    return {name: tuple(row[name] for row in rows if name in row) for name in names}


def figure_arms(result: PrefixResult) -> tuple[AblationArm, ...]:
    """Both arms as the figure takes them."""
    arms = []
    for arm, runs in result.accuracy.items():
        values = {
            name: Interval(value=_mean(v), low=low, high=high)
            for name, v in runs.items()
            for low, high in (result.intervals[arm][name],)
        }
        gains = {
            name: Interval(value=d, low=low, high=high)
            for name, (d, low, high) in result.difference.items()
        }
        arms.append(
            AblationArm(
                name=arm, measures=values, runs=runs, gains=gains if arm == PREFIX_ARM else {}
            )
        )
    return tuple(arms)


def markdown(result: PrefixResult) -> str:
    """What was measured, as tables."""
    budget, names = result.budget, list(result.difference)
    rows = []
    for arm, runs in result.accuracy.items():
        rows.append([arm, *(_shown(v, result.intervals[arm][n]) for n, v in runs.items())])
    for name, values in result.reference.items():
        rows.append([name, *(f"{values[n]:.3f}" for n in names)])
    gains = [f"{d:+.3f} ({low:+.3f} to {high:+.3f})" for d, low, high in result.difference.values()]
    head = ["", *(f"{n} ({_asked(result, n)})" for n in names)]
    return "\n\n".join(
        (
            "# Visual prefix: attributes that only the image shows",
            _told(result, budget),
            "Accuracy of the attributes named in the text, mean over the seeds; in brackets the "
            f"{COVERAGE:.0%} interval over series, behind it every seed. The number beside an "
            "attribute is that of held-out questions.",
            _table(head, rows),
            f"{PREFIX_ARM} less {TEXT_ARM}, the same series drawn for both:",
            _table(names, [gains]),
            "The intervals cover the choice of series, not the randomness of training.",
        )
    ) + "\n"  # fmt: skip


def _told(result: PrefixResult, budget: PrefixBenchConfig) -> str:
    seconds = ", ".join(f"{arm} {s:.0f} s" for arm, s in result.seconds.items())
    veil = ", and names the wider kind of a finding" if budget.veiled else ""
    return (
        f"A Llama of {result.base_parameters:,} numbers, trained from scratch on texts, is frozen; "
        f"{len(budget.seeds)} runs an arm train a LoRA adapter of rank {budget.rank} for "
        f"{budget.steps} steps of {budget.batch_tokens} tokens on {budget.train.cases} generated "
        f"series with {result.train_findings} findings, one arm with the prefix in front. vLLM "
        f"writes {result.held_out_texts} texts about {result.held_out_series} held-out series with "
        f"{result.held_out_findings} findings, greedily, under a grammar that offers every value "
        "that the knowledge graph allows. "
        f"The prompt hides the attributes and the attenuation{veil}. A run took: {seconds}."
    )


def _asked(result: PrefixResult, name: str) -> int:
    return sum(result.asked.values()) if name == ALL else result.asked[name]


def _shown(values: Sequence[float], interval: tuple[float, float]) -> str:
    seeds = ", ".join(f"{value:.3f}" for value in values)
    return f"{_mean(values):.3f} ({interval[0]:.3f} to {interval[1]:.3f}); {seeds}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
