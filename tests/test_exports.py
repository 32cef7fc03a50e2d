"""raypipe/exports.py: one row for every host; reasons, and where headers may come from."""

import zipfile
from pathlib import Path

import pytest
from pydantic import SecretStr
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from raypipe.archive.deidentify import Deidentifier
from raypipe.archive.deidentify_config import ExportConfig
from raypipe.archive.manifest import series_ref
from raypipe.archive.storage import StorageConfig
from raypipe.exports import FILE_NAMES, MEDIA_TYPES, Exported, Format, export_row
from raypipe.phantom import PhantomSpec, make_phantom, write_dicom
from tests.export_rows import Row, index_folder, result_row

STORAGE = StorageConfig()
PHANTOM = make_phantom(
    PhantomSpec(shape_zyx=(12, 56, 64), spacing_zyx_mm=(5.0, 5.5, 6.0), lesions=1, seed=4)
)


def _listed(source: Path, folder: Path) -> tuple[Row, Row]:
    """The manifest row and the result row of the one series of a folder."""
    indexed = index_folder(source, folder)
    (listed,) = indexed.rows
    return listed, result_row(listed, indexed, PHANTOM)


def _export(listed: Row, row: Row, cleaner: Deidentifier | None = None) -> Exported:
    return export_row(row, series_ref(listed), tuple(Format), STORAGE, cleaner)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_dicom(PHANTOM, tmp_path / "source")
    return tmp_path / "source"


def test_members_of_a_zip_give_the_same_files(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "all.zip", "w") as archive:
        for path in source.iterdir():
            archive.write(path, path.name)
    plain = _export(*_listed(source, tmp_path / "m1"))
    zipped = _export(*_listed(packed, tmp_path / "m2"))
    assert plain.contents.keys() == set(Format) and not plain.missing
    for format_ in (Format.SR, Format.SEG, Format.FHIR):
        assert zipped.contents[format_] == plain.contents[format_]


def test_an_instance_without_uids_cannot_be_referred_to(source: Path, tmp_path: Path) -> None:
    listed, row = _listed(source, tmp_path / "m")
    for path in source.iterdir():
        ds = dcmread(path)
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = ""
        ds.save_as(path)
    done = _export(listed, row)
    assert set(done.contents) == {Format.FHIR}
    assert "SOPInstanceUID is missing" in done.missing[Format.SR] == done.missing[Format.SEG]


def test_a_foreign_error_tells_its_type_and_no_value(source: Path, tmp_path: Path) -> None:
    listed, row = _listed(source, tmp_path / "m")
    for path in source.iterdir():
        ds = dcmread(path)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.999.1"  # of no IOD
        ds.save_as(path)
    done = _export(listed, row)
    assert done.missing[Format.SR].startswith("KeyError: ")
    assert "1.2.999.1" not in str(done.missing)


def test_a_series_that_nobody_lists_gets_fhir_alone(source: Path, tmp_path: Path) -> None:
    _, row = _listed(source, tmp_path / "m")
    done = export_row(row, None, tuple(Format), STORAGE, None)
    assert set(done.contents) == {Format.FHIR}
    assert "does not list" in done.missing[Format.SEG]


def test_identity_goes_through_the_deidentifier_given(source: Path, tmp_path: Path) -> None:
    listed, row = _listed(source, tmp_path / "m")
    cleaner = Deidentifier(ExportConfig(), SecretStr("key"))
    for format_, content in _export(listed, row, cleaner).contents.items():
        assert b"PHANTOM-" not in content, format_
    assert b"PHANTOM-" in _export(listed, row).contents[Format.SR]


def test_every_format_has_a_file_name_and_a_media_type() -> None:
    assert set(FILE_NAMES) == set(MEDIA_TYPES) == set(Format)


def _damaged(path: Path, tag: int, vr: str, value: bytes) -> None:
    ds = dcmread(path)
    ds._dict[BaseTag(tag)] = RawDataElement(BaseTag(tag), vr, len(value), value, 0, False, True)
    ds.save_as(path)


@pytest.mark.parametrize(
    ("tag", "vr", "value"), [(0x00280008, "IS", b"Name^Of "), (0x00280010, "US", b"\x01")]
)
def test_a_header_that_breaks_the_reader_costs_its_own_series_alone(
    source: Path, tmp_path: Path, tag: int, vr: str, value: bytes
) -> None:
    listed, row = _listed(source, tmp_path / "m")
    whole = _export(listed, row).contents[Format.FHIR]
    _damaged(sorted(source.iterdir())[5], tag, vr, value)
    done = _export(listed, row)
    assert set(done.missing) == {Format.SR, Format.SEG}
    assert "do not fit the format" in done.missing[Format.SR] and "Name" not in str(done.missing)
    assert done.contents[Format.FHIR] == whole  # any one header names patient and study
