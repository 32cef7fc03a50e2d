"""The body part of a series, from a closed list.

In: BodyPartExamined and the codes of an AnatomicRegionSequence. Out: a name, or None.
Does not know: free text. A description may name a patient, so it is never read.
"""

from collections.abc import Iterable

BODY_PARTS = (
    "head",
    "head_neck",
    "neck",
    "chest",
    "heart",
    "chest_abdomen",
    "chest_abdomen_pelvis",
    "abdomen",
    "abdomen_pelvis",
    "pelvis",
    "spine",
    "upper_extremity",
    "lower_extremity",
    "whole_body",
)
"""Every value that a manifest may hold."""

_TERMS = {
    "head": "HEAD BRAIN SKULL ORBIT ORBITS EYE FACE FACIAL SINUS SINUSES PARANASALSINUS JAW"
    " MANDIBLE MAXILLA EAR TEMPORALBONE IAC SELLA PITUITARY TEETH CALVARIUM PETROUS",
    "head_neck": "HEADNECK HEADANDNECK HEADNECKANGIO",
    "neck": "NECK CSOFTTISSUE THYROID LARYNX PHARYNX CAROTID",
    "chest": "CHEST THORAX LUNG LUNGS RIB RIBS STERNUM MEDIASTINUM BREAST BRONCHUS",
    "heart": "HEART CARDIAC CORONARY CORONARYARTERY THORACICAORTA",
    "chest_abdomen": "CHESTABDOMEN THORAXABDOMEN CHESTABD THORAXABD",
    "chest_abdomen_pelvis": "CHESTABDOMENPELVIS CHESTABDPELVIS CAP TAP TRUNK TORSO"
    " THORAXABDOMENPELVIS CHESTABDPELV",
    "abdomen": "ABDOMEN ABD LIVER KIDNEY KIDNEYS PANCREAS SPLEEN ADRENAL STOMACH GALLBLADDER"
    " ABDOMINALAORTA",
    "abdomen_pelvis": "ABDOMENPELVIS ABDPELVIS ABDPELV ABDOMENANDPELVIS COLON UROGRAM",
    "pelvis": "PELVIS BLADDER PROSTATE UTERUS SIJOINT SACRUM COCCYX RECTUM",
    "spine": "SPINE CSPINE TSPINE LSPINE CTSPINE TLSPINE LSSPINE CERVICALSPINE THORACICSPINE"
    " LUMBARSPINE WHOLESPINE VERTEBRA",
    "upper_extremity": "SHOULDER CLAVICLE SCAPULA HUMERUS ARM UPPERARM ELBOW FOREARM RADIUS ULNA"
    " WRIST HAND FINGER THUMB UPPEREXTREMITY",
    "lower_extremity": "HIP FEMUR THIGH KNEE PATELLA LEG LOWERLEG TIBIA FIBULA ANKLE FOOT TOE"
    " CALCANEUS LOWEREXTREMITY",
    "whole_body": "WHOLEBODY",
}
_PART_OF_TERM = {term: part for part, terms in _TERMS.items() for term in terms.split()}

_PART_OF_CODE = {
    # SNOMED RT and SNOMED CT codes of DICOM's context groups 4, 4030 and 4031
    **dict.fromkeys(("T-D1100", "69536005", "T-A0100", "12738006", "T-D1101"), "head"),
    **dict.fromkeys(("T-D1000", "774007"), "head_neck"),
    **dict.fromkeys(("T-D1600", "45048000"), "neck"),
    **dict.fromkeys(("T-D3000", "51185008", "T-28000", "39607008"), "chest"),
    **dict.fromkeys(("T-32000", "80891009"), "heart"),
    **dict.fromkeys(("R-FAB55", "416550000"), "chest_abdomen"),
    **dict.fromkeys(("R-FAB56", "416775004"), "chest_abdomen_pelvis"),
    **dict.fromkeys(("T-D4000", "113345001", "818981001", "T-62000", "10200004"), "abdomen"),
    **dict.fromkeys(("T-71000", "64033007"), "abdomen"),
    **dict.fromkeys(("R-FAB57", "416949008", "818982008"), "abdomen_pelvis"),
    **dict.fromkeys(("T-D6000", "12921003", "816092008"), "pelvis"),
    **dict.fromkeys(("T-11500", "421060004", "T-11501", "122494005"), "spine"),
    **dict.fromkeys(("T-11502", "122495006", "T-11503", "122496007"), "spine"),
    **dict.fromkeys(("T-D2220", "16982005", "T-15750", "T-D8000", "53120007"), "upper_extremity"),
    **dict.fromkeys(("T-D9000", "61685007", "T-D9200", "72696002", "24136001"), "lower_extremity"),
    **dict.fromkeys(("T-D0010", "38266002"), "whole_body"),
}


def body_part(examined: str, codes: Iterable[str] = ()) -> str | None:
    """The body part that a header names, None where it names none of the list.

    Args:
        examined: BodyPartExamined; spelling varies, so case and separators do not count.
        codes: code values of the anatomic region, which win.
    """
    for code in codes:
        if code in _PART_OF_CODE:
            return _PART_OF_CODE[code]
    return _PART_OF_TERM.get("".join(c for c in examined.upper() if c.isalnum()))
