"""Fake engines that answer at random: any text of the grammar, or what a bad model makes of it."""

import random
import re

from raypipe.report.engine import EchoEngine, GenerationRequest

_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\||r\d+)')


class RandomEngine(EchoEngine):
    """Answers with a random text of each request's grammar."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(lambda request: random_text(request, rng))


class SloppyEngine(EchoEngine):
    """Answers without a grammar: words of the true text are lost, doubled, swapped or wrong."""

    def __init__(self, rng: random.Random, errors: int = 3) -> None:
        super().__init__(lambda request: _sloppy(random_text(request, rng), rng, errors))


def random_text(request: GenerationRequest, rng: random.Random) -> str:
    """A text of a request's grammar, each choice at random."""
    assert request.grammar is not None
    rules = dict(line.split(" ::= ", 1) for line in request.grammar.splitlines())
    return _expanded("root", rules, rng)


def _expanded(rule: str, rules: dict[str, str], rng: random.Random) -> str:
    options: list[list[str]] = [[]]
    for text, mark in _TOKEN.findall(rules[rule]):
        if mark == "|":
            options.append([])
        else:
            options[-1].append(mark or f"'{text}")
    out = []
    for part in rng.choice(options):
        if part.startswith("'"):
            out.append(part[1:].replace("\\n", "\n").replace('\\"', '"').replace("\\\\", "\\"))
        else:
            out.append(_expanded(part, rules, rng))
    return "".join(out)


_WRONG = ("left", "right", "no", "not", "upper third", "lower third", "5 mm", "3 cm", "possible",
          "lung mass", "pleural effusion", "rib fracture", "[F1]", "[F2]", "[F9]", "spiculated",
          "unchanged", "healthy", "-90 HU", "bilateral", "\n", "No abnormality was detected.",
          "kidney", "IMPRESSION:", "FINDINGS:")  # fmt: skip


def _sloppy(text: str, rng: random.Random, errors: int) -> str:
    words = re.split(r"( |\n)", text)
    for _ in range(rng.randint(0, errors)):
        i, j = rng.randrange(len(words)), rng.randrange(len(words))
        match rng.randrange(4):
            case 0:
                words[i] = ""
            case 1:
                words[i] = rng.choice(_WRONG)
            case 2:
                words[i], words[j] = words[j], words[i]
            case _:
                words[i] = f"{words[i]} {rng.choice(_WRONG)}"
    return "".join(words)
