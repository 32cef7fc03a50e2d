"""Codes for what raypipe writes into DICOM and FHIR.

In: keys of the knowledge graph, names of attributes. Out: Coded concepts.
Does not know: DICOM and FHIR objects.

RadLex where the graph has a code, SNOMED CT, DICOM and UCUM for what every report shares, and the
private scheme 99RAYPIPE, whose codes are the graph's own keys, for all else. The graph's GAMUTS and
RADELEMENT codes name pages and sets of data elements rather than findings; FHIR carries them
besides.
"""

from dataclasses import dataclass

from raypipe.knowledge.graph import load_graph

PRIVATE_SCHEME = "99RAYPIPE"


@dataclass(frozen=True)
class Coded:
    """One coded concept.

    Args:
        value: the code.
        scheme: designator of the coding scheme, as DICOM names it.
        meaning: for people.
    """

    value: str
    scheme: str
    meaning: str


def private(value: str, meaning: str | None = None) -> Coded:
    """A concept of raypipe's own scheme."""
    return Coded(value, PRIVATE_SCHEME, meaning or value.replace("_", " "))


LEFT = Coded("7771000", "SCT", "Left")
RIGHT = Coded("24028007", "SCT", "Right")
MIDLINE = Coded("261129000", "SCT", "Midline")
SIDES = {"left": LEFT, "right": RIGHT, "midline": MIDLINE}

MEAN = Coded("373098007", "SCT", "Mean")
DIAMETER = Coded("81827009", "SCT", "Diameter")
ATTENUATION = Coded("112031", "DCM", "Attenuation Coefficient")
PROBABILITY = private("probability", "Calibrated probability")
SCORE = private("score", "Uncalibrated score")
LEVEL = private("level", "Anatomical level or region")
FINDINGS_REPORTED = private("findings_reported", "Number of findings reported")

MILLIMETRE = Coded("mm", "UCUM", "millimeter")
HOUNSFIELD = Coded("[hnsf'U]", "UCUM", "Hounsfield unit")
NO_UNITS = Coded("1", "UCUM", "no units")


def finding_code(label: str) -> Coded:
    """The main code of a finding; a label that the graph lacks has its private code."""
    node = load_graph().findings.get(label)
    if node is None:
        return private(label)
    return _radlex(node.codes.get("RADLEX"), label, node.name)


def finding_codes(label: str) -> tuple[Coded, ...]:
    """Every code of a finding, the main one first."""
    node = load_graph().findings.get(label)
    others = {} if node is None else node.codes
    main = finding_code(label)
    rest = [Coded(code, scheme, main.meaning) for scheme, code in sorted(others.items())]
    own = [private(label, main.meaning)] if main.scheme != PRIVATE_SCHEME else []
    return (main, *own, *(c for c in rest if (c.value, c.scheme) != (main.value, main.scheme)))


def organ_code(label: str) -> Coded | None:
    """Where a finding occurs; None where the graph names no or several organs."""
    graph = load_graph()
    node = graph.findings.get(label)
    if node is None or len(node.occurs_in) != 1:
        return None
    key = node.occurs_in[0]
    organ = graph.anatomy[key]
    return _radlex(organ.codes.get("RADLEX"), key, organ.name)


def _radlex(code: str | None, key: str, name: str) -> Coded:
    return Coded(code, "RADLEX", name) if code else private(key, name)
