"""How facts are put into a language that its file of terms writes by patterns.

In: facts of a ReportPlan. Out: phrases, as `wording.py` makes them for English.
Does not know: any language. The style is telegraphic, "name place, size, properties", which needs
no inflection, so that a language needs a file and no code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter

from raypipe.knowledge.language import Patterns, TechniqueWords
from raypipe.knowledge.terminology import Term, Terminology, joined
from raypipe.report.phrase import Phrase, one_of, seq
from raypipe.report.plan import Fact, citation, in_order
from raypipe.types import Flag, SeriesContext


@dataclass(frozen=True)
class PatternWording:
    """The wording of one language.

    Args:
        terminology: its terms.
        patterns: its sentences.
        words: its technique paragraph.
    """

    terminology: Terminology
    patterns: Patterns
    words: TechniqueWords

    def finding_sentence(self, fact: Fact) -> Phrase:
        """One sentence about one finding."""
        names = one_of(*map(_capital, fact.term.written))
        adjectives = joined((words for _, _, words in fact.adjectives), self.patterns.last_and)
        slots: dict[str, Phrase] = {
            "name": names,
            "place": self._place(fact),
            "size": self._size(fact, self.patterns.size),
            "properties": _filled(self.patterns.properties, properties=adjectives)
            if adjectives
            else "",
            "hu": ""
            if fact.hu is None
            else _filled(self.patterns.hu, hu=self.terminology.hu_text(fact.hu)),
            "cite": f"[{fact.finding_id}]",
        }
        return one_of(*(_slotted(pattern, slots) for pattern in self.patterns.finding))

    def denied_sentence(self, terms: Sequence[Term]) -> Phrase:
        """That some findings were looked for and not detected."""
        names = joined((term.written[0] for term in terms), self.patterns.last_or)
        return _filled(self.patterns.denied, names=names)

    def counted_sentence(self, facts: Sequence[Fact]) -> str:
        """The sentence about findings that are not told one by one."""
        by_label: dict[str, list[Fact]] = {}
        for fact in facts:
            by_label.setdefault(fact.term.label, []).append(fact)
        kinds = joined(
            (
                self.patterns.kind.format(name=group[0].term.written[0], count=len(group))
                for group in by_label.values()
            ),
            self.patterns.last_and,
        )
        return self.patterns.counted.format(count=len(facts), kinds=kinds, cite=citation(facts))

    def impression_line(self, group: Sequence[Fact]) -> Phrase:
        """One line about all findings of one kind."""
        cite = " ".join(f"[{finding_id}]" for finding_id in in_order(group))
        first = group[0]
        if len(group) == 1:
            single: dict[str, Phrase] = {
                "name": one_of(*map(_capital, first.term.written)),
                "place": self._place(first),
                "size": self._size(first, self.patterns.size),
                "cite": cite,
            }
            return one_of(*(_slotted(pattern, single) for pattern in self.patterns.single))
        largest = max(group, key=lambda fact: fact.size_mm or 0.0)
        slots: dict[str, Phrase] = {
            "name": one_of(*map(_capital, first.term.plurals)),
            "where": self._where(group),
            "count": str(len(group)),
            "largest": self._size(largest, self.patterns.largest),
            "cite": cite,
        }
        return one_of(*(_slotted(pattern, slots) for pattern in self.patterns.group))

    def nothing_found(self) -> tuple[str, ...]:
        """What an impression says where nothing was detected."""
        return self.patterns.nothing_found

    def rest_above(self) -> str:
        """That an impression does not name all findings."""
        return self.patterns.rest_above

    def technique(self, context: SeriesContext) -> str:
        """How the series was acquired and what was repaired before it was read."""
        words = self.words
        modality = context.modality if context.modality == "CT" else words.tomography
        part = words.parts.get(context.body_part or "")
        text = (words.of if part else words.no_part).format(modality=modality, part=part)
        if context.contrast is not None:
            text += words.contrast if context.contrast else words.no_contrast
        if context.kvp:
            text += words.voltage.format(kvp=self._number(context.kvp))
        sentences = [f"{text}.", self._slices(context)]
        sentences += [said for flag, said in words.repairs.items() if Flag(flag) in context.flags]
        return " ".join([*sentences, words.read_by])

    def _slices(self, context: SeriesContext) -> str:
        words, count = self.words, context.shape_zyx[0]
        if Flag.NO_GEOMETRY in context.flags:
            return words.no_scale.format(count=count)
        text = words.slices.format(count=count)
        if count > 1 and Flag.SINGLE_SLICE not in context.flags:
            text += words.spacing.format(mm=self._number(context.spacing_zyx_mm[0]))
        if context.thickness_mm:
            text += words.thickness.format(mm=self._number(context.thickness_mm))
        pixels = sorted({self._number(mm) for mm in context.spacing_zyx_mm[1:]})
        return f"{text}{words.pixels.format(mm=' x '.join(pixels))}."

    def _number(self, value: float) -> str:
        return f"{value:.3g}".replace(".", self.terminology.language.decimal)

    def _place(self, fact: Fact) -> Phrase:
        side = self.terminology.language.sides[fact.side] if fact.side else None  # type: ignore[index]
        level = self.terminology.level_name(fact.level) if fact.level else None
        if side and level:
            return _filled(self.patterns.place_both, side=side, level=level)
        if level:
            return _filled(self.patterns.place_level, level=level)
        return _filled(self.patterns.place_side, side=side) if side else ""

    def _where(self, group: Sequence[Fact]) -> Phrase:
        """The side that all of a group share, or nothing."""
        sides = {fact.side for fact in group}
        shared = sides.pop() if len(sides) == 1 else None
        if shared not in ("left", "right"):
            return ""
        side = self.terminology.language.sides[shared]  # type: ignore[index]
        return _filled(self.patterns.place_side, side=side)

    def _size(self, fact: Fact, patterns: tuple[str, ...]) -> Phrase:
        if fact.size_mm is None:
            return ""
        return _filled(patterns, size=self.terminology.size_text(fact.size_mm))


def _filled(patterns: Sequence[str], **values: str) -> Phrase:
    return one_of(*(pattern.format(**values) for pattern in patterns))


def _slotted(pattern: str, slots: dict[str, Phrase]) -> Phrase:
    parts: list[Phrase] = []
    for text, slot, _, _ in Formatter().parse(pattern):
        parts.append(text)
        if slot is not None:
            parts.append(slots[slot])
    return seq(*parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
