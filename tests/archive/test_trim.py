"""raypipe/archive/trim.py: a trimmed header says what the whole one says."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from raypipe.archive.elements import parse
from raypipe.archive.trim import trim
from tests.archive.ct_files import ct_dataset, tissue

KEYWORDS = ("Modality", "PixelSpacing", "PerFrameFunctionalGroupsSequence", "RescaleIntercept")


def content(syntax: Any = ExplicitVRLittleEndian, *, undefined: bool = True) -> bytes:
    """A header full of sequences in sequences, private elements and long values."""
    ds = ct_dataset(tissue())
    inner = Dataset()
    inner.CodeValue = "T-D3000"
    middle = Dataset()
    middle.ConceptCodeSequence = Sequence([inner, inner])
    ds.RequestAttributesSequence = Sequence([middle, Dataset()])
    ds.PerFrameFunctionalGroupsSequence = Sequence([middle])
    ds.add_new(0x00091001, "UN", b"x" * 5000)
    ds.add_new(0x00091002, "OB", b"y" * 70000)
    ds.add_new(0x00091003, "SQ", Sequence([inner]))
    for element in (ds["RequestAttributesSequence"], ds["PerFrameFunctionalGroupsSequence"]):
        element.is_undefined_length = undefined
        for item in element.value:
            item.is_undefined_length_sequence_item = undefined
    ds["PixelData"].VR = "OW"
    ds.file_meta.TransferSyntaxUID = syntax
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("undefined", [True, False])
def test_trimmed_equals_whole(syntax: Any, undefined: bool) -> None:
    data = content(syntax, undefined=undefined)
    trimmed = trim(data, KEYWORDS)
    assert trimmed is not None
    assert len(trimmed.header) < 1500 < len(data)
    whole_file = io.BytesIO(data)
    whole = parse(whole_file, KEYWORDS)
    part = parse(io.BytesIO(trimmed.header), KEYWORDS)
    assert trimmed.pixels_at == whole_file.tell()
    for keyword in KEYWORDS:
        assert part[keyword] == whole[keyword]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_is_each_slices_own_comes_apart(syntax: Any) -> None:
    own = ("SOPInstanceUID", "ImagePositionPatient")
    headers, positions = set(), []
    for z in (0.0, 2.5):
        ds = ct_dataset(tissue())
        ds.ImagePositionPatient = [1.5, -2.0, z]
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{z * 2:.0f}"
        ds.file_meta.TransferSyntaxUID = syntax
        file = io.BytesIO()
        ds.save_as(file, enforce_file_format=True)
        trimmed = trim(file.getvalue(), KEYWORDS, own)
        assert trimmed is not None
        headers.add(trimmed.header)
        elements = read_dataset(io.BytesIO(trimmed.own), trimmed.implicit, True)
        assert elements.SOPInstanceUID == ds.SOPInstanceUID
        positions.append([float(v) for v in elements.ImagePositionPatient])
    assert positions == [[1.5, -2.0, 0.0], [1.5, -2.0, 2.5]]
    assert len(headers) == 1


def test_what_is_not_regular_is_left_alone() -> None:
    assert trim(content()[:2000], KEYWORDS) is None  # ends before the pixels
    assert trim(content()[132:], KEYWORDS) is None  # no preamble
    assert trim(b"", KEYWORDS) is None
    assert trim(content(DeflatedExplicitVRLittleEndian), KEYWORDS) is None
    declared = content(ImplicitVRLittleEndian).replace(
        b"1.2.840.10008.1.2\0", b"1.2.840.10008.1.2 "
    )
    assert trim(declared, KEYWORDS) is not None
    big = content().replace(b"1.2.840.10008.1.2.1\0", str(ExplicitVRBigEndian).encode() + b"\0", 1)
    assert trim(big, KEYWORDS) is None


def test_implicit_bytes_declared_explicit_are_left_alone() -> None:
    data = bytearray(content(ImplicitVRLittleEndian))
    at = data.index(b"1.2.840.10008.1.2\0", 132)
    length = at - 2
    data[at : at + 18] = b"1.2.840.10008.1.2.1\0"
    data[length] += 2
    group_length = data.index(b"UL\x04\x00") + 4
    data[group_length] += 2
    assert trim(bytes(data), KEYWORDS) is None


START = content()[:340]


@given(st.binary(max_size=400), st.booleans())
def test_damage_never_raises(tail: bytes, nested: bool) -> None:
    start = START
    middle = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    trim(start + (middle * 400 if nested else b"") + tail, KEYWORDS)
