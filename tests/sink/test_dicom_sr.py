"""raypipe/sink/dicom_sr.py, read back by highdicom and by an independent validator."""

import io
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.sr.codedict import codes

from raypipe.sink.dicom_source import NOT_FOR_DIAGNOSIS, encoded
from raypipe.sink.dicom_sr import structured_report
from raypipe.stages import geometry_of
from tests.export_rows import FINISHED, result_row, source_slices
from tests.sink.conftest import Case

Groups = list[hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations]


def _read(case: Case) -> hd.sr.Comprehensive3DSR:
    document = structured_report(case.row, source_slices(case.manifest_row))
    return hd.sr.srread(io.BytesIO(encoded(document)))


def _groups(document: hd.sr.Comprehensive3DSR) -> Groups:
    return document.content.get_planar_roi_measurement_groups()


def _texts(document: hd.sr.Comprehensive3DSR) -> list[tuple[str, str]]:
    containers = document.content[0].ContentSequence
    (narrative,) = [c for c in containers if c.name.meaning == "Qualitative Evaluations"]
    return [(item.name.meaning, item.value) for item in narrative.ContentSequence]


def test_one_group_a_finding_with_its_values(case: Case) -> None:
    groups = _groups(_read(case))
    assert len(groups) == len(case.phantom.lesions)
    for group, lesion, finding in zip(
        groups, case.phantom.lesions, case.row["findings"], strict=True
    ):
        assert group.tracking_identifier == finding["finding_id"]
        assert group.finding_type.value == lesion.label
        assert group.finding_type.scheme_designator == "99RAYPIPE"
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        assert values["Diameter"] == (pytest.approx(lesion.diameter_mm), "mm")
        assert values["Attenuation Coefficient"] == (pytest.approx(lesion.mean_hu), "[hnsf'U]")
        assert values["Calibrated probability"] == (0.5, "1")
        assert values["Uncalibrated score"] == (0.75, "1")
        (attenuation,) = [
            m for m in group.get_measurements() if m.name.meaning == "Attenuation Coefficient"
        ]
        assert attenuation.derivation == codes.SCT.Mean
        said = {q[0].name.value: q[0].value.value for q in group.get_qualitative_evaluations()}
        assert said == {**lesion.attributes, "level": "upper third"}


def test_side_and_organ(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    sides = {"left": codes.SCT.Left, "right": codes.SCT.Right}
    for group, lesion in zip(_groups(_read(case)), case.phantom.lesions, strict=True):
        (site,) = group.finding_sites
        assert site.laterality == sides[lesion.side]
    by_label = {g.finding_type.value: g.finding_sites[0].value for g in _groups(_read(case))}
    nodule = by_label["pulmonary_nodule"]
    assert (nodule.value, nodule.scheme_designator) == ("RID1301", "RADLEX")


def test_the_region_encloses_the_lesion_on_its_key_slice(case: Case) -> None:
    slices = source_slices(case.manifest_row)
    uids = {(str(s.header().SOPInstanceUID), s.frame): s for s in slices}
    geometry = geometry_of(case.row)
    for group, finding in zip(_groups(_read(case)), case.row["findings"], strict=True):
        region = group.roi
        reference = region.ContentSequence[0].ReferencedSOPSequence[0]
        frame = reference.get("ReferencedFrameNumber")
        stored = uids[(reference.ReferencedSOPInstanceUID, frame)]
        key = geometry.to_lps_mm([finding["key_slice"], 0.0, 0.0])
        assert abs(stored.points(key)[2]) < geometry.spacing_zyx_mm[0] / 2
        polygon = np.asarray(region.value)
        assert len(polygon) == 5 and (polygon[0] == polygon[-1]).all()
        center = stored.points(finding["center_lps_mm"])[:2]
        assert (polygon.min(axis=0) <= center).all() and (center <= polygon.max(axis=0)).all()
        size = (polygon.max(axis=0) - polygon.min(axis=0)) * stored.spacing_yx_mm[::-1]
        assert size == pytest.approx(finding["size_zyx_mm"][:0:-1], abs=0.01)


def test_only_the_shown_instances_are_evidence(case: Case) -> None:
    document = _read(case)
    named = {str(uids[2]) for uids in document.get_evidence()}
    shown = {
        str(g.roi.ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
        for g in _groups(document)
    }
    assert named == shown


def test_algorithm_text_and_notice(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    document = _read(case)
    texts = _texts(document)
    assert texts[0] == ("Comment", NOT_FOR_DIAGNOSIS)
    assert ("Comment", "The text needs review: number_differs.") in texts
    sentences = [("Finding", s["text"]) for s in case.row["report"]["findings"]]
    assert [t for t in texts if t[0] == "Finding"] == sentences
    assert ("Impression", "As described.") in texts
    items = _groups(document)[0][0].ContentSequence
    algorithm = [i.value for i in items if i.name.meaning.startswith("Algorithm")]
    version = case.row["provenance"]["raypipe"]
    wanted = ["raypipe detector", version, "weights_hash=wwwwwwww", "config_hash=cccccccc"]
    assert algorithm == wanted
    assert (document.CompletionFlag, document.VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert "research use only" in document.SeriesDescription


def test_a_series_without_findings_says_that_none_are_reported(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    row = result_row(case.manifest_row, case.indexed, None)
    document = structured_report(row, source_slices(case.manifest_row))
    read = hd.sr.srread(io.BytesIO(encoded(document)))
    assert not _groups(read)
    (group,) = read.content.get_image_measurement_groups()
    (count,) = group.get_measurements()
    assert (count.name.meaning, count.value) == ("Number of findings reported", 0.0)


def test_a_row_gives_the_same_bytes_and_another_row_another_uid(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    slices = source_slices(case.manifest_row)
    one = structured_report(case.row, slices)
    assert encoded(one) == encoded(structured_report(case.row, slices))
    changed = {**case.row, "findings": case.row["findings"][:1]}
    other = structured_report(changed, slices)
    assert other.SOPInstanceUID != one.SOPInstanceUID
    assert other.SeriesInstanceUID == one.SeriesInstanceUID


def test_dates_are_a_dummy_unless_one_is_given(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    slices = source_slices(case.manifest_row)
    assert structured_report(case.row, slices).ContentDate == "19000101"
    dated = structured_report(case.row, slices, FINISHED)
    assert (dated.ContentDate, dated.ContentTime) == ("20260304", "050607")


def test_header_values_that_break_their_rule_do_not_break_the_report(
    cases: dict[str, Case], recwarn: pytest.WarningsRecorder
) -> None:
    case = cases["plain"]
    slices = source_slices(case.manifest_row)
    for stored in slices:
        header = stored.header()
        header.PatientSex = "WEIBL"
        header.PatientBirthDate, header.StudyTime = "20001399", "noon"
        del header.StudyDate
        header.SpecificCharacterSet, header.PatientName = "ISO_IR 100", "Müller"
    read = dcmread(io.BytesIO(encoded(structured_report(case.row, slices))))
    assert read.PatientName == "Müller"
    for keyword in ("PatientSex", "PatientBirthDate", "StudyTime", "StudyDate"):
        assert read[keyword].is_empty, keyword
    assert not [w for w in recwarn if "ller" in str(w.message)]


def test_a_rejected_row_is_refused(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    with pytest.raises(ValueError, match="needs a row that is ok"):
        structured_report({**case.row, "status": "rejected"}, source_slices(case.manifest_row))


def test_an_independent_validator_finds_no_errors(
    case: Case, tmp_path: Path, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    path = tmp_path / "sr.dcm"
    for row in (case.row, result_row(case.manifest_row, case.indexed, None)):
        path.write_bytes(encoded(structured_report(row, source_slices(case.manifest_row))))
        assert dciodvfy_errors(path) == []


def test_no_language_is_claimed_for_text_of_any(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    report = {**case.row["report"], "technique": "CT des Thorax."}
    document = structured_report({**case.row, "report": report}, source_slices(case.manifest_row))
    assert "CT des Thorax." in str(document)
    assert "Language" not in str(document) and "English" not in str(document)
