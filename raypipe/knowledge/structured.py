"""Structured attributes of findings in the terms of Fleischner 2017 and Bosniak 2019.

In: what was measured on a finding: label, edges, mean HU, density. Out: size and attenuation
classes, None where they do not apply or were not measured.
Does not know: findings of other series, patients, what follows from a class.

These are classes of measurements on a detector's box, not of a contour drawn by a person. They are
no Fleischner category of management and no Bosniak class: risk factors, growth, number of nodules,
septa, wall, enhancement and the phase of contrast are not known here. Nothing is recommended.

Sources: MacMahon et al., Radiology 284 (2017) 228-243: the mean of long and short axis, rounded to
a whole mm, below 6 mm, 6 to 8 mm, above 8 mm. Silverman et al., Radiology 292 (2019) 475-488:
homogeneous masses without contrast medium of -9 to 20 HU, and of 70 HU and more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

NoduleSize = Literal["under_6_mm", "6_to_8_mm", "over_8_mm"]
NoduleType = Literal["solid", "part_solid", "ground_glass"]
RenalAttenuation = Literal["below_water", "water", "between", "hyperattenuating"]

NODULE = "pulmonary_nodule"
RENAL_LESIONS = frozenset({"renal_cyst", "renal_mass", "focal_renal_lesion"})
_TYPE_OF_DENSITY: dict[str, NoduleType] = {
    "soft_tissue": "solid",
    "calcified": "solid",
    "part_solid": "part_solid",
    "ground_glass": "ground_glass",
}


@dataclass(frozen=True, kw_only=True)
class Structured:
    """Classes of one finding.

    Args:
        nodule_mean_diameter_mm: mean of both edges within the slice plane, whole mm.
        nodule_size_class: of a pulmonary nodule, by that mean.
        nodule_type: of a pulmonary nodule, by its density.
        renal_attenuation_class: of a cystic or solid lesion of the kidney, by its mean HU.
    """

    nodule_mean_diameter_mm: float | None = None
    nodule_size_class: NoduleSize | None = None
    nodule_type: NoduleType | None = None
    renal_attenuation_class: RenalAttenuation | None = None


def structured(
    label: str,
    size_zyx_mm: Sequence[float],
    mean_hu: float | None,
    density: str | None,
    *,
    has_scale: bool = True,
) -> Structured:
    """The classes of a finding.

    Args:
        label: key of the finding.
        size_zyx_mm: edges of its box.
        mean_hu: over its inner part, None where the series has no HU.
        density: attribute of the finding, None where not told.
        has_scale: whether edges are mm; without a scale no size is classified.
    """
    if label == NODULE:
        mean = mean_diameter_mm(size_zyx_mm) if has_scale else None
        return Structured(
            nodule_mean_diameter_mm=mean,
            nodule_size_class=None if mean is None else nodule_size_class(mean),
            nodule_type=_TYPE_OF_DENSITY.get(density or ""),
        )
    if label in RENAL_LESIONS and mean_hu is not None and math.isfinite(mean_hu):
        return Structured(renal_attenuation_class=renal_attenuation_class(mean_hu))
    return Structured()


def mean_diameter_mm(size_zyx_mm: Sequence[float]) -> float | None:
    """Mean of both edges within the slice plane in whole mm, halves up; None where not finite."""
    _, y_mm, x_mm = size_zyx_mm
    mean = (y_mm + x_mm) / 2.0
    return float(math.floor(mean + 0.5)) if math.isfinite(mean) else None


def nodule_size_class(mean_mm: float) -> NoduleSize:
    """Size class of a pulmonary nodule by its mean diameter in whole mm."""
    if mean_mm < 6:
        return "under_6_mm"
    return "6_to_8_mm" if mean_mm <= 8 else "over_8_mm"


def renal_attenuation_class(mean_hu: float) -> RenalAttenuation:
    """Attenuation class of a lesion of the kidney by its mean in whole HU."""
    hu = round(mean_hu)
    if hu < -9:
        return "below_water"
    if hu <= 20:
        return "water"
    return "between" if hu < 70 else "hyperattenuating"
