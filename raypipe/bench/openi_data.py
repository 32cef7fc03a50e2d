"""Open-I chest radiograph reports: their index terms, header lines, text, and how they are parted.

In: a folder with reports.csv (uid, MeSH, image, indication, comparison, findings, impression).
Out: Studies of three parts, prompts, texts. Does not know: models, measures.

A uid is one examination of one patient, so parts by uid share no patient. The text is findings and
impression as written, numbers of lists taken off. Words that de-identification took out stand as
XXXX; sentences that hold one are no text to learn or to write and are left out of both, but stay
in the references that everything is measured against.
"""

import csv
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from raypipe.errors import ConfigError
from raypipe.evaluate.text_scores import words

_COLUMNS = ("uid", "MeSH", "image", "indication", "comparison", "findings", "impression")
_LIST_NUMBER = re.compile(r"(?:(?<=\s)|^)\d{1,2}\.\s+(?=[A-Za-z])")
_SENTENCE_END = re.compile(r"(?<=[^\W\d_])[.!?]+\s+|(?<=[\d)\]%])[.!?]+\s+(?=[^\W\d_])|\n+")
_REMOVED = "xxxx"
_HEADER_LETTERS = 80
NORMAL = "normal"
SYSTEM = "You write the text of a chest radiograph report from its index terms."
PARTS = {"test": range(0, 2), "validation": range(2, 3), "train": range(3, 10)}
"""Part -> tenths of the uids by hash."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One examination.

    Args:
        uid: of the examination.
        tags: index terms in lower case with their qualifiers: "opacity/lung/base/left".
        header: what is known before anything is seen: name of the examination, reason, earlier
            examinations.
        reference: findings and impression as they were written.
    """

    uid: str
    tags: tuple[str, ...]
    header: dict[str, str]
    reference: str

    @cached_property
    def sentences(self) -> tuple[str, ...]:
        """The sentences that can be learnt and written: whole, each with its stop."""
        found = map(plain, split_sentences(self.reference))
        return tuple(s for s in found if _REMOVED not in s.lower())

    @cached_property
    def text(self) -> str:
        """The sentences as one text."""
        return " ".join(self.sentences)

    @property
    def part(self) -> str:
        """Which part the uid belongs to."""
        tenth = int(hashlib.blake2b(self.uid.encode(), digest_size=4).hexdigest(), 16) % 10
        return next(name for name, tenths in PARTS.items() if tenth in tenths)

    def prompt(self, *, header: bool) -> str:
        """The user's message to a language model."""
        lines = [f"{name}: {value}" for name, value in self.header.items() if value]
        return "\n".join([*(lines if header else ()), f"index: {'; '.join(self.tags)}"])


def read_studies(folder: Path) -> list[Study]:
    """Every examination that has a text and was indexed, in the file's order.

    Raises:
        ConfigError: the file is not there or lacks a column.
    """
    file = folder / "reports.csv"
    if not file.is_file():
        raise ConfigError(f"openi: {folder} holds no reports.csv; name the folder with --data")
    with file.open(newline="", encoding="utf-8") as stream:
        rows = csv.DictReader(stream)
        missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
        if missing:
            raise ConfigError(f"openi: {file.name} has no column {missing[0]!r}")
        studies = [_study(row) for row in rows]
    return [study for study in studies if study.text and study.tags and words(study.reference)]


def _study(row: dict[str, str]) -> Study:
    tags = [tag.strip().lower() for tag in row["MeSH"].split(";")]
    return Study(
        uid=row["uid"],
        tags=tuple(dict.fromkeys(t for t in tags if t and t != "no indexing")),
        header={
            name: " ".join(row[name].lower().split())[:_HEADER_LETTERS]
            for name in ("image", "comparison", "indication")
        },
        reference=" ".join(f"{row['findings']} {row['impression']}".split()),
    )


def split_sentences(text: str) -> list[str]:
    """The sentences of a report, however they begin; numbers of lists are no part of them."""
    found = _SENTENCE_END.split(_LIST_NUMBER.sub("\n", text))
    return [part.strip() for part in found if words(part) not in ([], ["."])]


def plain(sentence: str) -> str:
    """A sentence with one blank between words, a capital at its front, a full stop at its end."""
    whole = " ".join(sentence.split()).rstrip(" .!?;,:")
    return f"{whole[:1].upper()}{whole[1:]}."
