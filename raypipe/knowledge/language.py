"""The terminology file of one language: names, and the words that change what a sentence states.

In: a file `terms/CODE.yaml`, or one of the same form. Out: a validated Language.
Does not know: how text is read or written with it.
"""

import re
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from string import Formatter
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import fast_safe_loader
from raypipe.settings import Settings
from raypipe.types import Flag

Change = Literal["unchanged", "increased", "decreased", "new", "resolved"]
Side = Literal["left", "right", "midline", "both"]
Unit = Literal["mm", "cm"]

_CODE = re.compile(r"[a-z]{2}(?:-[A-Z]{2})?")


class Name(Settings):
    """The words of one finding.

    A list that is empty takes what the knowledge graph says, where `from_graph` is set.
    """

    written: tuple[str, ...] = Field(default=(), description="singular, the best first")
    plurals: tuple[str, ...] = Field(default=(), description="plural of each written name")
    read: tuple[str, ...] = Field(default=(), description="further synonyms and abbreviations")
    countable: bool | None = Field(default=None, description="null: by the form of the name")


class Reading(Settings):
    """Words that change what a sentence states; each is a regular expression."""

    negation_before: tuple[str, ...] = Field(min_length=1, description="denies what follows")
    negation_after: tuple[str, ...] = Field(default=(), description="denies what stands before")
    not_negation: tuple[str, ...] = Field(default=(), description="look like one and are none")
    doubt: tuple[str, ...] = Field(min_length=1, description="make a claim uncertain")
    clause_end: tuple[str, ...] = Field(default=(), description="end the reach of a negation")
    change: dict[Change, tuple[str, ...]] = Field(description="comparison with an earlier study")
    prior: tuple[str, ...] = Field(min_length=1, description="the size behind is an earlier one")
    sides: dict[Side, tuple[str, ...]] = Field(description="side -> its words")
    units: dict[Unit, tuple[str, ...]] = Field(description="unit of length -> its words")
    hu: tuple[str, ...] = Field(min_length=1, description="unit of attenuation")
    by: tuple[str, ...] = Field(description="between the numbers of a size")
    plain: tuple[str, ...] = Field(description="words that state nothing by themselves")
    counts: tuple[str, ...] = Field(default=(), description="number words from one on")
    abbreviated: tuple[str, ...] = Field(default=(), description="their full stop ends no sentence")

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        for field, value in self:
            lists = value.values() if isinstance(value, dict) else (value,)
            for pattern in (pattern for patterns in lists for pattern in patterns):
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"{field}: {pattern!r} is no pattern: {error}") from error
        if {"mm", "cm"} - set(self.units):
            raise ValueError("units: give words for mm and for cm")
        return self


class Prompt(Settings):
    """What the language model is told."""

    system: str
    region: str
    findings: str
    none: str
    not_detected: str
    not_known: str
    write: str
    header: str


class Patterns(Settings):
    """Sentences of a language that are written by patterns: telegraphic, without inflection.

    Slots in braces are filled, every one of them; a list holds alternatives, the first is the
    template.
    """

    finding: tuple[str, ...] = Field(
        min_length=1, description="{name} {place} {size} {properties} {hu} {cite}"
    )
    place_side: tuple[str, ...] = Field(min_length=1, description="{side}")
    place_level: tuple[str, ...] = Field(min_length=1, description="{level}")
    place_both: tuple[str, ...] = Field(min_length=1, description="{level} and {side}")
    size: tuple[str, ...] = Field(min_length=1, description="{size}")
    properties: tuple[str, ...] = Field(min_length=1, description="{properties}")
    hu: tuple[str, ...] = Field(min_length=1, description="{hu}")
    denied: tuple[str, ...] = Field(min_length=1, description="{names}")
    counted: str = Field(description="{count} {kinds} {cite}")
    kind: str = Field(description="{name} {count}")
    single: tuple[str, ...] = Field(min_length=1, description="{name} {place} {size} {cite}")
    group: tuple[str, ...] = Field(
        min_length=1, description="{name} {where} {count} {largest} {cite}"
    )
    largest: tuple[str, ...] = Field(min_length=1, description="{size}")
    nothing_found: tuple[str, ...] = Field(min_length=1)
    rest_above: str
    last_or: str
    last_and: str

    @model_validator(mode="after")
    def _filled(self) -> Self:
        for field, texts in self:
            _check_slots(self, field, (texts,) if isinstance(texts, str) else texts)
        return self


class TechniqueWords(Settings):
    """The technique paragraph of a language that is written by patterns."""

    of: str = Field(description="{modality} {part}")
    no_part: str = Field(description="{modality}")
    tomography: str
    contrast: str
    no_contrast: str
    voltage: str = Field(description="{kvp}")
    slices: str = Field(description="{count}")
    spacing: str = Field(description="{mm}")
    thickness: str = Field(description="{mm}")
    pixels: str = Field(description="{mm}")
    no_scale: str = Field(description="{count}")
    read_by: str
    parts: dict[str, str]
    repairs: dict[str, str] = Field(description="flag -> sentence")

    @model_validator(mode="after")
    def _filled(self) -> Self:
        for field, text in self:
            if isinstance(text, str):
                _check_slots(self, field, (text,))
        unknown = sorted(set(self.repairs) - set(Flag))
        if unknown:
            raise ValueError(
                f"repairs: there is no flag {unknown[0]!r}; flags are {', '.join(Flag)}"
            )
        return self


def _check_slots(words: Settings, field: str, texts: Iterable[str]) -> None:
    """Every text of a field has the slots that its description names; an empty one says nothing."""
    wanted = _slots(type(words).model_fields[field].description or "")
    for text in texts:
        try:
            found = _slots(text)
        except ValueError as error:
            raise ValueError(f"{field}: {text!r}: {error}") from error
        if text and found != wanted:
            raise ValueError(
                f"{field}: {text!r} has the slots {sorted(found)}, and must have {sorted(wanted)}"
            )


def _slots(text: str) -> set[str]:
    return {slot for _, slot, _, _ in Formatter().parse(text) if slot is not None}


class Language(Settings):
    """One language, valid once built."""

    code: str = Field(description="ISO 639-1, such as en")
    name: str = Field(description="of the language, for prompts")
    from_graph: bool = Field(default=False, description="take names from the knowledge graph too")
    decimal: str = Field(default=".", min_length=1, max_length=1, description="decimal sign")
    hu_unit: str = Field(default="HU", description="unit of attenuation as written")
    findings_header: str
    impression_header: str
    names: dict[str, Name] = Field(description="label -> its words")
    adjectives: dict[str, dict[str, str]] = Field(description="attribute -> value -> words")
    margins: str = Field(default="", description="{value}: how a margin may be told behind")
    sides: dict[Literal["left", "right", "midline"], str] = Field(description="as written")
    levels: dict[str, str] = Field(default={}, description="level -> words, where they differ")
    organs: dict[str, str] = Field(default={}, description="organ key -> words")
    reading: Reading
    prompt: Prompt
    patterns: Patterns | None = Field(default=None, description="null: written by own code")
    technique: TechniqueWords | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not _CODE.fullmatch(self.code):
            raise ValueError(f"code: {self.code!r} is no ISO 639-1 code such as en")
        if (self.patterns is None) != (self.technique is None):
            raise ValueError("patterns and technique: give both or neither")
        if self.patterns is None and self.code != "en":
            raise ValueError("patterns: only English is written without them; add them")
        if len(self.sides) < 3:
            raise ValueError("sides: give words for left, right and midline")
        return self


@cache
def load_language(language: str = "en") -> Language:
    """Read a terminology file; it is read once and then shared.

    Args:
        language: the code of a packaged file, or the path of a YAML file.

    Raises:
        ConfigError: there is none, or it breaks a rule; the message names the field.
    """
    path = Path(language)
    packaged = resources.files("raypipe.knowledge") / "terms"
    file = packaged / f"{language}.yaml" if _CODE.fullmatch(language) else path
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=fast_safe_loader())
        return Language.model_validate(raw)
    except OSError as error:
        known = sorted(f.name.removesuffix(".yaml") for f in packaged.iterdir())
        raise ConfigError(
            f"report.language: {language!r} is neither one of {', '.join(known)} nor a readable "
            "YAML file of terms"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"report.language: the terms of {language!r} are not in UTF-8; save them so"
        ) from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"report.language: the terms of {language!r}: {error}") from error
