"""One number of an evaluation: what it is called and how it is kept.

In: names and numbers. Out: keys to compute under, records to store.
Does not know: how a measure is computed.
"""

from typing import Literal, NamedTuple

from pydantic import Field

from raypipe.settings import Settings

Level = Literal["box", "image", "box_calibration", "image_calibration"]
MICRO = "(all)"
"""In place of a label: claims or decisions of all labels pooled."""
MACRO = "(macro)"
"""In place of a label: mean over the labels that have a positive."""

NOTHING = "(nothing)"
"""In a confusion: no lesion (claimed on nothing), or no claim (missed)."""


class Key(NamedTuple):
    """Which number it is.

    Args:
        level: boxes, series as a whole, or the calibration of one of them.
        name: "ap", "recall", "auc_roc", ...
        label: a label, MICRO or MACRO.
        iou: IoU of a hit, 0 where boxes play no part.
        group: which lesions or which operating point, "" for all.
    """

    level: Level
    name: str
    label: str
    iou: float = 0.0
    group: str = ""


class Value(NamedTuple):
    """A number and how many positives (lesions, series, claims) it rests on."""

    value: float
    support: float


Values = dict[Key, Value]


class Measure(Settings):
    """One measure with its interval."""

    level: Level
    name: str = Field(description="what is measured; all but counts lie between 0 and 1")
    label: str = Field(description=f"a label, {MICRO} or {MACRO}")
    iou: float | None = Field(description="IoU of a hit; null where boxes play no part")
    group: str = Field(description="which lesions or operating point; empty for all")
    value: float | None = Field(description="null where there is nothing to measure")
    low: float | None = Field(description="lower end of the interval; null without one")
    high: float | None = Field(description="upper end of the interval; null without one")
    support: int = Field(description="positives that it rests on: lesions, series or claims")

    @property
    def key(self) -> Key:
        """The key that it was computed under."""
        return Key(self.level, self.name, self.label, self.iou or 0.0, self.group)

    def shown(self) -> str:
        """The value with its interval, as a reader sees it."""
        if self.value is None:
            return "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


class StoredCurve(Settings):
    """Points of one curve, by falling threshold."""

    kind: Literal["roc", "pr", "froc"]
    level: Level
    label: str
    iou: float | None = Field(description="IoU of a hit; null at image level")
    x: tuple[float, ...] = Field(
        description="roc: false positive rate; pr: recall; froc: false positives per series"
    )
    y: tuple[float, ...] = Field(description="roc, froc: sensitivity; pr: precision")
    threshold: tuple[float | None, ...] = Field(description="score; null before the first claim")


class ReliabilityBin(Settings):
    """One bin of predicted probability."""

    level: Level
    low: float
    high: float
    mean_probability: float
    observed: float = Field(description="share that is true")
    count: int


class Confusion(Settings):
    """Counts of series or lesions: rows are the truth, columns what was claimed."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    def only_used(self) -> "Confusion":
        """Without the labels that neither side names."""
        used = [
            i
            for i, row in enumerate(self.counts)
            if any(row) or any(other[i] for other in self.counts)
        ]
        return Confusion(
            labels=tuple(self.labels[i] for i in used),
            counts=tuple(tuple(self.counts[i][j] for j in used) for i in used),
        )
