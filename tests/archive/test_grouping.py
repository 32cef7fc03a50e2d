"""raypipe/archive/grouping.py: one row a volume, never more, never fewer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raypipe.phantom import DicomOptions, Phantom, write_dicom, write_enhanced
from tests.archive.ct_files import tissue, write_ct, write_stack

Index = Callable[[Path], list[dict[str, Any]]]
Z_MM = [0.0, 2.0, 4.0, 6.0, 8.0]


def sizes(rows: list[dict[str, Any]]) -> list[int]:
    return sorted(len(row["instances"]) for row in rows if row["status"] == "ok")


def test_acquisition_numbers_alone_do_not_split(tmp_path: Path, index: Index) -> None:
    for i, z in enumerate(Z_MM):
        write_ct(tmp_path / "a" / f"{i}", tissue(seed=i), z, AcquisitionNumber=i + 1)
    (row,) = index(tmp_path / "a")
    assert sizes([row]) == [5] and row["flags"] == []


@pytest.mark.parametrize(
    "element",
    [
        "AcquisitionNumber",
        "TemporalPositionIndex",
        "EchoNumbers",
        "TriggerTime",
        "SeriesNumber",
        "NominalPercentageOfCardiacPhase",
    ],
)
def test_two_phases_under_one_uid_are_two_volumes(
    tmp_path: Path, index: Index, element: str
) -> None:
    for phase in (1, 2):
        write_stack(tmp_path / "a", Z_MM, name=f"p{phase}-", **{element: phase})
    rows = index(tmp_path / "a")
    assert sizes(rows) == [5, 5]
    assert len({row["series_key"] for row in rows}) == 2
    assert len({row["study_key"] for row in rows}) == 1
    for row in rows:
        assert row["flags"] == ["split_series"]
        assert len({Path(i["uri"]).name[:3] for i in row["instances"]}) == 1


def test_studies_that_share_a_series_uid_stay_apart(tmp_path: Path, index: Index) -> None:
    """As some programs leave them that remove identities: the slices would fit into one another."""
    write_stack(tmp_path / "a", Z_MM, StudyInstanceUID="1.2.100")
    write_stack(tmp_path / "b", [z + 1.0 for z in Z_MM], StudyInstanceUID="1.2.200")
    rows = index(tmp_path)
    assert sizes(rows) == [5, 5]
    assert len({row["series_key"] for row in rows}) == len({row["study_key"] for row in rows}) == 2


def test_a_phase_that_covers_less_is_split_off(tmp_path: Path, index: Index) -> None:
    write_stack(tmp_path / "a", [2.0 * i for i in range(20)], name="p", AcquisitionNumber=1)
    write_stack(tmp_path / "a", [2.0 * i for i in range(5, 10)], name="q", AcquisitionNumber=2)
    assert sizes(index(tmp_path / "a")) == [5, 20]


def test_kernels_and_phases_without_a_telling_number(tmp_path: Path, index: Index) -> None:
    write_stack(tmp_path / "a", Z_MM, name="p", ConvolutionKernel="B30f")
    write_stack(tmp_path / "a", Z_MM, name="q", ConvolutionKernel="B70f")
    assert sizes(index(tmp_path / "a")) == [5, 5]


def test_phases_that_only_the_order_tells(tmp_path: Path, index: Index) -> None:
    for phase in range(3):
        for i, z in enumerate(Z_MM):
            name = tmp_path / "a" / f"{phase}{i}"
            write_ct(name, tissue(seed=10 * phase + i), z, InstanceNumber=phase * 5 + i + 1)
    rows = index(tmp_path / "a")
    assert sizes(rows) == [5, 5, 5]
    for row in rows:
        assert len({Path(i["uri"]).name[0] for i in row["instances"]}) == 1


def test_two_acquisitions_that_meet_in_one_slice_stay_together(
    tmp_path: Path, index: Index
) -> None:
    write_stack(tmp_path / "a", [2.0 * i for i in range(10)], name="p", AcquisitionNumber=1)
    write_stack(tmp_path / "a", [2.0 * i for i in range(9, 19)], name="q", AcquisitionNumber=2)
    assert sizes(index(tmp_path / "a")) == [20]


@pytest.mark.parametrize(
    "change",
    [
        {"PixelSpacing": [0.35, 0.4]},
        {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
    ],
)
def test_other_grids_under_one_uid_are_other_volumes(
    tmp_path: Path, index: Index, change: dict[str, Any]
) -> None:
    write_stack(tmp_path / "a", Z_MM, name="p")
    for i in range(4):
        position = [-20.0, -30.0 + 2.0 * i, 50.0]
        write_ct(tmp_path / "a" / f"q{i}", tissue(), **{"ImagePositionPatient": position, **change})
    rows = index(tmp_path / "a")
    assert sizes(rows) == [4, 5]
    assert all("split_series" in row["flags"] for row in rows)


def test_another_matrix_under_one_uid(tmp_path: Path, index: Index) -> None:
    write_stack(tmp_path / "a", Z_MM, name="p")
    for i, z in enumerate(Z_MM):
        write_ct(tmp_path / "a" / f"q{i}", tissue((30, 30)), z)
    assert sizes(index(tmp_path / "a")) == [5, 5]


def test_a_slice_across_the_stack_is_a_localizer(tmp_path: Path, index: Index) -> None:
    write_stack(tmp_path / "a", Z_MM)
    write_ct(tmp_path / "a" / "scout", tissue(), ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    rows = index(tmp_path / "a")
    assert sizes(rows) == [5]
    assert sorted(r["reason"] or "" for r in rows) == ["", "localizer"]


def test_copies_in_another_folder_are_not_read_twice(tmp_path: Path, index: Index) -> None:
    for folder in ("a", "b"):
        write_stack(tmp_path / "in" / folder, Z_MM)
    (row,) = index(tmp_path / "in")
    assert len(row["instances"]) == len(row["repeated"]) == 5
    assert row["flags"] == ["duplicate_slices"]


def test_one_slice_stored_twice_stays_in_the_volume(
    tmp_path: Path, phantom: Phantom, index: Index
) -> None:
    write_dicom(phantom, tmp_path / "a", DicomOptions(duplicated_slices=(3,)))
    (row,) = index(tmp_path / "a")
    assert len(row["instances"]) == 13  # what to do is the volume's policy


def test_without_series_uid_slices_of_one_kind_are_one_volume(tmp_path: Path, index: Index) -> None:
    write_stack(tmp_path / "in" / "a", Z_MM, SeriesInstanceUID="")
    write_stack(tmp_path / "in" / "b", Z_MM, SeriesInstanceUID="", ConvolutionKernel="SHARP")
    write_stack(tmp_path / "in" / "c", [0.0, 2.0], SeriesInstanceUID="", StudyInstanceUID="7.8")
    rows = index(tmp_path / "in")
    assert sizes(rows) == [2, 5, 5]
    assert all(row["flags"] == ["series_uid_missing"] for row in rows)
    assert len({row["series_key"] for row in rows}) == 3


def test_multi_frame_objects_of_one_series_are_volumes_each(
    tmp_path: Path, phantom: Phantom, index: Index
) -> None:
    write_enhanced(phantom, tmp_path / "in" / "a", DicomOptions())
    write_enhanced(phantom, tmp_path / "in" / "b", DicomOptions(series_number=2))
    rows = index(tmp_path / "in")
    assert sizes(rows) == [1, 1]
    assert all(row["shape_zyx"] == [12, 56, 64] for row in rows)
    assert all(row["orientation"] == "axial" for row in rows)


def test_a_dose_report_among_the_slices_does_not_cost_the_series(
    tmp_path: Path, index: Index
) -> None:
    write_stack(tmp_path / "a", Z_MM)
    write_ct(tmp_path / "a" / "dose", tissue(), ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])
    write_ct(tmp_path / "a" / "mr", tissue(), Modality="MR")
    rows = index(tmp_path / "a")
    assert sizes(rows) == [5]
    assert {r["reason"] for r in rows} == {None, "secondary_capture", "not_ct"}


def test_identical_uids_everywhere_still_give_one_row_a_volume(
    tmp_path: Path, index: Index
) -> None:
    """An anonymizer that writes one SOPInstanceUID into everything."""
    for phase in (1, 2):
        for i, z in enumerate(Z_MM):
            write_ct(
                tmp_path / "a" / f"{phase}{i}",
                tissue(seed=i),
                z + 0.5 * phase,
                SOPInstanceUID="1.1",
                PixelSpacing=[phase, phase],
            )
    rows = index(tmp_path / "a")
    assert sizes(rows) == [5, 5]
    assert len({row["series_key"] for row in rows}) == 2
