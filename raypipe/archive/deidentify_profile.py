"""The table of DICOM PS3.15 Annex E: what happens to each attribute that may name somebody.

In: the packaged `deidentify_profile.yaml`. Out: a Profile that gives the action of a tag.
Does not know: datasets, how an action is carried out.
"""

from enum import StrEnum
from functools import cache, cached_property
from importlib import resources

import yaml
from pydantic import Field

from raypipe.settings import Settings


class Action(StrEnum):
    """What is done with an attribute, as the table writes it."""

    DUMMY = "D"
    EMPTY = "Z"
    REMOVE = "X"
    UID = "U"
    EMPTY_OR_DUMMY = "Z/D"
    REMOVE_OR_EMPTY = "X/Z"
    REMOVE_OR_DUMMY = "X/D"
    REMOVE_OR_EMPTY_OR_DUMMY = "X/Z/D"
    REMOVE_OR_EMPTY_OR_UID = "X/Z/U*"

    @property
    def step(self) -> "Action":
        """The one of its alternatives that is valid whatever IOD the object has: the last.

        A dummy, an empty value and a keyed UID tell as little as a missing attribute does.
        """
        return Action(self.value.rsplit("/", 1)[-1].rstrip("*"))


class Profile(Settings):
    """The table: actions of the basic profile, and what its options keep."""

    edition: str = Field(description="edition of the standard")
    actions: dict[str, tuple[Action, str]] = Field(
        description="ggggeeee, x for any digit -> action, name of the attribute"
    )
    retain_device: frozenset[str] = Field(description="kept by the option for devices")
    retain_patient: frozenset[str] = Field(description="kept by the option for patients")

    @cached_property
    def _numbers(self) -> dict[int, Action]:
        return {int(key, 16): a for key, (a, _) in self.actions.items() if "x" not in key}

    @cached_property
    def _repeating(self) -> dict[str, Action]:
        return {key: action for key, (action, _) in self.actions.items() if "x" in key}

    def action(self, tag: int) -> Action | None:
        """What the basic profile does with a tag; None where it keeps it."""
        group, element = tag >> 16, tag & 0xFFFF
        if group % 2:
            return Action.REMOVE
        if group & 0xFF00 in (0x5000, 0x6000):
            start = f"{group >> 8:02x}xx"
            return self._repeating.get(f"{start}{element:04x}", self._repeating.get(f"{start}xxxx"))
        return self._numbers.get(tag)


@cache
def load_profile() -> Profile:
    """The packaged table; it is read once and then shared."""
    file = resources.files("raypipe.archive") / "deidentify_profile.yaml"
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Profile.model_validate(yaml.load(file.read_text(encoding="utf-8"), Loader=loader))
