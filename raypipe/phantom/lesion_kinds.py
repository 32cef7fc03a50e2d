"""What lesions look like, kind by kind: where they sit, how large, how dense.

In: a label and a random stream. Out: a LesionPlan.
Does not know: voxels, other anatomy.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raypipe.phantom.organs import ADRENALS, BONES, KIDNEYS, LUNGS, Organ

Form = Literal["blob", "effusion", "subdural"]
Margin = Literal["smooth", "lobulated", "irregular", "spiculated", "ill_defined"]
Density = Literal[
    "ground_glass", "part_solid", "fluid", "hypodense", "soft_tissue", "hyperdense", "calcified"
]


@dataclass(frozen=True, kw_only=True)
class LesionKind:
    """The ranges from which lesions of one label are drawn.

    Args:
        organs: where its centre lies.
        inside: share of the lesion that has to lie in these organs.
        spread: further organs that it may grow into.
        diameter_mm: common range; subtle ones reach below it.
        contrast_hu: over its surroundings; ignored where hu is given.
        hu: HU of its own.
        forms: how its mask is made.
        margins, densities: drawn from, with weights by repetition.
        elongation: longest over shortest axis, at most.
        measured_mm: longest edge in the slice plane, as it is seen, between which it is called so.
        near: its centre lies within 10 to 30 mm of these, where the map knows them.
    """

    organs: tuple[Organ, ...]
    inside: float = 0.9
    spread: tuple[Organ, ...] = ()
    diameter_mm: tuple[float, float]
    contrast_hu: tuple[float, float] | None = None
    hu: tuple[float, float] | None = None
    form: Form = "blob"
    margins: tuple[Margin, ...] = ("smooth",)
    densities: tuple[Density, ...]
    elongation: float = 1.3
    measured_mm: tuple[float, float] = (0.0, np.inf)
    near: tuple[Organ, ...] = ()


_FATS = (Organ.MEDIASTINAL_FAT, Organ.ABDOMINAL_FAT)

KINDS: dict[str, LesionKind] = {
    "pulmonary_nodule": LesionKind(
        organs=LUNGS, inside=0.8, spread=(*LUNGS, Organ.AIRWAY), diameter_mm=(6, 28), hu=(0, 55),
        margins=("smooth", "smooth", "lobulated", "spiculated", "ill_defined"),
        densities=("soft_tissue",) * 5 + ("part_solid", "ground_glass", "calcified"),
        measured_mm=(0.0, 30.0),
    ),
    "lung_mass": LesionKind(
        organs=LUNGS, inside=0.65, spread=(*LUNGS, Organ.AIRWAY), diameter_mm=(31, 75), hu=(15, 55),
        margins=("lobulated", "spiculated", "irregular"), densities=("soft_tissue",),
        elongation=1.6, measured_mm=(30.0, np.inf),
    ),
    "pulmonary_consolidation": LesionKind(
        organs=LUNGS, inside=0.5, spread=LUNGS, diameter_mm=(35, 110), hu=(-20, 50),
        margins=("ill_defined",), densities=("soft_tissue",), elongation=2.0,
    ),
    "pleural_effusion": LesionKind(
        organs=(Organ.LUNG_RIGHT, Organ.LUNG_LEFT), spread=LUNGS, diameter_mm=(12, 60),
        hu=(3, 25),
        form="effusion", densities=("fluid",),
    ),
    "liver_cyst": LesionKind(
        organs=(Organ.LIVER,), diameter_mm=(8, 60), hu=(-2, 14), densities=("fluid",),
        spread=(Organ.LIVER, *_FATS), inside=0.85, margins=("smooth",), elongation=1.2,
    ),
    "liver_mass": LesionKind(
        organs=(Organ.LIVER,), diameter_mm=(12, 80), contrast_hu=(-55, -18),
        spread=(Organ.LIVER,), inside=0.85,
        margins=("smooth", "lobulated", "irregular", "ill_defined"),
        densities=("hypodense", "hypodense", "hypodense", "hyperdense"),
    ),
    "renal_cyst": LesionKind(
        organs=KIDNEYS, inside=0.35, diameter_mm=(8, 65), hu=(-3, 16), densities=("fluid",),
        spread=(*KIDNEYS, Organ.RENAL_SINUS, *_FATS), elongation=1.15,
    ),
    "renal_mass": LesionKind(
        organs=KIDNEYS, inside=0.3, diameter_mm=(15, 80), hu=(32, 70),
        spread=(*KIDNEYS, Organ.RENAL_SINUS, *_FATS),
        margins=("smooth", "lobulated"), densities=("soft_tissue",),
    ),
    "kidney_stone": LesionKind(
        organs=(Organ.RENAL_SINUS, *KIDNEYS), inside=0.6, diameter_mm=(3, 14), hu=(450, 1300),
        spread=(Organ.RENAL_SINUS, *KIDNEYS), densities=("calcified",), elongation=1.6,
    ),
    "gallstone": LesionKind(
        organs=(Organ.GALLBLADDER,), inside=0.75, diameter_mm=(4, 18), hu=(110, 700),
        spread=(Organ.GALLBLADDER,), densities=("calcified",), elongation=1.2,
    ),
    "adrenal_nodule": LesionKind(
        organs=ADRENALS, inside=0.03, diameter_mm=(10, 40), hu=(-12, 38),
        spread=(*ADRENALS, *_FATS), densities=("soft_tissue",), margins=("smooth",),
    ),
    "lymph_node_enlargement": LesionKind(
        organs=_FATS, inside=0.5, diameter_mm=(12, 35), hu=(30, 60), spread=_FATS,
        near=(Organ.AORTA, Organ.VEIN, Organ.AIRWAY),
        margins=("smooth", "lobulated"), densities=("soft_tissue",), elongation=1.6,
    ),
    "osteolytic_lesion": LesionKind(
        organs=(Organ.VERTEBRA,), inside=0.7, diameter_mm=(8, 26), hu=(20, 70), spread=BONES,
        margins=("smooth", "ill_defined"), densities=("soft_tissue",),
    ),
    "intracranial_haemorrhage": LesionKind(
        organs=(Organ.BRAIN,), inside=0.85, diameter_mm=(12, 60), hu=(56, 78),
        spread=(Organ.BRAIN, Organ.CSF), margins=("smooth", "irregular"),
        densities=("hyperdense",), elongation=1.7,
    ),
    "subdural_haematoma": LesionKind(
        organs=(Organ.BRAIN,), diameter_mm=(8, 24), hu=(48, 75), form="subdural",
        spread=(Organ.BRAIN, Organ.CSF), densities=("hyperdense",),
    ),
    "brain_infarct": LesionKind(
        organs=(Organ.BRAIN,), inside=0.7, diameter_mm=(15, 75), contrast_hu=(-18, -7),
        spread=(Organ.BRAIN,), margins=("ill_defined",), densities=("hypodense",), elongation=1.9,
    ),
}  # fmt: skip
"""Label (key of a finding in the knowledge graph) -> how it is drawn."""

_HEAD = ("intracranial_haemorrhage", "subdural_haematoma", "brain_infarct")
_CHEST = (
    "pulmonary_nodule", "pulmonary_nodule", "lung_mass", "pleural_effusion",
    "pulmonary_consolidation", "lymph_node_enlargement",
)  # fmt: skip
_ABDOMEN = (
    "liver_cyst", "liver_mass", "renal_cyst", "renal_mass", "kidney_stone", "gallstone",
    "adrenal_nodule", "lymph_node_enlargement",
)  # fmt: skip
DEFAULT_LABELS: dict[str, tuple[str, ...]] = {
    "head": _HEAD,
    "chest": _CHEST,
    "abdomen": _ABDOMEN,
    "chest_abdomen": _CHEST + _ABDOMEN,
}
"""Region -> labels that a phantom draws from when only a count is given."""


@dataclass(frozen=True, kw_only=True)
class LesionPlan:
    """One lesion as it was drawn, before it has a place.

    Args:
        label: what it is.
        kind: where it may lie.
        diameter_mm: nominal, of its longest axis.
        radii_mm: half axes along its own three axes.
        turn: (3, 3) rotation of those axes.
        hu: its own HU, or None where contrast_hu counts.
        contrast_hu: over its surroundings, or None.
        opacity: share of a voxel that it fills (ground glass fills half).
        margin, density, shape: for the truth.
        seed: for its surface.
    """

    label: str
    kind: LesionKind
    diameter_mm: float
    radii_mm: tuple[float, float, float]
    turn: np.ndarray
    hu: float | None
    contrast_hu: float | None
    opacity: float
    margin: Margin
    density: Density
    shape: str
    seed: int


def plan_lesion(label: str, rng: np.random.Generator, *, subtle: bool | None) -> LesionPlan:
    """Draw size, density and surface of a lesion.

    subtle: True for a small or faint one, False for a plain one, None for one in five subtle.
    """
    kind = KINDS[label]
    faint = bool(rng.random() < 0.2) if subtle is None else subtle
    low, high = kind.diameter_mm
    diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    density = kind.densities[rng.integers(len(kind.densities))]
    margin = kind.margins[rng.integers(len(kind.margins))]
    hu = float(rng.uniform(*kind.hu)) if kind.hu else None
    contrast = float(rng.uniform(*kind.contrast_hu)) if kind.contrast_hu else None
    if faint:
        diameter, contrast = _subtler(label, diameter, contrast, rng)
    if density == "calcified" and label == "pulmonary_nodule":
        hu, diameter, margin = float(rng.uniform(250, 700)), min(diameter, 14.0), "smooth"
    if contrast is not None and density == "hyperdense":
        contrast = -contrast
    if density == "ground_glass" and margin == "spiculated":
        margin = "ill_defined"
    opacity = float(rng.uniform(0.3, 0.5)) if density == "ground_glass" else 1.0
    ratio = rng.uniform(1.0, kind.elongation, 2)
    axes = diameter / 2 / np.array([1.0, ratio.min(), ratio.max()])
    shape = "oval" if ratio.max() > 1.25 else "round"
    if kind.form != "blob":
        shape = "crescent"
    elif margin in ("spiculated", "irregular", "ill_defined") or label == "pulmonary_consolidation":
        shape = "irregular"
    return LesionPlan(
        label=label,
        kind=kind,
        diameter_mm=diameter,
        radii_mm=(float(axes[0]), float(axes[1]), float(axes[2])),
        turn=_random_turn(rng),
        hu=hu,
        contrast_hu=contrast,
        opacity=opacity,
        margin=margin,
        density=density,
        shape=shape,
        seed=int(rng.integers(2**31)),
    )


def _subtler(
    label: str, diameter: float, contrast: float | None, rng: np.random.Generator
) -> tuple[float, float | None]:
    low = KINDS[label].diameter_mm[0]
    if label == "pulmonary_nodule":
        return float(rng.uniform(3.5, 6.0)), contrast
    if contrast is not None:
        return diameter, contrast * 0.6
    return float(rng.uniform(0.75, 1.1) * low), contrast


def _random_turn(rng: np.random.Generator) -> np.ndarray:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.diag(r)))


def severity(label: str, diameter_mm: float) -> str:
    """ "mild", "moderate" or "severe", by thirds of the label's size range (logarithmic)."""
    low, high = KINDS[label].diameter_mm
    share = np.log(max(diameter_mm, 1e-3) / low) / np.log(high / low)
    return "mild" if share < 0.34 else "moderate" if share < 0.67 else "severe"
