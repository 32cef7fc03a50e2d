"""How good reports are: words against references, facts against the truth, systems side by side.

In: texts of any number of systems on the same reports, reference texts, or known facts of each.
Out: a TextEvaluation: every measure of every system with its interval, and the difference to the
first system on the same draws of reports.
Does not know: files, tables, figures, who wrote the texts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from raypipe.errors import ConfigError
from raypipe.evaluate.bootstrap import percentile_interval, resamples
from raypipe.evaluate.facts import COUNTS, RATES, ReportFacts, compare_facts
from raypipe.evaluate.text_scores import text_scores
from raypipe.settings import Settings

FloatArray = NDArray[np.float64]
Measured = Callable[[FloatArray], dict[str, float]]
ReadFacts = Callable[[str], ReportFacts]

WORD_MEASURES = ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "meteor", "cider")
FACT_SCORES = ("fact_precision", "fact_recall", "fact_f1", "finding_f1")
FACT_ERRORS = tuple(name for name in RATES if name.endswith(("_rate", "_reports")))
LOWER_IS_BETTER = frozenset(FACT_ERRORS)
_RESTS_ON = {name: below for name, (_, below) in RATES.items()} | {
    "fact_f1": "known",
    "finding_f1": "present",
}


class TextEvaluationConfig(Settings):
    """How texts are compared and intervals made."""

    size_tolerance_mm: float = Field(
        default=1.0, ge=0, description="Sizes that differ by no more are the same size, in mm."
    )
    bootstrap: int = Field(default=1000, ge=0, description="Resamples of reports; 0: no intervals.")
    interval: float = Field(default=0.95, gt=0, lt=1, description="Coverage of the intervals.")
    seed: int = Field(default=0, ge=0, description="Of the resampling.")


class TextMeasure(Settings):
    """One measure of one system."""

    system: str
    name: str = Field(description="bleu_4, fact_f1, hallucination_rate, ...")
    value: float | None = Field(description="null where there is nothing to measure")
    low: float | None = Field(description="lower end of the interval; null without one")
    high: float | None = Field(description="upper end of the interval; null without one")
    difference: float | None = Field(description="to the first system; null for that one")
    difference_low: float | None
    difference_high: float | None
    support: int = Field(description="reports, or the facts that a rate divides by")

    def shown(self, digits: int = 3) -> str:
        """The value with its interval, as a reader sees it."""
        if self.value is None:
            return "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


class TextEvaluation(Settings):
    """Everything that was measured."""

    config: TextEvaluationConfig
    systems: tuple[str, ...]
    reports: int
    truth: str = Field(description="what the facts are compared with, in words")
    measures: tuple[TextMeasure, ...]
    counts: dict[str, dict[str, int]] = Field(description="system -> count of facts -> number")

    def measure(self, system: str, name: str) -> TextMeasure:
        """One measure; KeyError where it was not made."""
        for each in self.measures:
            if (each.system, each.name) == (system, name):
                return each
        raise KeyError(f"no measure {name} of {system}")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the measures, in order."""
        return tuple(dict.fromkeys(measure.name for measure in self.measures))


@dataclass(frozen=True, kw_only=True)
class ReportSet:
    """The reports that every system wrote.

    Args:
        keys: of the reports.
        systems: name -> texts, one a key, the same order.
        references: one a key; None: no measures of words.
        facts: what is true, one a key; None: what the references state.
    """

    keys: tuple[str, ...]
    systems: Mapping[str, Sequence[str]]
    references: Sequence[str] | None = None
    facts: Sequence[ReportFacts] | None = None

    def __post_init__(self) -> None:
        if not self.keys or not self.systems:
            raise ConfigError("evaluation of reports: needs at least one report of one system")
        if self.references is None and self.facts is None:
            raise ConfigError(
                "evaluation of reports: there is no truth; give --references, or the results of a "
                "run, whose findings are the truth"
            )
        for name, texts in (*self.systems.items(), ("references", self.references)):
            if texts is not None and len(texts) != len(self.keys):
                raise ValueError(f"ReportSet: {name} has {len(texts)} texts, not {len(self.keys)}")


def evaluate_texts(
    reports: ReportSet, read: ReadFacts, config: TextEvaluationConfig | None = None
) -> TextEvaluation:
    """Measure every system.

    Args:
        reports: texts and truth.
        read: the facts of a text.
        config: tolerance of sizes, resampling.
    """
    config = config or TextEvaluationConfig()
    truths = reports.facts
    if truths is None:
        assert reports.references is not None, "a ReportSet has a truth"
        truths = [read(text) for text in reports.references]
    counts = {
        name: np.array(
            [
                compare_facts(read(text), truth, config.size_tolerance_mm).row()
                for text, truth in zip(texts, truths, strict=True)
            ],
            dtype=np.float64,
        )
        for name, texts in reports.systems.items()
    }
    measured = {
        name: _all_measures(reports.references, texts, counts[name])
        for name, texts in reports.systems.items()
    }
    totals = {
        name: {c: int(n) for c, n in zip(COUNTS, each.sum(axis=0), strict=True)}
        for name, each in counts.items()
    }
    return TextEvaluation(
        config=config,
        systems=tuple(reports.systems),
        reports=len(reports.keys),
        truth="the reference texts" if reports.facts is None else "the known findings",
        measures=tuple(_measures(measured, totals, reports.keys, config)),
        counts=totals,
    )


def _all_measures(
    references: Sequence[str] | None, texts: Sequence[str], counts: FloatArray
) -> Measured:
    scores = None if references is None else text_scores(texts, references)

    def measured(weights: FloatArray) -> dict[str, float]:
        of_words = scores.measured(weights) if scores is not None else {}
        return of_words | _rates(weights @ counts)

    return measured


def _rates(summed: FloatArray) -> dict[str, float]:
    count = dict(zip(COUNTS, summed.tolist(), strict=True))
    rates = {name: _ratio(count[a], count[b]) for name, (a, b) in RATES.items()}
    right = count["claimed"] - count["invented"]
    return {
        "fact_precision": rates.pop("fact_precision"),
        "fact_recall": rates.pop("fact_recall"),
        "fact_f1": _ratio(
            count["stated_right"] + count["known_told"], count["stated"] + count["known"]
        ),
        "finding_f1": _ratio(2.0 * right, count["claimed"] + count["present"]),
        **rates,
    }


def _ratio(above: float, below: float) -> float:
    return above / below if below else float("nan")


def _measures(
    measured: Mapping[str, Measured],
    totals: Mapping[str, Mapping[str, int]],
    keys: Sequence[str],
    config: TextEvaluationConfig,
) -> list[TextMeasure]:
    once = np.ones(len(keys))
    values = {name: each(once) for name, each in measured.items()}
    drawn: dict[str, list[dict[str, float]]] = {name: [] for name in measured}
    for weights in resamples(keys, config.bootstrap, config.seed):
        for name, each in measured.items():
            drawn[name].append(each(weights))
    first = next(iter(measured))
    out = []
    for system in measured:
        for name, value in values[system].items():
            low, high = _ends([draw[name] for draw in drawn[system]], config.interval)
            difference: float | None = None
            between: tuple[float | None, float | None] = (None, None)
            if system != first:
                difference = _known(value - values[first][name])
                pairs = zip(drawn[system], drawn[first], strict=True)
                between = _ends([a[name] - b[name] for a, b in pairs], config.interval)
            out.append(
                TextMeasure(
                    system=system,
                    name=name,
                    value=_known(value),
                    low=low,
                    high=high,
                    difference=difference,
                    difference_low=between[0],
                    difference_high=between[1],
                    support=totals[system][_RESTS_ON.get(name, "reports")],
                )
            )
    return out


def _ends(values: Sequence[float], coverage: float) -> tuple[float | None, float | None]:
    defined = [value for value in values if not np.isnan(value)]
    return percentile_interval(defined, coverage) if defined else (None, None)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
