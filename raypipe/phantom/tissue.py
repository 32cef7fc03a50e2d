"""Hounsfield units of tissues in one patient at one contrast phase.

In: a random stream and the phase. Out: HU a tissue.
Does not know: shapes.
"""

from typing import Literal

import numpy as np

ContrastPhase = Literal["none", "arterial", "portal"]

_HU: dict[str, tuple[float, float, float, float]] = {
    # tissue: without contrast, arterial, portal venous, deviation between patients
    "skin": (20, 25, 30, 8),
    "fat": (-105, -105, -103, 5),
    "muscle": (52, 58, 62, 5),
    "lung": (-855, -850, -850, 20),
    "blood": (42, 300, 160, 6),
    "vein": (42, 110, 165, 6),
    "myocardium": (45, 105, 110, 6),
    "liver": (56, 70, 110, 8),
    "hepatic_vein": (40, 85, 160, 6),
    "spleen": (48, 120, 118, 6),
    "pancreas": (40, 95, 85, 6),
    "adrenal": (25, 65, 60, 8),
    "kidney": (33, 110, 165, 6),
    "renal_cortex": (34, 190, 178, 8),
    "urine": (6, 8, 12, 3),
    "bile": (8, 8, 10, 4),
    "gut_wall": (42, 85, 80, 6),
    "gut_content": (22, 22, 25, 10),
    "cartilage": (95, 95, 98, 12),
    "trabecular": (185, 190, 195, 40),
    "cortical": (620, 630, 630, 70),
    "disc": (85, 88, 90, 8),
    "cord": (36, 40, 40, 4),
    "grey": (38, 41, 42, 1.2),
    "white": (29, 30, 31, 1.0),
    "csf": (6, 6, 6, 1.5),
    "skull": (1150, 1150, 1150, 120),
    "diploe": (480, 480, 480, 90),
}


def tissue_hu(rng: np.random.Generator, phase: ContrastPhase) -> dict[str, float]:
    """Draw the HU of every tissue; the strength of the enhancement varies by patient."""
    column = {"none": 0, "arterial": 1, "portal": 2}[phase]
    strength = rng.uniform(0.75, 1.25)
    drawn = {}
    for name, values in _HU.items():
        plain, deviation = values[0], values[3]
        enhancement = (values[column] - plain) * strength
        drawn[name] = float(plain + enhancement + rng.normal(0.0, deviation))
    return drawn
