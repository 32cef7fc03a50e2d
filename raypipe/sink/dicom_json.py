"""DICOM objects as the DICOM JSON model: what QIDO-RS and STOW-RS answer with.

In: an object. Out: attributes by tag; the answer to a STOW-RS request.
Does not know: HTTP, where objects lie.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import pydicom
from pydicom.dataset import Dataset

from raypipe.in_parts import InParts

Attributes = dict[str, Any]

_STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
    *("ReferringPhysicianName", "PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
)
_SERIES = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription")
_INSTANCE = ("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "NumberOfFrames")

CANNOT_UNDERSTAND = 0xC000
"""Failure reason of PS3.4 GG: the part is not a DICOM object."""

WRONG_STUDY = 0xA900
"""Failure reason of PS3.4 GG: the object belongs to another study than the request names."""


@dataclass(frozen=True, kw_only=True)
class Received:
    """One object of a STOW-RS request; empty UIDs where it is none."""

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str

    @property
    def is_object(self) -> bool:
        """Whether it is a DICOM object that can be stored."""
        return bool(self.sop_class_uid and self.sop_instance_uid and self.study_uid)


NO_OBJECT = Received(sop_class_uid="", sop_instance_uid="", study_uid="", series_uid="")
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def received(file: IO[bytes]) -> Received:
    """What an object calls itself; one that is still deflated is none, as it may be a bomb."""
    try:
        header: Any = pydicom.dcmread(
            InParts(file), stop_before_pixels=True, specific_tags=list(_UIDS)
        )
    except Exception:  # noqa: BLE001 - pydicom raises anything on foreign bytes
        header = Dataset()

    def uid(keyword: str) -> str:
        text = str(header.get(keyword) or "").strip(" \0")
        return text if len(text) <= 64 and text.replace(".", "").isdigit() else ""

    return Received(
        sop_class_uid=uid("SOPClassUID"),
        sop_instance_uid=uid("SOPInstanceUID"),
        study_uid=uid("StudyInstanceUID"),
        series_uid=uid("SeriesInstanceUID"),
    )


def stow_response(
    stored: Sequence[Received], failed: Sequence[tuple[Received, int]], study_url: str
) -> Attributes:
    """The answer to a STOW-RS request."""
    answer = Dataset()
    answer.RetrieveURL = study_url
    answer.ReferencedSOPSequence = [_reference(one) for one in stored]
    if failed:
        answer.FailedSOPSequence = [_reference(one, reason) for one, reason in failed]
    return dict(answer.to_json_dict())


def _reference(one: Received, failure: int | None = None) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = one.sop_class_uid
    item.ReferencedSOPInstanceUID = one.sop_instance_uid
    if failure is not None:
        item.FailureReason = failure
    return item


def attributes(content: bytes, *, whole: bool = False) -> Attributes:
    """An object's attributes by tag, without pixels; all of them, or those that QIDO-RS lists."""
    dataset: Any = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
    if whole:
        return dict(dataset.to_json_dict(suppress_invalid_tags=True))
    chosen = Dataset()
    for keyword in (*_STUDY, *_SERIES, *_INSTANCE):
        if keyword in dataset:
            chosen[keyword] = dataset[keyword]
    return dict(chosen.to_json_dict())


def tag_of(name: str) -> str | None:
    """The tag ("0020000D") of a keyword or tag of a query; None where there is none."""
    if len(name) == 8 and all(c in "0123456789abcdefABCDEF" for c in name):
        return name.upper()
    tag = pydicom.datadict.tag_for_keyword(name)
    return None if tag is None else f"{tag:08X}"
