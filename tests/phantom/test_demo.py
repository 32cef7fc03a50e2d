import json
from pathlib import Path

import pydicom

from raypipe.errors import Reason
from raypipe.phantom import write_archive, write_bulk_archive
from raypipe.types import Flag


def test_the_archive_holds_every_kind_and_its_truth(tmp_path: Path) -> None:
    truths = write_archive(
        tmp_path / "archive", shape_zyx=(12, 48, 48), truth_path=tmp_path / "truth.json"
    )
    assert len(truths) == 17 and len({truth.name for truth in truths}) == 17
    assert {truth.kind for truth in truths} == {"dicom", "nifti", "image"}
    files = {p.relative_to(tmp_path / "archive").as_posix()
             for p in (tmp_path / "archive").rglob("*") if p.is_file()}  # fmt: skip
    assert files == {path for truth in truths for path in truth.paths}
    assert {truth.reason for truth in truths} - {None} <= set(Reason)
    assert {flag for truth in truths for flag in truth.flags} <= set(Flag)
    assert sum(truth.status == "rejected" for truth in truths) == 3
    stored = json.loads((tmp_path / "truth.json").read_text())
    assert [entry["name"] for entry in stored] == [truth.name for truth in truths]
    assert sum(bool(truth.lesions) for truth in truths) >= 8


def test_a_seed_gives_the_same_archive(tmp_path: Path) -> None:
    first = write_archive(tmp_path / "a", 2, seed=5, shape_zyx=(8, 40, 40))
    again = write_archive(tmp_path / "b", 2, seed=5, shape_zyx=(8, 40, 40))
    other = write_archive(tmp_path / "c", 2, seed=6, shape_zyx=(8, 40, 40))
    assert first == again and first != other
    path = first[1].paths[3]
    assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_the_bulk_archive_has_distinct_series(tmp_path: Path) -> None:
    truths = write_bulk_archive(tmp_path, 30, seed=1, shape_zyx=(3, 32, 32), bodies=4)
    assert len({truth.series_uid for truth in truths}) == 30
    heads = [pydicom.dcmread(tmp_path / truth.paths[0]) for truth in truths]
    assert len({head.StudyInstanceUID for head in heads}) == 30
    assert len({head.PatientID for head in heads}) == 30
    assert len({head.PixelData for head in heads}) == 30
    assert all(len(truth.paths) == 3 for truth in truths)
