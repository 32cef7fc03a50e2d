"""The organ codes of the phantom's label map.

In: nothing. Out: one enum, and the groups that lesions and textures ask for.
Does not know: shapes, Hounsfield units.
"""

from enum import IntEnum


class Organ(IntEnum):
    """A code of the uint8 organ map."""

    AIR = 0
    TABLE = 1
    SKIN = 2
    SUBCUTANEOUS_FAT = 3
    MUSCLE = 4
    BONE = 5
    VERTEBRA = 6
    LUNG_RIGHT = 7
    LUNG_LEFT = 8
    LUNG_VESSEL = 9
    AIRWAY = 10
    MEDIASTINAL_FAT = 11
    HEART = 12
    AORTA = 13
    VEIN = 14
    LIVER = 15
    GALLBLADDER = 16
    SPLEEN = 17
    PANCREAS = 18
    ADRENAL_RIGHT = 19
    ADRENAL_LEFT = 20
    KIDNEY_RIGHT = 21
    KIDNEY_LEFT = 22
    RENAL_SINUS = 23
    STOMACH = 24
    BOWEL = 25
    ABDOMINAL_FAT = 26
    BLADDER = 27
    BRAIN = 28
    CSF = 29
    SINUS_AIR = 30
    ORBIT = 31
    OESOPHAGUS = 32


LUNGS = (Organ.LUNG_RIGHT, Organ.LUNG_LEFT, Organ.LUNG_VESSEL)
KIDNEYS = (Organ.KIDNEY_RIGHT, Organ.KIDNEY_LEFT)
ADRENALS = (Organ.ADRENAL_RIGHT, Organ.ADRENAL_LEFT)
BONES = (Organ.BONE, Organ.VERTEBRA)

ORGAN_NAMES: dict[int, str] = {int(organ): organ.name.lower() for organ in Organ}
"""Code of the organ map -> name."""
