"""A DICOM structured report of one result row: TID 1500, one measurement group a finding.

In: a result row, the stored slices of its series. Out: a Comprehensive 3D SR document.
Does not know: files, where headers come from, whether they carry a patient's identity: what stands
in them is copied.

The region of a finding is its box on the slice that shows it best, as a closed polyline (TID 1410).
The sentences of the report stand as text under "Qualitative Evaluations". Nothing is claimed for a
series without findings but that none are reported.
"""

from collections.abc import Sequence
from datetime import datetime

import highdicom as hd
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from raypipe.sink import codes as own
from raypipe.sink.codes import Coded
from raypipe.sink.dicom_source import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSIS,
    Placed,
    SourceSlice,
    completed_headers,
    content_of,
    derived_uid,
    parameters_of,
    place_findings,
    quiet_dicom,
    software_of,
    stamp,
)
from raypipe.sink.schema import Row

SERIES_NUMBER = 9001
_QUALITATIVE = hd.sr.CodedConcept("C0034375", "UMLS", "Qualitative Evaluations")
_LANGUAGE = Coded("121049", "DCM", "Language of Content Item and Descendants")
_SECTIONS = {"findings": codes.DCM.Finding, "impression": codes.DCM.Impression}


@quiet_dicom()
def structured_report(
    row: Row, slices: Sequence[SourceSlice], made_at: datetime | None = None
) -> Dataset:
    """The structured report of one row.

    Args:
        row: a result row with status "ok".
        slices: all slices of its series, at least one.
        made_at: date of the document; None gives a dummy.

    Raises:
        ValueError: the row is not "ok", or there are no slices.
    """
    if row["status"] != "ok" or not slices:
        raise ValueError("a structured report needs a row that is ok and its stored slices")
    placed = place_findings(row, slices)
    key = row["series_key"]
    shown = list(dict.fromkeys([p.key.index for p in placed] or [0]))
    completed = completed_headers([slices[index] for index in shown], key)
    headers = dict(zip(shown, completed, strict=True))
    evidence = list({h.SOPInstanceUID: h for h in headers.values()}.values())
    content = _content(row, placed, slices, headers)
    document = hd.sr.Comprehensive3DSR(
        evidence=evidence,
        content=content[0],
        series_instance_uid=derived_uid("sr series", evidence[0].SeriesInstanceUID),
        series_number=SERIES_NUMBER,
        sop_instance_uid=derived_uid("sr", evidence[0].SOPInstanceUID, content_of(row)),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=software_of(row),
        series_description=f"{MANUFACTURER} findings, research use only",
        is_complete=True,
        specific_character_set="ISO_IR 192",
        coding_schemes=[coding_scheme()],
    )
    stamp(document, made_at)
    return document


def coding_scheme() -> CodingSchemeIdentificationItem:
    """What the private scheme is, for whoever reads its codes."""
    return CodingSchemeIdentificationItem(
        designator=own.PRIVATE_SCHEME,
        name="Keys of the raypipe knowledge graph",
        responsible_organization=MANUFACTURER,
    )


def concept(coded: Coded) -> hd.sr.CodedConcept:
    """A concept as highdicom takes it."""
    return hd.sr.CodedConcept(coded.value, coded.scheme, coded.meaning[:64])


def _content(
    row: Row, placed: Sequence[Placed], slices: Sequence[SourceSlice], headers: dict[int, Dataset]
) -> hd.sr.MeasurementReport:
    algorithm = hd.sr.AlgorithmIdentification(
        name=f"{MANUFACTURER} detector", version=software_of(row), parameters=parameters_of(row)
    )
    groups = [
        _group(item, row["series_key"], slices[item.key.index], headers[item.key.index], algorithm)
        for item in placed
    ]
    report = hd.sr.MeasurementReport(
        observation_context=_observer(row),
        procedure_reported=codes.cid100.CTUnspecifiedBodyRegion,
        imaging_measurements=groups or [_nothing_reported(row, algorithm)],
    )
    report[0].ContentSequence.append(_narrative(row))
    _forget_language(report)
    return report


def _forget_language(report: hd.sr.MeasurementReport) -> None:
    """Take out the language: highdicom says English, a row does not tell what its text is in."""
    language = concept(_LANGUAGE)
    items = [item for item in report[0].ContentSequence if item.name != language]
    report[0].ContentSequence = hd.sr.ContentSequence(items)


def _observer(row: Row) -> hd.sr.ObservationContext:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", MANUFACTURER, software_of(row)),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=MANUFACTURER,
    )
    return hd.sr.ObservationContext(
        observer_device_context=hd.sr.ObserverContext(codes.cid270.Device, device)
    )


def tracking_uid(series_key: str, finding_id: str) -> str:
    """The UID that a finding has in every object about it."""
    return derived_uid("finding", series_key, finding_id)


def _group(
    item: Placed,
    series_key: str,
    stored: SourceSlice,
    header: Dataset,
    algorithm: hd.sr.AlgorithmIdentification,
) -> hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    finding = item.finding
    (y0, x0), (y1, x1) = item.key.lower_yx, item.key.upper_yx
    region = hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]),
        source_image=hd.sr.SourceImageForRegion(
            referenced_sop_class_uid=header.SOPClassUID,
            referenced_sop_instance_uid=header.SOPInstanceUID,
            referenced_frame_numbers=None if stored.frame is None else [stored.frame],
        ),
    )
    return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=tracking_uid(series_key, finding.finding_id), identifier=finding.finding_id
        ),
        referenced_region=region,
        finding_type=concept(own.finding_code(finding.label)),
        finding_sites=_sites(item),
        algorithm_id=algorithm,
        measurements=_measurements(item),
        qualitative_evaluations=_qualities(item),
    )


def _sites(item: Placed) -> list[hd.sr.FindingSite] | None:
    organ = own.organ_code(item.finding.label)
    side = own.SIDES.get(item.finding.side or "")
    if organ is None and side is None:
        return None
    body = own.Coded("123037004", "SCT", "Body structure")
    lateral = side if side in (own.LEFT, own.RIGHT) else None
    return [
        hd.sr.FindingSite(
            anatomic_location=concept(organ or body),
            laterality=concept(lateral) if lateral else None,
            topographical_modifier=concept(own.MIDLINE) if side == own.MIDLINE else None,
        )
    ]


def _measurements(item: Placed) -> list[hd.sr.Measurement]:
    finding = item.finding
    values = [
        (own.DIAMETER, finding.diameter_mm, own.MILLIMETRE, None),
        (own.ATTENUATION, finding.mean_hu, own.HOUNSFIELD, own.MEAN),
        (own.PROBABILITY, finding.probability, own.NO_UNITS, None),
        (own.SCORE, finding.score, own.NO_UNITS, None),
    ]
    return [
        hd.sr.Measurement(
            name=concept(name),
            value=float(value),
            unit=concept(unit),
            derivation=concept(how) if how else None,
        )
        for name, value, unit, how in values
        if value is not None
    ]


def _qualities(item: Placed) -> list[hd.sr.QualitativeEvaluation]:
    finding = item.finding
    pairs = [(own.private(name), own.private(value)) for name, value in finding.attributes.items()]
    if finding.level:
        pairs.append((own.LEVEL, own.private(finding.level)))
    return [hd.sr.QualitativeEvaluation(concept(name), concept(value)) for name, value in pairs]


def _nothing_reported(
    row: Row, algorithm: hd.sr.AlgorithmIdentification
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """The template demands a group: it says that the number of findings reported is 0."""
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(
            uid=tracking_uid(row["series_key"], "none"), identifier="none"
        ),
        algorithm_id=algorithm,
        measurements=[
            hd.sr.Measurement(concept(own.FINDINGS_REPORTED), 0.0, concept(own.NO_UNITS))
        ],
    )


def _narrative(row: Row) -> hd.sr.ContainerContentItem:
    """The sentences of the report, and that nobody may be treated by them."""
    contains = hd.sr.RelationshipTypeValues.CONTAINS
    container = hd.sr.ContainerContentItem(name=_QUALITATIVE, relationship_type=contains)
    report = row["report"] or {}
    texts = [(codes.DCM.Comment, NOT_FOR_DIAGNOSIS)]
    if report.get("technique"):
        texts.append((codes.DCM.Comment, report["technique"]))
    if report.get("needs_review"):
        reasons = ", ".join(report["review_reasons"])
        texts.append((codes.DCM.Comment, f"The text needs review: {reasons}."))
    for section, name in _SECTIONS.items():
        texts += [(name, sentence["text"]) for sentence in report.get(section) or ()]
    container.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.TextContentItem(name, text, contains) for name, text in texts]
    )
    return container
