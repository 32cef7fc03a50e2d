"""Whole reports that are true to the index terms of an examination, put together from a library.

In: examinations to learn from, the reader of radiograph reports; the index terms and header lines
of a new examination. Out: texts for it, the most usual first, and the grammar that accepts exactly
these. Does not know: language models, how texts are measured.

A text begins as the report of an examination with like index terms and header lines. A sentence
stays in it where all that it claims is named by the new index terms, side, place and grade
included, where it denies none of them and doubts nothing (a doubt names what else it may be), and
where every word of it is used in several reports that are indexed with nothing beyond them. An
index term that is then still not told gets the sentence that reports with this term use for it, or
its own words. So no text names a finding that the index terms lack, as far as the reader's terms
reach, and none leaves one out.

Texts are ordered by how much they share, on average, with the reports of the nearest examinations:
the choice of least expected loss (Kumar & Byrne 2004, minimum Bayes risk), by n-grams up to four.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from raypipe.bench.openi_data import NORMAL, Study, plain
from raypipe.bench.openi_reader import Labels, RadiographReader, qualifiers_fit
from raypipe.evaluate.text_scores import words

Grams = frozenset[tuple[str, ...]]
_USES = 2
"""Reports that have to use a word: what one alone says may be of its patient's history."""
_MEDOID_OF = 400
"""Normal reports among which the usual one is looked for."""


@dataclass(frozen=True, kw_only=True)
class LibraryConfig:
    """How like examinations are chosen.

    Args:
        neighbours: whose reports a text may begin as.
        sharpness: how fast the weight of a neighbour falls with its likeness.
        other_image: factor of likeness where the name of the examination differs.
        other_comparison: the same for the line on earlier examinations.
        header: whether header lines count at all.
        precision: how much what is too much counts against what is missing; 0.5: alike. Below
            it, because a text that is too short loses BLEU to its brevity penalty.
    """

    neighbours: int = 40
    sharpness: float = 8.0
    other_image: float = 0.4
    other_comparison: float = 0.7
    header: bool = True
    precision: float = 0.1


class Library:
    """Reports to write from.

    Args:
        studies: examinations to learn from.
        reader: reads claims and denials.
        config: how like examinations are chosen.
    """

    def __init__(
        self, studies: Sequence[Study], reader: RadiographReader, config: LibraryConfig
    ) -> None:
        self._studies = list(studies)
        self._reader = reader
        self._config = config
        self._keys = [_keys(study.tags) for study in self._studies]
        self._labels = [reader.labels_of(study.tags) for study in self._studies]
        self._words = [frozenset(words(study.text)) for study in self._studies]
        counts = Counter(key for keys in self._keys for key in keys)
        self._weight = {key: math.log(len(studies) / n) for key, n in counts.items()}
        self._rare = math.log(len(studies) + 1)
        self._told_by = _sentences_of_tags(self._studies, reader)
        self._grams = lru_cache(1 << 14)(_grams)
        self._vocabulary = lru_cache(1 << 10)(self._vocabulary_of)

    def texts(self, study: Study, count: int) -> list[str]:
        """Texts for an examination, the most usual first; at least one.

        Args:
            study: its tags and header are looked at, its text is not.
            count: at most so many.
        """
        near = self._nearest(study)
        labels = self._reader.labels_of(study.tags)
        drafts = dict.fromkeys(self._true_to(self._studies[i], study, labels) for i, _ in near)
        weighted = [(self._grams(self._studies[i].text), weight) for i, weight in near]
        precision = self._config.precision
        ranked = sorted(drafts, key=lambda text: -_expected(self._grams(text), weighted, precision))
        return ranked[:count]

    def template(self, study: Study) -> str:
        """The one report of the library that is most like all indexed as normal, made true."""
        return self._true_to(self._usual, study, self._reader.labels_of(study.tags))

    @cached_property
    def _usual(self) -> Study:
        normal = [study for study in self._studies if study.tags == (NORMAL,)] or self._studies
        weighted = [(self._grams(study.text), 1.0) for study in normal[:_MEDOID_OF]]
        precision = self._config.precision
        return max(
            normal[:_MEDOID_OF],
            key=lambda study: _expected(self._grams(study.text), weighted, precision),
        )

    def _nearest(self, study: Study) -> list[tuple[int, float]]:
        """Indices and weights of the most like examinations."""
        config, wanted = self._config, _keys(study.tags)
        likeness = []
        for i, keys in enumerate(self._keys):
            like = self._overlap(wanted, keys)
            if config.header:
                header = self._studies[i].header
                if header["image"] != study.header["image"]:
                    like *= config.other_image
                if header["comparison"] != study.header["comparison"]:
                    like *= config.other_comparison
            likeness.append((like, i))
        likeness.sort(key=lambda each: (-each[0], each[1]))
        best = likeness[0][0]
        near = likeness[: config.neighbours]
        return [(i, math.exp(config.sharpness * (like - best))) for like, i in near]

    def _overlap(self, a: frozenset[str], b: frozenset[str]) -> float:
        union = sum(self._weight.get(key, self._rare) for key in a | b)
        shared = sum(self._weight.get(key, self._rare) for key in a & b)
        return shared / union if union else 1.0

    def _true_to(self, source: Study, study: Study, labels: Labels) -> str:
        """A report made true to other index terms."""
        kept = [s for s in source.sentences if self.admits(s, study.tags, labels)]
        told = {label for s in kept for each in self._reader.read(s).claimed for label in each}
        added = []
        for tag in study.tags:
            wanted = self._reader.of_tag(tag)
            if wanted and not wanted & told:
                sentence = self._sentence_for(tag, study.tags, labels)
                claimed = self._reader.read(sentence).claimed
                if all(each & labels for each in claimed):
                    added.append(sentence)
                    told |= {label for each in claimed for label in each}
        return " ".join(dict.fromkeys([*added, *kept])) or plain(", ".join(study.tags))

    def admits(self, sentence: str, tags: Sequence[str], labels: Labels) -> bool:
        """Whether a sentence may stand in a report with these index terms."""
        claims = self._reader.read(sentence)
        if claims.doubts or any(not each & labels for each in claims.claimed):
            return False
        if claims.denied & self._reader.meant_by(tags):
            return False
        if claims.claimed and not qualifiers_fit(sentence, tags):
            return False
        return frozenset(words(sentence)) <= self._vocabulary(labels)

    def _vocabulary_of(self, labels: Labels) -> frozenset[str]:
        """Words of several reports that are indexed with nothing beyond some findings."""
        used = (w for own, w in zip(self._labels, self._words, strict=True) if own <= labels)
        counts = Counter(word for each in used for word in each)
        return frozenset(word for word, number in counts.items() if number >= _USES)

    def _sentence_for(self, tag: str, tags: Sequence[str], labels: Labels) -> str:
        """The usual sentence for an index term; its own words where none is admitted."""
        for key in (tag, tag.split("/")[0]):
            for sentence in self._told_by.get(key, ()):
                if self.admits(sentence, tags, labels):
                    return sentence
        head, *qualifiers = tag.split("/")
        return plain(f"{head.replace(',', '')} {', '.join(qualifiers)}")


def _keys(tags: Iterable[str]) -> frozenset[str]:
    """Index terms, whole and by their head."""
    listed = list(tags)
    return frozenset((*listed, *(f"{tag.split('/')[0]}/" for tag in listed)))


def _grams(text: str) -> Grams:
    tokens = words(text)
    return frozenset(
        tuple(tokens[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(tokens) - n + 1)
    )


def _expected(grams: Grams, weighted: Sequence[tuple[Grams, float]], precision: float) -> float:
    """Mean overlap with weighted texts: their share of the one and the other, weighed (Tversky)."""
    return sum(
        w * len(grams & g) / (precision * len(grams) + (1.0 - precision) * len(g) or 1.0)
        for g, w in weighted
    )


def _sentences_of_tags(
    studies: Sequence[Study], reader: RadiographReader
) -> dict[str, tuple[str, ...]]:
    """Index term, or its head -> sentences that tell it and nothing else, the commonest first."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for study in studies:
        for sentence in study.sentences:
            claimed = reader.read(sentence).claimed
            for tag in study.tags:
                wanted = reader.of_tag(tag)
                if claimed and tag != NORMAL and all(each & wanted for each in claimed):
                    counts[tag][sentence] += 1
                    counts[tag.split("/")[0]][sentence] += 1
    return {
        tag: tuple(s for s, _ in sorted(seen.items(), key=lambda one: (-one[1], len(one[0]))))
        for tag, seen in counts.items()
    }
