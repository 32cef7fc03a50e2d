"""raypipe/archive/headers.py, ct_checks.py, planes.py and anatomy.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from raypipe.archive import dicom_header
from raypipe.archive.anatomy import BODY_PARTS, body_part
from raypipe.archive.headers import Header, HeadFile, header_from_json, read_header
from raypipe.phantom import DicomOptions, Phantom, write_enhanced
from tests.archive.ct_files import ct_dataset, tissue, write_ct

Index = Callable[[Path], list[dict[str, Any]]]


def read(content: bytes) -> Header:
    head = HeadFile(lambda start, end: content[start:end], len(content))
    return read_header(head, len(content), SecretStr(""))


@given(st.binary(max_size=600))
def test_bytes_never_raise(content: bytes) -> None:
    for start in (b"", bytes(128) + b"DICM", b"\x08\x00\x05\x00CS", b"\xff\xd8\xff", b"\x1f\x8b"):
        header = read(start + content)
        assert header.kind in ("other", "dicom", "image", "nifti", "dicomdir")


def test_damaged_dicom_has_a_reason(tmp_path: Path) -> None:
    content = write_ct(tmp_path / "x", tissue()).read_bytes()
    for end in range(132, len(content) - 2 * 24 * 20 - 12, 37):
        header = read(content[:end])
        assert header.reason, f"cut at {end}"


def test_a_value_of_no_known_kind_is_a_reason(tmp_path: Path) -> None:
    content = write_ct(tmp_path / "x", tissue()).read_bytes()
    for element in (b"\x08\x00\x16\x00UI", b"\x20\x00\x37\x00DS"):  # class, orientation
        damaged = content.replace(element, element[:4] + b"U\xf2")
        assert damaged != content
        assert read(damaged).reason == "header_unreadable"


def test_slices_that_share_a_header_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = [
        write_ct(tmp_path / str(n), tissue(), z, InstanceNumber=n, ContentTime=f"10000{n}")
        for n, z in enumerate((0.0, 5.0, float("nan")))
    ]
    apart = [read(path.read_bytes()) for path in slices]
    assert [h.instance_number for h in apart] == [0, 1, 2]
    assert [h.position_lps_mm and h.position_lps_mm[2] for h in apart] == [0.0, 5.0, None]
    assert len({h.instance_uid for h in apart}) == len({h.discriminators for h in apart}) == 3
    assert [h.reason for h in apart] == ["", "", "geometry_invalid"]
    monkeypatch.setattr(dicom_header, "trim", lambda *_: None)
    assert [read(path.read_bytes()) for path in slices] == apart


def test_head_file_reads_like_a_file() -> None:
    content = bytes(range(256)) * 2000
    fetched: list[tuple[int, int]] = []

    def fetch(start: int, end: int) -> bytes:
        fetched.append((start, end))
        return content[start:end]

    head = HeadFile(fetch, len(content))
    assert head.read(10) == content[:10]
    assert head.read(20_000) == content[10:20_010]
    head.seek(400_000)
    assert head.read(8) == content[400_000:400_008]
    head.seek(-12, 1)
    assert head.read(12) == content[399_996:400_008]
    head.seek(-5, 2)
    assert head.read() == content[-5:]
    assert head.read(1) == b""
    assert sum(end - start for start, end in fetched) < len(content)


@given(
    st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)),
    st.integers(0, 9),
    st.text(max_size=5),
)
def test_headers_survive_json(position: Any, number: int, text: str) -> None:
    header = Header(
        kind="dicom",
        position_lps_mm=position,
        instance_number=number,
        instance_uid=text,
        discriminators=("", text),
        contrast=False,
        shape_zyx=(1, 2, 3),
        spacing_zyx_mm=(None, 1.0, 2.0),
    )
    assert header_from_json(header.to_json()) == header


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"Modality": ""}, "modality_missing"),
        ({"Modality": "PT"}, "not_ct"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "secondary_capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "not_ct"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "unsupported_color"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unsupported_color"),
        ({"PixelData": None}, "no_pixel_data"),
        ({"Rows": None}, "header_unreadable"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "geometry_invalid"),
        ({"ImageOrientationPatient": None}, "geometry_missing"),
        ({"PixelSpacing": [-1, 1]}, "geometry_invalid"),
        ({"PixelSpacing": None}, "geometry_missing"),
        ({"NumberOfFrames": 4}, "geometry_missing"),
        ({}, None),
    ],
)
def test_reasons_told_by_the_header(
    tmp_path: Path, index: Index, elements: dict[str, Any], reason: str | None
) -> None:
    import io

    ds = ct_dataset(tissue(), **elements)
    if "PixelData" in ds:
        ds["PixelData"].VR = "OW"
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(file.getvalue())
    (row,) = index(tmp_path / "in")
    assert row["reason"] == reason


def test_several_volumes_in_one_object(tmp_path: Path, phantom: Phantom, index: Index) -> None:
    (path,) = write_enhanced(phantom, tmp_path / "in", DicomOptions()).paths
    ds = dcmread(path)
    groups = ds.PerFrameFunctionalGroupsSequence
    for i, group in enumerate(groups):
        group.FrameContentSequence[0].TemporalPositionIndex = i // 6 + 1
        if i >= 6:
            group.PlanePositionSequence = groups[i - 6].PlanePositionSequence
    ds.save_as(path)
    (row,) = index(tmp_path / "in")
    assert row["reason"] == "shape_mismatch" and "2 volumes" in row["message"]


def test_ct_declared_explicit_but_implicit_is_read(tmp_path: Path, index: Index) -> None:
    """The same pixels in both encodings, so nothing is lost by reading what is there."""
    path = write_ct(tmp_path / "x", tissue())
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds.save_as(path, implicit_vr=True, little_endian=True)
    content = path.read_bytes()
    at = content.index(b"1.2.840.10008.1.2\0", 132)
    changed = bytearray(content)
    changed[at - 2] += 2
    changed[at : at + 18] = b"1.2.840.10008.1.2.1\0"
    changed[content.index(b"UL\x04\x00") + 4] += 2
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x").write_bytes(bytes(changed))
    (row,) = index(tmp_path / "in")
    assert row["status"] == "ok" and row["shape_zyx"] == [1, 24, 20]


def test_contrast_is_a_fact_not_a_text(tmp_path: Path, index: Index) -> None:
    for i, (agent, wanted) in enumerate(
        [("Omnipaque for Jane Doe", True), ("NONE", False), ("", None)]
    ):
        folder = tmp_path / f"in{i}"
        write_ct(folder / "x", tissue(), ContrastBolusAgent=agent, SeriesInstanceUID=f"1.{i}")
        rows = index(folder) if i == 0 else _fresh(tmp_path / f"m{i}", folder)
        assert rows[0]["contrast"] is wanted


def _fresh(out: Path, folder: Path) -> list[dict[str, Any]]:
    from raypipe.archive.index import IndexConfig, build_index
    from raypipe.archive.manifest import read_manifest
    from raypipe.archive.storage import StorageConfig

    build_index(str(folder), str(out), IndexConfig())
    rows: list[dict[str, Any]] = read_manifest(str(out), StorageConfig()).to_pylist()
    return rows


@pytest.mark.parametrize(
    ("examined", "codes", "part"),
    [
        ("CHEST", (), "chest"),
        ("chest/abd", (), "chest_abdomen"),
        ("C-SPINE", (), "spine"),
        ("TSPINE", (), "spine"),
        ("Jane Doe's head", (), None),
        ("", ("51185008",), "chest"),
        ("CHEST", ("69536005",), "head"),
        ("PARTIALBODY", (), None),
    ],
)
def test_body_parts(examined: str, codes: tuple[str, ...], part: str | None) -> None:
    assert body_part(examined, codes) == part
    assert part is None or part in BODY_PARTS
