"""Reads what text on chest radiographs claims and denies, and what index terms admit.

In: text, index terms, the packaged openi_terms.yaml. Out: findings claimed and denied; whether a
sentence claims nothing but what the index terms name. Does not know: where text comes from.

Negation, doubt and sides are read by raypipe's terminology. A name that several findings share
("calcified") claims any one of them, so it is true where the index terms name one.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from itertools import product

import yaml
from pydantic import Field

from raypipe.bench.openi_data import NORMAL, split_sentences
from raypipe.evaluate.facts import ReportFacts, Told
from raypipe.evaluate.text_scores import words
from raypipe.knowledge.language import Language, load_language
from raypipe.knowledge.terminology import Term, Terminology
from raypipe.settings import Settings

Labels = frozenset[str]
_REMEMBERED = 1 << 15
_CHOICE = re.compile(r"\{([^{}]*)\}")
_QUALIFIERS: Mapping[str, tuple[str, ...]] = {
    "left": ("left", "bilateral", "lingula"),
    "right": ("right", "bilateral", "middle lobe"),
    "bilateral": ("bilateral",),
    "bilaterally": ("bilateral",),
    "both": ("bilateral",),
    "bibasilar": ("base",),
    "biapical": ("apex",),
    "base": ("base", "lower lobe"),
    "bases": ("base", "lower lobe"),
    "basilar": ("base", "lower lobe"),
    "apex": ("apex",),
    "apical": ("apex",),
    "upper": ("upper lobe", "apex"),
    "lower": ("lower lobe", "base"),
    "middle": ("middle lobe",),
    "lingula": ("lingula",),
    "lingular": ("lingula",),
    "retrocardiac": ("retrocardiac",),
    "perihilar": ("hilum",),
    "mild": ("mild", "borderline", "small"),
    "mildly": ("mild", "borderline", "small"),
    "moderate": ("moderate",),
    "moderately": ("moderate",),
    "severe": ("severe", "large"),
    "markedly": ("severe", "large"),
    "large": ("large", "severe"),
    "small": ("small", "mild"),
    "borderline": ("borderline", "mild"),
}
"""A word beside a claim -> the qualifiers of which the index term has to have one."""


class RadiographTerm(Settings):
    """The words of one finding of radiographs."""

    tags: tuple[str, ...] = Field(description="beginnings of index terms; */q asks for a qualifier")
    also: tuple[str, ...] = Field(default=(), description="terms that reports may word so too")
    names: tuple[str, ...] = Field(description="words of a report; {a|b} stands for either")
    denials: tuple[str, ...] = Field(default=(), description="regular expressions")
    graph: tuple[str, ...] = Field(default=(), description="the same in the CT knowledge graph")

    def is_named_by(self, tag: str) -> bool:
        """Whether an index term means the finding."""
        return any(_begins(tag, wanted) for wanted in self.tags)

    def may_word(self, tag: str) -> bool:
        """Whether a report may word an index term so."""
        return self.is_named_by(tag) or any(_begins(tag, wanted) for wanted in self.also)


def _begins(tag: str, wanted: str) -> bool:
    head, star, qualifier = wanted.partition("/*")
    if star:
        return tag.startswith(head) and qualifier in tag
    return tag.startswith(wanted)


@dataclass(frozen=True)
class Claims:
    """What a sentence says.

    Args:
        claimed: for each name the findings that it may mean.
        denied: findings that it says are not there.
        doubts: whether it weighs what something may be.
    """

    claimed: frozenset[Labels]
    denied: Labels
    doubts: bool


class RadiographReader:
    """Reads chest radiograph reports.

    Args:
        terms: finding -> its words.
    """

    def __init__(self, terms: Mapping[str, RadiographTerm]) -> None:
        self._terms = dict(terms)
        labels: dict[str, list[str]] = defaultdict(list)
        for label, term in terms.items():
            for name in dict.fromkeys(each for raw in term.names for each in expanded(raw)):
                labels[name.lower()].append(label)
        self._labels_of_name = _telling({name: tuple(found) for name, found in labels.items()})
        self._terminology = Terminology(
            {name: _term(name) for name in self._labels_of_name}, radiograph_language()
        )
        self._denials = {
            label: re.compile("|".join(term.denials), re.I)
            for label, term in terms.items()
            if term.denials
        }
        self.read = lru_cache(_REMEMBERED)(self._read)
        self.of_tag = cache(self._labels_of_tag)

    def _read(self, sentence: str) -> Claims:
        """What one sentence claims and denies."""
        stated = self._terminology.read(sentence)
        claimed = frozenset(frozenset(self._labels_of_name[name]) for name in stated.labels())
        denied = {
            label for name in stated.labels(negated=True) for label in self._labels_of_name[name]
        }
        denied |= {label for label, found in self._denials.items() if found.search(sentence)}
        certain = frozenset(denied) - {one for each in claimed for one in each}
        return Claims(claimed, certain, stated.doubts)

    def labels_of(self, tags: Iterable[str]) -> Labels:
        """The findings that index terms may name."""
        return frozenset(label for tag in tags for label in self.of_tag(tag))

    def _labels_of_tag(self, tag: str) -> Labels:
        return frozenset(label for label, term in self._terms.items() if term.may_word(tag))

    def meant_by(self, tags: Iterable[str]) -> Labels:
        """The findings that index terms mean, which no true text denies."""
        named = [tag for tag in tags if tag != NORMAL]
        terms = self._terms.items()
        return frozenset(n for n, term in terms if any(map(term.is_named_by, named)))

    def graph_keys(self, label: str) -> tuple[str, ...]:
        """Keys of a finding in the CT knowledge graph."""
        return self._terms[label].graph

    def facts(self, text: str) -> ReportFacts:
        """The facts of a text, each name under the first finding that it may mean; no sides."""
        claims = [self.read(sentence) for sentence in split_sentences(text)]
        told = {self._first(each) for one in claims for each in one.claimed}
        denied = frozenset(label for one in claims for label in one.denied)
        return ReportFacts({label: Told() for label in told}, denied - told)

    def _first(self, labels: Labels) -> str:
        return next(label for label in self._terms if label in labels)

    def tally(self, text: str, tags: Iterable[str]) -> tuple[int, int, int, int]:
        """Claims of a text, those that no index term names; index terms, those not told."""
        named = [labels for tag in tags if (labels := self.of_tag(tag))]
        told = {each for sentence in split_sentences(text) for each in self.read(sentence).claimed}
        admitted = frozenset(label for labels in named for label in labels)
        claimed = {frozenset({self._first(each & admitted or each)}) for each in told}
        invented = sum(not each & admitted for each in claimed)
        spoken = frozenset(label for each in told for label in each)
        return len(claimed), invented, len(named), sum(not labels & spoken for labels in named)


def qualifiers_fit(sentence: str, tags: Iterable[str]) -> bool:
    """Whether sides, places and grades of a sentence are those of an index term."""
    known = {part for tag in tags for part in tag.split("/")[1:]}
    return all(
        known.intersection(_QUALIFIERS[word]) for word in words(sentence) if word in _QUALIFIERS
    )


@cache
def load_reader() -> RadiographReader:
    """The reader of the packaged terms."""
    file = resources.files("raypipe.bench") / "openi_terms.yaml"
    raw = yaml.safe_load(file.read_text(encoding="utf-8"))
    return RadiographReader({k: RadiographTerm.model_validate(v) for k, v in raw.items()})


def radiograph_language() -> Language:
    """English, with what denies a finding on radiographs."""
    language = load_language("en")
    denies = (*language.reading.negation_before, "clear of", "resolution of")
    reading = language.reading.model_copy(update={"negation_before": denies})
    return language.model_copy(update={"reading": reading})


def expanded(pattern: str) -> list[str]:
    """Every text of a pattern whose braces hold alternatives."""
    parts = _CHOICE.split(pattern)
    choices = [part.split("|") if i % 2 else [part] for i, part in enumerate(parts)]
    return [" ".join("".join(chosen).split()) for chosen in product(*choices)]


def _telling(labels: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """The names that say more than a part of theirs does: "calcified nodule", not "the nodule"."""
    kept = {}
    for name, found in labels.items():
        parts = name.split()
        spans = ((i, j) for i in range(len(parts)) for j in range(i + 1, len(parts) + 1))
        shorter = (" ".join(parts[i:j]) for i, j in spans if j - i < len(parts))
        if all(labels.get(part) != found for part in shorter):
            kept[name] = found
    return kept


def _term(name: str) -> Term:
    return Term(
        label=name, written=(name,), plurals=(name,), countable=True, read=frozenset({name})
    )
