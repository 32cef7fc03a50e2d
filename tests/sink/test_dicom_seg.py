"""raypipe/sink/dicom_seg.py, read back by highdicom and by an independent validator."""

import io
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from pydicom.dataset import Dataset

from raypipe.geometry import Box, Geometry
from raypipe.sink.dicom_seg import BOX_NOTICE, segmentation
from raypipe.sink.dicom_source import encoded
from raypipe.sink.dicom_sr import structured_report
from raypipe.sink.schema import typed_finding
from raypipe.stages import geometry_of
from tests.export_rows import result_row, source_slices
from tests.sink.conftest import Case


def _read(case: Case) -> hd.seg.Segmentation:
    document = segmentation(case.row, source_slices(case.manifest_row))
    return hd.seg.segread(io.BytesIO(encoded(document)))


def _voxels_lps_mm(document: hd.seg.Segmentation, segment: int) -> np.ndarray:
    """Patient positions of the voxels of one segment, from the file's own geometry."""
    return np.concatenate(list(_frames_lps_mm(document, segment)))


def _frames_lps_mm(document: hd.seg.Segmentation, segment: int) -> Iterator[np.ndarray]:
    shared = document.SharedFunctionalGroupsSequence[0]
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    for pixels, groups in zip(
        document.pixel_array, document.PerFrameFunctionalGroupsSequence, strict=True
    ):
        if groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber != segment:
            continue
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        rows, columns = np.nonzero(pixels)
        yield (
            position
            + columns[:, None] * cosines[:3] * float(spacing[1])
            + rows[:, None] * cosines[3:] * float(spacing[0])
        )


def test_each_segment_is_the_box_of_its_finding(case: Case) -> None:
    document = _read(case)
    geometry = geometry_of(case.row)
    assert document.number_of_segments == len(case.row["findings"])
    for number, value in enumerate(case.row["findings"], start=1):
        finding = typed_finding(value)
        index = geometry.to_index(_voxels_lps_mm(document, number)) + 0.5
        lower, upper = np.array(finding.box_zyx.lower_zyx), np.array(finding.box_zyx.upper_zyx)
        assert (index >= lower - 0.51).all() and (index <= upper + 0.51).all()
        assert (index.min(axis=0) <= lower + 1.01).all()
        assert (index.max(axis=0) >= upper - 1.01).all()
        description = document.get_segment_description(number)
        assert description.SegmentLabel.startswith(finding.finding_id)
        assert description.segmented_property_type.value == finding.label
        assert BOX_NOTICE in description.SegmentDescription


@pytest.mark.parametrize("name", ["plain", "reversed", "enhanced"])
def test_voxels_are_exactly_those_of_the_box(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    document = _read(case)
    geometry = geometry_of(case.row)
    for number, value in enumerate(case.row["findings"], start=1):
        inside = typed_finding(value).box_zyx.slices(geometry.shape_zyx)
        wanted = {
            (z, y, x)
            for z in range(inside[0].start, inside[0].stop)
            for y in range(inside[1].start, inside[1].stop)
            for x in range(inside[2].start, inside[2].stop)
        }
        index = np.rint(geometry.to_index(_voxels_lps_mm(document, number))).astype(int)
        assert {tuple(row) for row in index.tolist()} == wanted


def test_only_touched_slices_are_stored_and_referenced(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    document = _read(case)
    named = {str(uids[2]) for uids in document.get_source_image_uids()}
    boxes = [typed_finding(value).box_zyx for value in case.row["findings"]]
    touched = {z for box in boxes for z in range(int(box.lower_zyx[0]), int(box.upper_zyx[0]))}
    assert len(named) == len(touched) < case.row["shape_zyx"][0]
    assert document.NumberOfFrames == sum(
        int(box.upper_zyx[0]) - int(box.lower_zyx[0]) for box in boxes
    )
    assert named <= {i["instance_uid"] for i in case.manifest_row["instances"]}


def test_boxes_that_overlap_keep_their_own_segments(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    first = case.row["findings"][0]
    row = {**case.row, "findings": [first, {**first, "finding_id": "F2"}]}
    document = segmentation(row, source_slices(case.manifest_row))
    read = hd.seg.segread(io.BytesIO(encoded(document)))
    one, two = (_voxels_lps_mm(read, number) for number in (1, 2))
    assert len(one) and np.array_equal(one, two)


def test_a_box_thinner_than_the_slices_has_one(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    finding = dict(case.row["findings"][0])
    lower, upper = list(finding["box_lower_zyx"]), list(finding["box_upper_zyx"])
    lower[0], upper[0] = finding["key_slice"] + 0.9, finding["key_slice"] + 0.95
    finding |= {"box_lower_zyx": lower, "box_upper_zyx": upper}
    row = {**case.row, "findings": [finding]}
    document = segmentation(row, source_slices(case.manifest_row))
    assert document.NumberOfFrames == 1


def test_report_and_segmentation_name_a_finding_alike(case: Case) -> None:
    slices = source_slices(case.manifest_row)
    report = structured_report(case.row, slices)
    groups = report.content[0].ContentSequence
    text = str(groups)
    for number in range(1, len(case.row["findings"]) + 1):
        description = segmentation(case.row, slices).get_segment_description(number)
        assert description.tracking_uid in text
    assert report.StudyInstanceUID == segmentation(case.row, slices).StudyInstanceUID


def test_without_findings_there_is_nothing_to_outline(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    row = result_row(case.manifest_row, case.indexed, None)
    with pytest.raises(ValueError, match="at least one finding"):
        segmentation(row, source_slices(case.manifest_row))


def test_a_row_gives_the_same_bytes(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    slices = source_slices(case.manifest_row)
    assert encoded(segmentation(case.row, slices)) == encoded(segmentation(case.row, slices))


def test_an_independent_validator_finds_no_errors(
    case: Case, tmp_path: Path, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(segmentation(case.row, source_slices(case.manifest_row))))
    assert dciodvfy_errors(path) == []


def test_the_phantoms_lesion_lies_inside_its_segment(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    document = _read(case)
    geometry: Geometry = case.phantom.volume.geometry
    for number, lesion in enumerate(case.phantom.lesions, start=1):
        voxels = geometry.to_index(_voxels_lps_mm(document, number))
        box = Box(
            lower_zyx=tuple(voxels.min(axis=0) + 0.5 - 0.5), upper_zyx=tuple(voxels.max(axis=0) + 1)
        )
        assert box.iou(lesion.box_zyx) > 0.99


def _deep(case: Case) -> dict[str, Any]:
    """The row with a finding that lies on several slices."""
    finding = dict(case.row["findings"][0])
    lower, upper = list(finding["box_lower_zyx"]), list(finding["box_upper_zyx"])
    lower[0], upper[0] = 3.0, 8.0
    finding |= {"box_lower_zyx": lower, "box_upper_zyx": upper, "key_slice": 5}
    return {**case.row, "findings": [finding]}


def _no_thickness(header: Dataset, number: int) -> None:
    del header.SliceThickness


def _negative_spacing(header: Dataset, number: int) -> None:
    header.SpacingBetweenSlices = -5


def _last_digit(header: Dataset, number: int) -> None:
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, round(1e-6 * number, 6)]


def _own_frame_of_reference(header: Dataset, number: int) -> None:
    header.FrameOfReferenceUID = f"1.2.3.{number}"


@pytest.mark.parametrize(
    "change", [_no_thickness, _negative_spacing, _last_digit, _own_frame_of_reference]
)
def test_headers_of_real_archives_do_not_cost_the_segmentation(
    cases: dict[str, Case],
    change: Callable[[Dataset, int], None],
    tmp_path: Path,
    dciodvfy_errors: Callable[[Path], list[str]],
) -> None:
    case = cases["plain"]
    slices = source_slices(case.manifest_row)
    for number, stored in enumerate(slices, start=1):
        change(stored.header(), number)
    document = segmentation(_deep(case), slices)
    assert document.NumberOfFrames == 5
    measures = document.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert (measures.SliceThickness, measures.SpacingBetweenSlices) == (5.0, 5.0)
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(document))
    assert dciodvfy_errors(path) == []


def test_groups_that_stand_frame_by_frame_are_taken(
    cases: dict[str, Case], tmp_path: Path, dciodvfy_errors: Callable[[Path], list[str]]
) -> None:
    case = cases["enhanced"]
    slices = source_slices(case.manifest_row)
    header = slices[0].header()
    shared = header.SharedFunctionalGroupsSequence[0]
    del shared.PixelMeasuresSequence[0].SliceThickness
    for name in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        for groups in header.PerFrameFunctionalGroupsSequence:
            groups[name] = shared[name]
        del shared[name]
    document = segmentation(_deep(case), slices)
    sources = [
        groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for groups in document.PerFrameFunctionalGroupsSequence
    ]
    assert sorted(map(int, sources)) == [4, 5, 6, 7, 8]
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(document))
    assert dciodvfy_errors(path) == []


def test_of_slices_at_one_position_the_first_is_outlined(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    slices = list(source_slices(case.manifest_row))
    again = Dataset()
    again.update(slices[4].header())
    again.SOPInstanceUID = "1.2.3"
    slices.insert(5, replace(slices[4], header=lambda: again))
    document = segmentation(_deep(case), slices)
    assert document.NumberOfFrames == 5
    named = [str(uids[2]) for uids in hd.seg.segread(
        io.BytesIO(encoded(document))).get_source_image_uids()]  # fmt: skip
    assert str(slices[4].header().SOPInstanceUID) in named and "1.2.3" not in named


def test_the_header_of_a_long_object_is_copied_once(
    cases: dict[str, Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["enhanced"]
    copied: list[int] = []

    def counted(value: Dataset) -> Dataset:
        copied.append(id(value))
        return deepcopy(value)

    monkeypatch.setattr("raypipe.sink.dicom_source.deepcopy", counted)
    slices = source_slices(case.manifest_row)
    row = _deep(case)
    row["findings"] *= 2
    row["findings"][1] = {**row["findings"][1], "finding_id": "F2", "key_slice": 6}
    segmentation(row, slices)
    structured_report(row, slices)
    assert copied == [id(slices[0].header())] * 2
