"""Phrases: a finite set of texts, written once and used as grammar, template and bound.

In: strings joined by Seq and OneOf. Out: the EBNF that accepts exactly those texts, the longest
of them in bytes, the first of them (the template), or one that a caller picks.
Does not know: radiology, engines.

A phrase has no repetition, so every text is bounded and a grammar made of it always ends.
"""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class OneOf:
    """Any one of its options; the first is the preferred one."""

    options: tuple["Phrase", ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("OneOf: at least one option")


@dataclass(frozen=True)
class Seq:
    """All of its parts, one after the other."""

    parts: tuple["Phrase", ...]


Phrase = str | OneOf | Seq


def one_of(*options: Phrase) -> Phrase:
    """Any one of the options, without those that come twice."""
    unique = tuple(dict.fromkeys(options))
    return unique[0] if len(unique) == 1 else OneOf(unique)


def seq(*parts: Phrase) -> Phrase:
    """All parts in order."""
    return Seq(tuple(part for part in parts if part != ""))


def maybe(phrase: Phrase) -> Phrase:
    """Nothing, or the phrase; the template leaves it out."""
    return one_of("", phrase)


def pick(phrase: Phrase, choose: Callable[[int], int]) -> str:
    """One text; `choose(n)` gives the option of each choice, from 0 to n - 1."""
    match phrase:
        case str():
            return phrase
        case OneOf(options):
            return pick(options[choose(len(options))], choose)
        case Seq(parts):
            return "".join([pick(part, choose) for part in parts])


def first(phrase: Phrase) -> str:
    """The text of all first options."""
    return pick(phrase, lambda n: 0)


def narrowed(phrase: Phrase, options: int) -> Phrase:
    """The phrase with the first few options of every choice alone."""
    match phrase:
        case str():
            return phrase
        case OneOf(choices):
            return one_of(*(narrowed(choice, options) for choice in choices[:options]))
        case Seq(parts):
            return Seq(tuple(narrowed(part, options) for part in parts))


def longest_bytes(phrase: Phrase) -> int:
    """UTF-8 length of the longest text. A token holds at least one byte, so it bounds tokens."""
    match phrase:
        case str():
            return len(phrase.encode())
        case OneOf(options):
            return max(longest_bytes(option) for option in options)
        case Seq(parts):
            return sum(longest_bytes(part) for part in parts)


def ebnf(phrase: Phrase) -> str:
    """The grammar whose rule `root` accepts exactly the phrase's texts, for xgrammar."""
    rules: dict[Phrase, str] = {}
    lines: list[str] = []

    def expression(node: Phrase) -> str:
        match node:
            case str():
                return _quoted(node)
            case Seq(parts):
                return " ".join(expression(part) for part in parts) or '""'
            case OneOf(options):
                if node not in rules:
                    rules[node] = ""  # children first, so that a rule's name follows its line
                    body = " | ".join(expression(option) for option in options)
                    rules[node] = f"r{len(lines)}"
                    lines.append(f"{rules[node]} ::= {body}")
                return rules[node]

    root = expression(phrase)
    return "\n".join([f"root ::= {root}", *lines]) + "\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
