"""How facts are put into English: every sentence that a report may hold, as phrases.

In: facts of a ReportPlan. Out: phrases, whose first text is the template and whose every text
states exactly the facts; the language model chooses among them.
Does not know: grammars, prompts, engines. Other languages: `pattern_wording.py`.
"""

from collections.abc import Sequence

from raypipe.knowledge.terminology import Term, article, hu_text, joined, size_text
from raypipe.report.phrase import Phrase, one_of, seq
from raypipe.report.plan import Fact, citation, in_order
from raypipe.report.technique import technique

__all__ = [
    "counted_sentence",
    "denied_sentence",
    "finding_sentence",
    "impression_line",
    "nothing_found",
    "rest_above",
    "technique",
]

Words = tuple[str, ...]

_FRONT_LIMIT = 2
"""More properties than these before a name read badly."""
_COUNTS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
_SEEN = ("is seen", "is present", "is identified", "is visible", "is noted")
_NOTHING_FOUND = (
    "No abnormality was detected by the model.",
    "The model detected no abnormality.",
    "No abnormal finding was detected by the model.",
)


def finding_sentence(fact: Fact) -> Phrase:
    """One sentence about one finding: its name, side, level, size, and what else is known."""
    options: list[Phrase] = []
    sided_before = fact.side in ("left", "right") and fact.level is None
    # the side stands before the name or in the place, the size before the name or in the tail
    for side_before in (True, False) if sided_before else (False,):
        for size_before in (False, True) if _size_may_lead(fact) else (False,):
            for before, after in _splits(fact):
                options += _sentences(fact, side_before, size_before, before, after)
    return one_of(*options)


def _sentences(
    fact: Fact, side_before: bool, size_before: bool, before: Words, after: Words
) -> list[Phrase]:
    """The sentences of one arrangement of side, size and properties."""
    place = "" if side_before else _place(fact)
    texts = _noun_phrases(fact, side_before, size_before, before)
    named, opening = one_of(*texts), one_of(*map(_capital, texts))
    properties = f", {joined(after, last='and')}" if after else ""
    tail = seq(
        properties,
        _measured(fact, size_before),
        _attenuation(fact, alone=size_before or fact.size_mm is None),
        f" [{fact.finding_id}].",
    )
    sentences = [
        seq("There is ", named, place, tail),
        seq(opening, " ", one_of(*_SEEN), place, tail),
    ]
    if isinstance(place, str) and fact.level is not None:
        sentences.append(seq(_capital(place.strip()), ", there is ", named, tail))
    return sentences


def _splits(fact: Fact) -> list[tuple[Words, Words]]:
    """Properties before the name and those behind it; every known one is told."""
    words = tuple(adjective for _, _, adjective in fact.adjectives)
    behind = tuple(w for name, _, w in fact.adjectives if name in ("margin", "shape"))
    if not behind:
        return [(words, ())]
    front = tuple(w for w in words if w not in behind)
    splits = [(words, ()), (front, behind)]
    return splits if len(words) <= _FRONT_LIMIT else splits[1:]


def _noun_phrases(fact: Fact, side_before: bool, size_before: bool, properties: Words) -> list[str]:
    """Article, size, properties, side and name, for each name of the finding."""
    side = _side_adjective(fact) if side_before else ""
    size = size_text(fact.size_mm) if size_before and fact.size_mm is not None else ""
    texts = []
    for name in fact.term.written:
        text = " ".join(part for part in (size, ", ".join(properties), side, name) if part)
        texts.append(f"{article(text)} {text}" if fact.term.countable else text)
    return texts


def _side_adjective(fact: Fact) -> str:
    return f"{fact.side}" if fact.organ is not None else f"{fact.side}-sided"


def _size_may_lead(fact: Fact) -> bool:
    return fact.size_mm is not None and fact.term.countable


def _place(fact: Fact) -> Phrase:
    """ " in the upper third of the right lung", " on the right", or nothing."""
    side, organ, level = fact.side, fact.organ, fact.level
    if level is not None:
        return f" {_level_place(level, side, organ)}"
    if side == "midline":
        return " in the midline"
    if side is None:
        return ""
    return one_of(f" in the {side} {organ}", f" on the {side}") if organ else f" on the {side}"


def _level_place(level: str, side: str | None, organ: str | None) -> str:
    if level[:1].isupper():  # a vertebra
        tail = {"midline": " in the midline", None: ""}.get(side, f" on the {side}")
        return f"at the level of {level}{tail}"
    if organ is None:
        tail = {"midline": " in the midline", None: ""}.get(side, f" on the {side}")
        return f"in the {level}{tail}"
    if side == "midline":
        return f"in the {level} of the {organ} near the midline"
    return f"in the {level} of the {side} {organ}" if side else f"in the {level} of the {organ}"


def _measured(fact: Fact, size_before: bool) -> Phrase:
    if fact.size_mm is None or size_before:
        return ""
    size = size_text(fact.size_mm)
    return one_of(f", measuring {size}", f", measuring {size} in longest axial diameter")


def _attenuation(fact: Fact, *, alone: bool) -> Phrase:
    """The mean attenuation or nothing; `alone` where no size stands before it."""
    if fact.hu is None:
        return ""
    hu = hu_text(fact.hu)
    joined_to_size = () if alone else (f" and {hu} on average",)
    return one_of(f", with a mean attenuation of {hu}", *joined_to_size, "")


def counted_sentence(facts: Sequence[Fact]) -> str:
    """The sentence about findings that are not told one by one; the same for every model."""
    by_label: dict[str, list[Fact]] = {}
    for fact in sorted(facts, key=lambda fact: int(fact.finding_id[1:])):
        by_label.setdefault(fact.term.label, []).append(fact)
    kinds = joined(
        (f"{len(group)} {_name_of(group[0].term, len(group))}" for group in by_label.values()),
        last="and",
    )
    were = "further finding was" if len(facts) == 1 else "further findings were"
    return f"{len(facts)} {were} detected: {kinds} {citation(facts)}."


def denied_sentence(terms: Sequence[Term]) -> Phrase:
    """That some findings were looked for and not detected."""
    names = joined(_name_of(t, 1) for t in terms)
    plurals = joined(_name_of(t, 2) if t.countable else t.written[0] for t in terms)
    were = "was" if len(terms) == 1 and not terms[0].countable else "were"
    return one_of(
        f"No {names} was detected.",
        f"No {plurals} {were} detected.",
        f"The model detected no {names}.",
    )


def impression_line(group: Sequence[Fact]) -> Phrase:
    """One line about all findings of one kind."""
    cite = f" {' '.join(f'[{finding_id}]' for finding_id in in_order(group))}."
    return _single_line(group[0], cite) if len(group) == 1 else _group_line(group, cite)


def _single_line(fact: Fact, cite: str) -> Phrase:
    place = "" if fact.side in ("left", "right") else _texts(_place(fact))[0]
    side = f"{_side_adjective(fact)} " if not place and fact.side else ""
    options: list[Phrase] = []
    for name in fact.term.written:
        if fact.size_mm is None:
            options.append(seq(_capital(f"{side}{name}{place}"), cite))
            continue
        size = size_text(fact.size_mm)
        options.append(
            seq(_capital(f"{side}{name}{place}"), one_of(", ", " measuring "), size, cite)
        )
        if fact.term.countable:
            options.append(seq(_capital(f"{size} {side}{name}{place}"), cite))
    return one_of(*options)


def _group_line(group: Sequence[Fact], cite: str) -> Phrase:
    count = len(group)
    number = _capital(_COUNTS[count]) if count < len(_COUNTS) else str(count)
    sides = {fact.side for fact in group}
    where = f" on the {group[0].side}" if sides in ({"left"}, {"right"}) else ""
    if sides == {"left", "right"}:
        where = " on both sides"
    sizes = [fact.size_mm for fact in group if fact.size_mm is not None]
    largest: Phrase = ""
    if sizes:
        size = size_text(max(sizes))
        largest = one_of(f", the largest measuring {size}", f", up to {size} in size")
    term = group[0].term
    if not term.countable:
        heads = [f"{_capital(term.written[0])} at {_COUNTS[count] if count < 10 else count} sites"]
    else:
        heads = [f"{number} {plural}" for plural in term.plurals]
    return one_of(*(seq(head, where, largest, cite) for head in heads))


def nothing_found() -> tuple[str, ...]:
    """What an impression says where nothing was detected."""
    return _NOTHING_FOUND


def rest_above() -> str:
    """That an impression does not name all findings."""
    return "The remaining findings are described above."


def _name_of(term: Term, count: int) -> str:
    return term.plurals[0] if count > 1 and term.countable else term.written[0]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _texts(phrase: Phrase) -> list[str]:
    """The texts of a string or of a choice of strings."""
    if isinstance(phrase, str):
        return [phrase]
    return [text for option in getattr(phrase, "options", ()) for text in _texts(option)]
