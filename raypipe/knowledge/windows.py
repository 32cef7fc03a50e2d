"""HU windows: how Hounsfield units become the channels of a network or the grey of a picture.

In: HU as a numpy array or a torch tensor. Out: the same kind, from 0 to 1.
Does not know: grids, files, networks.
"""

from collections.abc import Iterable
from typing import Protocol, Self, TypeVar

from pydantic import model_validator

from raypipe.settings import Settings


class _Array(Protocol):
    def __sub__(self, other: float) -> Self: ...
    def __truediv__(self, other: float) -> Self: ...
    def clip(self, low: float, high: float) -> Self: ...


A = TypeVar("A", bound=_Array)


class Window(Settings):
    """A range of HU.

    Args:
        name: for pictures and fingerprints.
        low_hu: becomes 0.
        high_hu: becomes 1.
    """

    name: str
    low_hu: float
    high_hu: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.high_hu <= self.low_hu:
            raise ValueError(
                f"window {self.name}: high_hu {self.high_hu} must exceed {self.low_hu}"
            )
        return self

    def apply(self, hu: A) -> A:
        """Map HU (any shape, floating point) to 0..1 and clip."""
        return ((hu - self.low_hu) / (self.high_hu - self.low_hu)).clip(0.0, 1.0)


LUNG = Window(name="lung", low_hu=-1350.0, high_hu=150.0)
SOFT_TISSUE = Window(name="soft_tissue", low_hu=-160.0, high_hu=240.0)
BONE = Window(name="bone", low_hu=-450.0, high_hu=1050.0)
BRAIN = Window(name="brain", low_hu=0.0, high_hu=80.0)

NETWORK_WINDOWS = (LUNG, SOFT_TISSUE, BONE)
"""The three channels that the networks see by default."""

_ORGAN_WINDOWS = {
    "lung": LUNG,
    "airway": LUNG,
    "brain": BRAIN,
    "ventricle": BRAIN,
    "subdural_space": BRAIN,
    "epidural_space": BRAIN,
    "subarachnoid_space": BRAIN,
    "skull": BONE,
    "spine": BONE,
    "rib": BONE,
    "bone": BONE,
}


def anatomy_window(anatomy: Iterable[str]) -> Window:
    """The window in which people look at what occurs in this anatomy (ids of the graph)."""
    return next(
        (_ORGAN_WINDOWS[organ] for organ in anatomy if organ in _ORGAN_WINDOWS), SOFT_TISSUE
    )
