"""Terminology: text <-> concept, both ways, for prompts, grammars, verification and metrics.

In: a concept (label, side, level, attribute, number) or a sentence. Out: its words, or the facts
that the sentence states: findings with negation and doubt, sides, levels, sizes in mm, HU.
Does not know: prompts, engines, reports.

The names come from the knowledge graph. Reading takes every synonym of the graph; writing only
those that mean exactly the same, because a synonym in a graph is often a narrower diagnosis.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import KnowledgeGraph, load_graph

SIDES = ("left", "right", "midline")

_WRITTEN: dict[str, tuple[str, ...]] = {
    # label -> singular names that a report may use for it, the best first
    "pulmonary_nodule": ("pulmonary nodule", "lung nodule"),
    "lung_mass": ("lung mass", "pulmonary mass"),
    "liver_cyst": ("liver cyst", "hepatic cyst"),
    "liver_mass": ("liver mass", "hepatic mass"),
    "kidney_stone": ("kidney stone", "renal calculus"),
    "gallstone": ("gallstone", "gallbladder calculus"),
    "lymph_node_enlargement": ("enlarged lymph node",),
}
_PLURALS = {"renal calculus": "renal calculi", "gallbladder calculus": "gallbladder calculi"}

_ADJECTIVES: dict[tuple[str, str], str] = {
    ("density", "gas"): "gas-containing",
    ("density", "fat"): "fat-attenuation",
    ("density", "ground_glass"): "ground-glass",
    ("density", "part_solid"): "part-solid",
    ("density", "fluid"): "fluid-attenuation",
    ("density", "hypodense"): "hypodense",
    ("density", "soft_tissue"): "soft-tissue",
    ("density", "hyperdense"): "hyperdense",
    ("density", "calcified"): "calcified",
    ("margin", "smooth"): "smoothly marginated",
    ("margin", "lobulated"): "lobulated",
    ("margin", "irregular"): "irregularly marginated",
    ("margin", "spiculated"): "spiculated",
    ("margin", "ill_defined"): "ill-defined",
    ("shape", "round"): "round",
    ("shape", "oval"): "oval",
    ("shape", "irregular"): "irregularly shaped",
    ("shape", "crescent"): "crescentic",
    ("shape", "lentiform"): "lentiform",
    ("shape", "layering"): "layering",
    ("shape", "wedge"): "wedge-shaped",
    ("shape", "linear"): "linear",
    ("severity", "mild"): "mild",
    ("severity", "moderate"): "moderate",
    ("severity", "severe"): "severe",
}
_MASS_ENDINGS = (
    *("osis", "itis", "asis", "megaly", "edema", "oedema", "thorax", "peritoneum", "ectasis"),
    *("dilatation", "thickening", "enlargement", "failure", "opacification", "calcification"),
)
_SPELLINGS = (("haem", "hem"), ("oed", "ed"), ("oesoph", "esoph"), ("tumour", "tumor"))

_NEGATION = re.compile(r"\b(no|not|without|absence of|free of|negative for|neither|nor)\b", re.I)
_DOUBT = re.compile(
    r"\b(possible|possibly|probable|probably|likely|suspected|suspicious|may|might|cannot be "
    r"excluded|questionable|suggest\w*|concerning)\b",
    re.I,
)
_CLAUSE_END = re.compile(r"[;:]|\b(?:but|however|although)\b", re.I)
_NUMBER = r"\d+(?:\.\d+)?"
_SIZE = re.compile(
    rf"(?<![\w.-])({_NUMBER}(?:\s*[x\u00d7]\s*{_NUMBER}){{0,2}})[\s-]*(mm|cm|millimet|centimet)",
    re.I,
)
_HU = re.compile(rf"(?<![\w.])([-\u2212]?{_NUMBER})\s*HU\b", re.I)
_SIDE = re.compile(r"\b(left|right|midline|bilateral|both)\b", re.I)
_VERTEBRA = re.compile(r"(?:C[1-7]|T(?:[1-9]|1[0-2])|L[1-5]|S[1-5])")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,59}")


@dataclass(frozen=True)
class Mention:
    """A finding that a sentence names.

    Args:
        label: key of the finding.
        start: first character in the sentence.
        end: one past the last.
        negated: whether the sentence denies it.
        uncertain: whether the sentence doubts it.
    """

    label: str
    start: int
    end: int
    negated: bool = False
    uncertain: bool = False


@dataclass(frozen=True)
class Statement:
    """All that one sentence states.

    Args:
        mentions: findings, in order of the text.
        sides: of left, right, midline; both for "bilateral".
        levels: names of anatomical levels.
        sizes_mm: largest number of each size, in mm.
        hu: every number followed by HU.
        attributes: attribute -> values named.
    """

    mentions: tuple[Mention, ...]
    sides: frozenset[str]
    levels: frozenset[str]
    sizes_mm: tuple[float, ...]
    hu: tuple[float, ...]
    attributes: Mapping[str, frozenset[str]]

    def labels(self, *, negated: bool = False) -> frozenset[str]:
        """Labels that are claimed, or those that are denied."""
        return frozenset(m.label for m in self.mentions if m.negated == negated)


@dataclass(frozen=True)
class Term:
    """The words of one finding: what a report writes, and every name that is read as it.

    Args:
        label: key of the finding.
        written: singular names, the best first.
        plurals: plural of each written name.
        countable: whether it takes an article.
        read: every name, singular and plural.
    """

    label: str
    written: tuple[str, ...]
    plurals: tuple[str, ...]
    countable: bool
    read: frozenset[str] = field(repr=False)


class Terminology:
    """The terms of one language.

    Args:
        terms: label -> term.
        levels: level names that text may hold, beside vertebrae.
    """

    def __init__(self, terms: Mapping[str, Term], levels: Iterable[str] = ()) -> None:
        self.terms = dict(terms)
        self.levels = frozenset(levels)

    @classmethod
    def of_graph(cls, graph: KnowledgeGraph) -> "Terminology":
        """The terms of a knowledge graph."""
        levels = {level for organ in graph.anatomy.values() for level in organ.levels}
        terms = {
            key: _term(key, node.name, node.plural, node.synonyms)
            for key, node in graph.findings.items()
        }
        return cls(terms, levels)

    def term(self, label: str) -> Term:
        """The words of a label; ConfigError where there are none."""
        if label not in self.terms:
            raise ConfigError(f"terminology: no finding {label!r}; add it to the knowledge graph")
        return self.terms[label]

    def knows_level(self, level: str) -> bool:
        """Whether a level is of the closed vocabulary."""
        return level in self.levels or _VERTEBRA.fullmatch(level) is not None

    def read(self, sentence: str) -> Statement:
        """The facts that a sentence states."""
        mentions = tuple(self._mentions(sentence))
        rest = sentence  # names may hold words such as "ground-glass" or "midline"
        for mention in mentions:
            rest = (
                f"{rest[: mention.start]}{'_' * (mention.end - mention.start)}{rest[mention.end :]}"
            )
        attributes: dict[str, set[str]] = {}
        for match in _ADJECTIVE.finditer(rest):
            name, value = _VALUE_OF_ADJECTIVE[match.group().lower()]
            attributes.setdefault(name, set()).add(value)
        sides = {match.group(1).lower() for match in _SIDE.finditer(rest)}
        if sides & {"bilateral", "both"}:
            sides = (sides - {"bilateral", "both"}) | {"left", "right"}
        return Statement(
            mentions=mentions,
            sides=frozenset(sides),
            levels=frozenset(match.group() for match in self._levels.finditer(sentence)),
            sizes_mm=tuple(_size_mm(match) for match in _SIZE.finditer(sentence)),
            hu=tuple(float(m.group(1).replace("\u2212", "-")) for m in _HU.finditer(sentence)),
            attributes={name: frozenset(values) for name, values in attributes.items()},
        )

    def _mentions(self, sentence: str) -> Iterable[Mention]:
        for match in self._names.finditer(sentence):
            clause = 0
            for end in _CLAUSE_END.finditer(sentence, 0, match.start()):
                clause = end.end()
            before = sentence[clause : match.start()]
            yield Mention(
                label=self._label_of_name[match.group().lower()],
                start=match.start(),
                end=match.end(),
                negated=_NEGATION.search(before) is not None,
                uncertain=_DOUBT.search(sentence) is not None,
            )

    @cached_property
    def _label_of_name(self) -> dict[str, str]:
        # where two findings share a name, the one that has it as its own name wins
        names: dict[str, str] = {}
        for term in self.terms.values():
            names.update({name.lower(): term.label for name in term.read if name not in names})
        for term in self.terms.values():
            names.update({name.lower(): term.label for name in (*term.written, *term.plurals)})
        return names

    @cached_property
    def _names(self) -> re.Pattern[str]:
        return _any_of(self._label_of_name)

    @cached_property
    def _levels(self) -> re.Pattern[str]:
        words = "|".join(re.escape(level) for level in sorted(self.levels, key=len, reverse=True))
        return re.compile(rf"\b(?:{words}{'|' if words else ''}{_VERTEBRA.pattern})\b")


@cache
def load_terminology() -> Terminology:
    """The terms of the packaged knowledge graph."""
    return Terminology.of_graph(load_graph())


def adjective(attribute: str, value: str) -> str | None:
    """What a report writes for an attribute's value; None where it has no words for it."""
    return _ADJECTIVES.get((attribute, value))


def size_text(size_mm: float) -> str:
    """A length as reports write it: whole mm from 10 mm on, one decimal below."""
    rounded = f"{size_mm:.0f}" if round(size_mm, 1) >= 10 else f"{size_mm:.1f}".removesuffix(".0")
    return f"{rounded} mm"


def hu_text(hu: float) -> str:
    """A mean attenuation as reports write it; no negative zero."""
    return f"{round(hu) + 0} HU"


def article(words: str) -> str:
    """ "a" or "an", by how the first word sounds."""
    number = re.match(r"\d+", words)
    if number:
        value = number.group()
        return "an" if value in ("11", "18") or value.startswith("8") else "a"
    return "an" if words[:1].lower() in "aeiou" and not words.lower().startswith("u") else "a"


def joined(names: Iterable[str], last: str = "or") -> str:
    """ "a, b or c"."""
    items = list(names)
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {last} {items[-1]}"


def _term(label: str, name: str, plural: str, synonyms: Iterable[str]) -> Term:
    if not _KEY.fullmatch(label):
        raise ConfigError(f"terminology: {label[:20]!r} is no key of a finding")
    written = _WRITTEN.get(label, (name,))
    plurals = tuple(_PLURALS.get(n, plural if n == name else f"{_plural(n)}") for n in written)
    if label == "lymph_node_enlargement":
        plurals = (plural,)
    read = {name, plural, *written, *plurals, *synonyms, *(_plural(s) for s in synonyms)}
    return Term(
        label=label,
        written=written,
        plurals=plurals,
        countable=written[0] != name or (plural != name and not name.endswith(_MASS_ENDINGS)),
        read=frozenset(variant for n in read for variant in _spellings(n)),
    )


def _plural(name: str) -> str:
    if name.endswith(("s", "x", "ss", "sh", "ch")):
        return name if name.endswith("is") else f"{name}es"
    return f"{name[:-1]}ies" if re.search(r"[^aeiou]y$", name) else f"{name}s"


def _spellings(name: str) -> set[str]:
    american = name
    for british, other in _SPELLINGS:
        american = american.replace(british, other)
    return {name, american, name.replace("-", " "), american.replace("-", " ")}


def _size_mm(match: re.Match[str]) -> float:
    largest = max(float(number) for number in re.findall(_NUMBER, match.group(1)))
    return largest * (10.0 if match.group(2).lower().startswith("c") else 1.0)


def _any_of(words: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest_first))})(?![\w-])", re.I)


_VALUE_OF_ADJECTIVE = {
    **{words: key for key, words in _ADJECTIVES.items()},
    **{
        f"{value.replace('_', '-')} margins": ("margin", value)
        for name, value in _ADJECTIVES
        if name == "margin"
    },
}
_ADJECTIVE = _any_of(_VALUE_OF_ADJECTIVE)


def is_length(size_mm: float) -> bool:
    """Whether a number can be the size of something in a body."""
    return math.isfinite(size_mm) and 0.05 <= size_mm <= 2500.0
