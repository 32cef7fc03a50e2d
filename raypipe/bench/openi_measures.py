"""What texts on chest radiographs invent and leave out, against the index terms they are made from.

In: texts, examinations. Out: rates with intervals, by two readers that do not know of each other.
Does not know: who wrote the texts.

Intervals are bootstrapped over examinations. A rate of 0 has none that way; its upper end is then
the exact bound for as many independent claims, one-sided (Clopper & Pearson 1934).

The first reader knows radiographs (openi_terms.yaml); the library that constrains texts uses it
too. The second is raypipe's terminology of CT, which nothing that writes here uses: a claim of a
finding of its graph is invented where no index term is read as, or stands for, this finding, one
that it is a kind of, or one that is a kind of it.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from pydantic import Field

from raypipe.bench.openi_data import Study, split_sentences
from raypipe.bench.openi_reader import RadiographReader, radiograph_language
from raypipe.evaluate.bootstrap import FloatArray, percentile_interval, resamples
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import Terminology
from raypipe.settings import Settings

_COVERAGE = 0.95


class Rate(Settings):
    """A share with its interval."""

    above: int
    below: int
    value: float | None = Field(description="null where below is 0")
    low: float | None
    high: float | None

    def shown(self) -> str:
        """As a reader sees it."""
        if self.value is None:
            return "n/a"
        if self.low is None or self.high is None:
            return f"{self.value:.2%}"
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"


class AgainstTags(Settings):
    """How one system's texts agree with the index terms."""

    invented: Rate = Field(description="of claimed findings, those that no index term names")
    omitted: Rate = Field(description="of index terms, those that the text does not tell")
    invented_by_ct_terms: Rate = Field(description="as invented, by the CT terminology")


def against_tags(
    texts: Sequence[str], studies: Sequence[Study], reader: RadiographReader, bootstrap: int
) -> AgainstTags:
    """Rates over all texts, with 95 % intervals over examinations."""
    own = [reader.tally(text, s.tags) for text, s in zip(texts, studies, strict=True)]
    second = [ct_claims(text, s.tags, reader) for text, s in zip(texts, studies, strict=True)]
    counts = np.array([[*a, *b] for a, b in zip(own, second, strict=True)], dtype=np.float64)
    draws = list(resamples([study.uid for study in studies], bootstrap, seed=0))
    return AgainstTags(
        invented=_rate(counts[:, 1], counts[:, 0], draws),
        omitted=_rate(counts[:, 3], counts[:, 2], draws),
        invented_by_ct_terms=_rate(counts[:, 5], counts[:, 4], draws),
    )


def ct_claims(text: str, tags: Sequence[str], reader: RadiographReader) -> tuple[int, int]:
    """Findings that a text claims by the CT terminology, and how many no index term admits."""
    terminology, graph = _ct_terms(), load_graph()
    named = {key for label in reader.labels_of(tags) for key in reader.graph_keys(label)}
    for tag in tags:
        named |= terminology.read(tag.replace("/", " ").replace(",", "")).labels()
    told: set[str] = set()
    for sentence in split_sentences(text):
        told |= terminology.read(sentence).labels()
    above = {parent for key in named for parent in graph.ancestors(key)}
    invented = [
        key for key in told if key not in named | above and not named & set(graph.ancestors(key))
    ]
    return len(told), len(invented)


@cache
def _ct_terms() -> Terminology:
    """The CT graph's terms, with what denies a finding on radiographs."""
    return Terminology.of_graph(load_graph(), radiograph_language())


def _rate(
    above: FloatArray,
    below: FloatArray,
    draws: Sequence[FloatArray],
) -> Rate:
    values = [float(w @ above / (w @ below)) for w in draws if w @ below > 0]
    low, high = percentile_interval(values, _COVERAGE) if values else (None, None)
    total = below.sum()
    if values and not above.any():
        high = 1.0 - (1.0 - _COVERAGE) ** (1.0 / float(total))
    return Rate(
        above=int(above.sum()),
        below=int(total),
        value=float(above.sum() / total) if total else None,
        low=low,
        high=high,
    )
