"""Terminology: text <-> concept, both ways, for prompts, grammars, verification and metrics.

In: a concept (label, side, level, attribute, number) or text. Out: its words, or the facts that
the text states: findings with negation and doubt, sides, levels, sizes in mm, HU, comparison.
Does not know: prompts, engines, reports.

Names come from the knowledge graph and the file of the language. Reading takes every synonym;
writing only those that mean exactly the same, because a synonym in a graph is often a narrower
diagnosis.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import KnowledgeGraph, load_graph
from raypipe.knowledge.language import Language, Name, load_language
from raypipe.knowledge.statement import Reader, Statement

SIDES = ("left", "right", "midline")

_MASS_ENDINGS = (
    *("osis", "itis", "asis", "megaly", "edema", "oedema", "thorax", "peritoneum", "ectasis"),
    *("dilatation", "thickening", "enlargement", "failure", "opacification", "calcification"),
)
_SPELLINGS = (
    *(("haem", "hem"), ("oed", "ed"), ("oesoph", "esoph"), ("tumour", "tumor")),
    ("dilatation", "dilation"),
)
_VERTEBRA = re.compile(r"(?:C[1-7]|T(?:[1-9]|1[0-2])|L[1-5]|S[1-5])")
_KEY = re.compile(r"[a-z][a-z0-9_]{0,59}")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\W_a-z\u00df-\u00ff])|\n+")
_SMALL_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
"""In a text without capitals, where only the stop tells."""
_WRAPPED = re.compile(r"^(.{40,}[^\s.!?:;])[ \t\r]*\n(?=[ \t]*[a-z\u00df-\u00ff])", re.MULTILINE)
"""The end of a line that is long and goes on in small letters."""
_REMEMBERED = 4096
_ABBREVIATIONS = (
    *("approx", "ca", "cf", r"e\.g", r"i\.e", "vs", "Dr", "bds", r"z\.B", r"V\.\s?a"),
    *("max", "min", "diam", "[Nn]r", "Fig", "Abb"),
)


@dataclass(frozen=True)
class Term:
    """The words of one finding: what a report writes, and every name that is read as it.

    Args:
        label: key of the finding.
        written: singular names, the best first.
        plurals: plural of each written name.
        countable: whether it takes an article.
        read: every name, singular and plural.
        several: of these, the plurals that are no singulars.
    """

    label: str
    written: tuple[str, ...]
    plurals: tuple[str, ...]
    countable: bool
    read: frozenset[str] = field(repr=False)
    several: frozenset[str] = field(default=frozenset(), repr=False)


class Terminology:
    """The terms of one language.

    Args:
        terms: label -> term.
        language: the words beside names.
        levels: level names that text may hold, beside vertebrae.
        organs: organ key -> names.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        language: Language,
        levels: Iterable[str] = (),
        organs: Mapping[str, str] | None = None,
    ) -> None:
        self.terms = dict(terms)
        self.language = language
        self.levels = frozenset(levels)
        self._organs = dict(organs or {})
        reader = Reader(
            language,
            labels=_label_of_name(self.terms.values()),
            organs={name.lower(): key for key, name in self._organs.items()},
            levels={self.level_name(level): level for level in self.levels},
            plurals=(name for term in self.terms.values() for name in term.several),
        )
        self._unended = _unended(language.reading.abbreviated)
        self._read = lru_cache(_REMEMBERED)(reader.read)

    @classmethod
    def of_graph(cls, graph: KnowledgeGraph, language: Language) -> "Terminology":
        """The terms of a knowledge graph in a language.

        Raises:
            ConfigError: the language names a finding or level that the graph lacks.
        """
        unknown = sorted(set(language.names) - set(graph.findings))
        levels = {level for organ in graph.anatomy.values() for level in organ.levels}
        unknown += sorted(set(language.levels) - levels)
        if unknown:
            raise ConfigError(
                f"terminology {language.code}: the knowledge graph has no {unknown}; mend the file"
            )
        organs = {key: organ.name for key, organ in graph.anatomy.items()}
        named = organs | language.organs if language.from_graph else language.organs
        return cls(_terms(graph, language), language, levels, named)

    def term(self, label: str) -> Term:
        """The words of a label; ConfigError where there are none."""
        if label not in self.terms:
            raise ConfigError(
                f"terminology {self.language.code}: no finding {label!r}; add it to the knowledge "
                "graph or to the language's file of terms"
            )
        return self.terms[label]

    def knows_level(self, level: str) -> bool:
        """Whether a level is of the closed vocabulary."""
        return level in self.levels or _VERTEBRA.fullmatch(level) is not None

    def level_name(self, level: str) -> str:
        """A level as the language writes it."""
        return self.language.levels.get(level, level)

    def organ_name(self, organ: str) -> str | None:
        """An organ as the language writes it; None where it has no word."""
        return self._organs.get(organ)

    def adjective(self, attribute: str, value: str) -> str | None:
        """What a report writes for an attribute's value; None where it has no words for it."""
        return self.language.adjectives.get(attribute, {}).get(value)

    def size_text(self, size_mm: float) -> str:
        """A length as reports of the language write it."""
        return size_text(size_mm).replace(".", self.language.decimal)

    def hu_text(self, hu: float) -> str:
        """A mean attenuation as reports of the language write it."""
        return hu_text(hu).replace("HU", self.language.hu_unit)

    def read(self, sentence: str) -> Statement:
        """The facts that a sentence states; those read last are remembered."""
        return self._read(sentence)

    def read_text(self, text: str) -> tuple[tuple[str, Statement], ...]:
        """Every sentence of a text and what it states."""
        return tuple((one, self.read(one)) for one in sentences(text, self._unended))


@cache
def load_terminology(language: str = "en") -> Terminology:
    """The terms of the packaged knowledge graph in a language; they are built once.

    Args:
        language: code of a packaged file of terms, or the path of one.
    """
    return Terminology.of_graph(load_graph(), load_language(language))


def _unended(words: Iterable[str] = ()) -> re.Pattern[str]:
    """Words of a language, common ones and single letters, whose full stop ends no sentence."""
    return re.compile(rf"\b(?:{'|'.join((*_ABBREVIATIONS, *words, '[A-Za-z]'))})\.$")


_UNENDED = _unended()


def sentences(text: str, unended: re.Pattern[str] = _UNENDED) -> list[str]:
    """The sentences of a text; a full stop within a number or name ends none.

    A line ends one, unless it is long and the next one goes on in small letters. A text without
    capitals has its sentences parted by stops and lines alone.

    Args:
        text: any text.
        unended: what ends in a full stop that ends no sentence.
    """
    small = text == text.lower()
    text = text if small else _WRAPPED.sub(r"\1 ", text)
    out: list[str] = []
    for part in (_SMALL_SENTENCE_END if small else _SENTENCE_END).split(text):
        if out and unended.search(out[-1]) and "\n" not in part:
            out[-1] = f"{out[-1]} {part}"
        elif part.strip():
            out.append(part.strip())
    return out


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


def is_length(size_mm: float) -> bool:
    """Whether a number can be the size of something in a body."""
    return math.isfinite(size_mm) and 0.05 <= size_mm <= 2500.0


def _terms(graph: KnowledgeGraph, language: Language) -> dict[str, Term]:
    if not language.from_graph:
        return {label: _own_term(label, name) for label, name in language.names.items()}
    return {
        key: _graph_term(key, (node.name, node.plural), node.synonyms, language.names.get(key))
        for key, node in graph.findings.items()
    }


def _own_term(label: str, name: Name) -> Term:
    """A term that stands in the language's file alone."""
    if not name.written or len(name.plurals) != len(name.written):
        raise ConfigError(f"terminology: {label}: give a written name and a plural for each")
    return Term(
        label=label,
        written=name.written,
        plurals=name.plurals,
        countable=name.countable is not False,
        read=frozenset({*name.written, *name.plurals, *name.read}),
        several=frozenset(name.plurals) - {*name.written, *name.read},
    )


def _graph_term(
    label: str, names: tuple[str, str], synonyms: Iterable[str], own: Name | None
) -> Term:
    """A term of the knowledge graph, with what the language's file adds."""
    if not _KEY.fullmatch(label):
        raise ConfigError(f"terminology: {label[:20]!r} is no key of a finding")
    own = own or Name()
    name, plural = names
    written = own.written or (name,)
    plurals = own.plurals or tuple(plural if n == name else _plural(n) for n in written)
    countable = own.countable
    if countable is None:
        countable = written[0] != name or (plural != name and not name.endswith(_MASS_ENDINGS))
    several = {plural, *plurals, *(_plural(s) for s in synonyms)}
    single = {name, *written, *synonyms}
    return Term(
        label=label,
        written=written,
        plurals=plurals,
        countable=countable,
        read=_all_spellings(several | single | set(own.read)),
        several=_all_spellings(several - single) if countable else frozenset(),
    )


def _label_of_name(terms: Iterable[Term]) -> dict[str, str]:
    """Name -> label; where two findings share one, that which has it as its own name wins."""
    names: dict[str, str] = {}
    listed = list(terms)
    for term in listed:
        names |= {name.lower(): term.label for name in term.read if name.lower() not in names}
    for term in listed:
        names |= {name.lower(): term.label for name in (*term.written, *term.plurals)}
    return names


def _plural(name: str) -> str:
    if name.endswith("calculus"):
        return f"{name[:-2]}i"
    if name.endswith(("s", "x", "ss", "sh", "ch")):
        return name if name.endswith("is") else f"{name}es"
    return f"{name[:-1]}ies" if re.search(r"[^aeiou]y$", name) else f"{name}s"


def _all_spellings(names: Iterable[str]) -> frozenset[str]:
    return frozenset(spelling for name in names for spelling in _spellings(name))


def _spellings(name: str) -> set[str]:
    american = name
    for british, other in _SPELLINGS:
        american = american.replace(british, other)
    return {name, american, name.replace("-", " "), american.replace("-", " ")}
