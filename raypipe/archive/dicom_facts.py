"""The facts of a DICOM header: those that slices of a series share, and those of each slice.

In: a parsed header, and the elements of one object. Out: arguments of a Header.
Does not know: files, other objects, whether the header is that of a CT image.
"""

from functools import cached_property
from typing import Any

from pydantic import SecretStr
from pydicom.dataset import Dataset, FileDataset

from raypipe.archive.anatomy import body_part
from raypipe.archive.ct_checks import RejectionError, check_ct_image
from raypipe.archive.elements import modality_of, number_of, syntax_of, text_of, vendor_of
from raypipe.archive.identity import keyed_hash
from raypipe.archive.planes import (
    Plane,
    at_own_position,
    frame_distance_mm,
    frame_planes,
    slice_plane,
)
from raypipe.errors import Reason

GEOMETRY_KEYWORDS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
OWN_KEYWORDS = (
    "SOPInstanceUID",
    "AcquisitionTime",
    "ContentTime",
    "InstanceNumber",
    "ImagePositionPatient",
)
"""Every slice has its own of these."""
SHARED_KEYWORDS = (
    "SOPClassUID",
    "Modality",
    "ImageType",
    "Manufacturer",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ConcatenationUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "KVP",
    "ContrastBolusAgent",
    "ContrastBolusAgentSequence",
    "ConvolutionKernel",
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "AcquisitionUID",
    "IrradiationEventUID",
    "EchoNumbers",
    "SeriesNumber",
    "ReconstructionDiameter",
    "FilterType",
    "NominalPercentageOfCardiacPhase",
    "TriggerTime",
    *(k for k in GEOMETRY_KEYWORDS if k not in OWN_KEYWORDS),
)
"""Most slices of a series have the same of these, byte by byte."""

_NO_AGENT = {"NONE", "NO", "N", "0", "NATIVE", "WITHOUT"}


class SharedHeader:
    """The part of a header that slices of a series share; what is found in it once is kept.

    Args:
        dataset: parsed; nobody changes it.
        key: the archive's key for hashes.
    """

    def __init__(self, dataset: FileDataset, key: SecretStr) -> None:
        self.dataset = dataset
        self._key = key
        self._passed: set[tuple[bool, bool | None]] = set()
        self._plane: Plane | None = None

    def identity(self, own: Dataset) -> dict[str, Any]:
        """What an object is, and what tells it from others.

        Args:
            own: the object's own elements; the whole header where they do not lie apart.
        """
        times = (text_of(own, "AcquisitionTime"), text_of(own, "ContentTime"))
        return {
            **self._identity,
            "instance_uid": text_of(own, "SOPInstanceUID"),
            "discriminators": (
                *self._discriminators,
                *(_hidden(time, self._key) for time in times),
            ),
            "instance_number": int(number_of(own, "InstanceNumber") or 0),
        }

    def check_ct_image(self, *, has_pixels: bool, encapsulated: bool | None) -> None:
        """See `ct_checks.check_ct_image`.

        Raises:
            RejectionError: this is no CT image.
        """
        told = (has_pixels, encapsulated)
        if told not in self._passed:
            check_ct_image(self.dataset, has_pixels=has_pixels, encapsulated=encapsulated)
            self._passed.add(told)

    def geometry(self, own: Dataset) -> dict[str, Any]:
        """Where the frames of an object lie.

        Args:
            own: as for `identity`.

        Raises:
            RejectionError: HEADER_UNREADABLE or SHAPE_MISMATCH.
            SeriesError: GEOMETRY_MISSING or GEOMETRY_INVALID.
        """
        rows, columns = self.dataset.get("Rows"), self.dataset.get("Columns")
        if not rows or not columns:
            raise RejectionError(
                Reason.HEADER_UNREADABLE, "Rows or Columns is missing or 0", alone=True
            )
        planes = self._planes(own)
        first = planes[0]
        facts: dict[str, Any] = {
            "shape_zyx": (len(planes), int(rows), int(columns)),
            "spacing_zyx_mm": (frame_distance_mm(planes), *first.spacing_yx_mm),
            "position_lps_mm": first.position_lps_mm,
            "direction": first.direction,
        }
        if first.thickness_mm is not None:
            facts["thickness_mm"] = first.thickness_mm
        return facts

    def _planes(self, own: Dataset) -> list[Plane]:
        if self._frames_apart:
            planes = frame_planes(self.dataset)
            _check_one_stack(planes)
            return planes
        if self._plane is None:
            self._plane = slice_plane(self.dataset, own)
        return [at_own_position(self._plane, own)]

    @cached_property
    def _frames_apart(self) -> bool:
        per_frame = self.dataset.get("PerFrameFunctionalGroupsSequence")
        return bool(per_frame) or int(self.dataset.get("NumberOfFrames") or 1) > 1

    @cached_property
    def _identity(self) -> dict[str, Any]:
        dataset = self.dataset

        def hashed(keyword: str) -> str:
            text = text_of(dataset, keyword)
            return keyed_hash(text, self._key) if text else ""

        regions = dataset.get("AnatomicRegionSequence") or ()
        codes = [str(item.get("CodeValue", "")) for item in regions]
        return {
            "study": hashed("StudyInstanceUID"),
            "series": hashed("SeriesInstanceUID"),
            "frame_of_reference": hashed("FrameOfReferenceUID"),
            "concatenation": hashed("ConcatenationUID"),
            "modality": modality_of(text_of(dataset, "Modality")),
            "manufacturer": vendor_of(text_of(dataset, "Manufacturer")),
            "transfer_syntax": syntax_of(dataset),
            "thickness_mm": _positive(number_of(dataset, "SliceThickness")),
            "kvp": _positive(number_of(dataset, "KVP")),
            "contrast": _contrast(dataset),
            "body_part": body_part(text_of(dataset, "BodyPartExamined"), codes),
            "kernel": _hidden(text_of(dataset, "ConvolutionKernel"), self._key),
        }

    @cached_property
    def _discriminators(self) -> tuple[str, ...]:
        """Facts that differ between volumes under one UID, most telling first; see `split`."""
        dataset = self.dataset

        def both(first: str, second: str) -> str:
            return f"{dataset.get(first)} {dataset.get(second)}"

        facts = (
            both("TemporalPositionIndex", "TemporalPositionIdentifier"),
            both("NominalPercentageOfCardiacPhase", "TriggerTime"),
            text_of(dataset, "AcquisitionNumber"),
            f"{text_of(dataset, 'AcquisitionUID')} {text_of(dataset, 'IrradiationEventUID')}",
            text_of(dataset, "EchoNumbers"),
            text_of(dataset, "ConvolutionKernel") + text_of(dataset, "FilterType"),
            text_of(dataset, "ImageType"),
            text_of(dataset, "KVP"),
            text_of(dataset, "SeriesNumber"),
            text_of(dataset, "ReconstructionDiameter"),
            text_of(dataset, "SliceThickness"),
            text_of(dataset, "FrameOfReferenceUID"),
        )
        return tuple(_hidden(fact, self._key) for fact in facts)


def _check_one_stack(planes: list[Plane]) -> None:
    spacings = {p.spacing_yx_mm for p in planes}
    directions = {p.direction for p in planes}
    if len(spacings) > 1 or len(directions) > 1:
        raise RejectionError(
            Reason.SHAPE_MISMATCH,
            f"one object holds frames of {len(directions)} orientations, {len(spacings)} spacings",
            alone=True,
        )
    phases = {p.temporal for p in planes}
    if len(phases) > 1 and len({p.position_lps_mm for p in planes}) < len(planes):
        raise RejectionError(
            Reason.SHAPE_MISMATCH, f"one object holds {len(phases)} volumes", alone=True
        )


def _positive(number: float | None) -> float | None:
    return number if number is not None and number > 0 else None


def _contrast(dataset: Dataset) -> bool | None:
    """Whether an agent is recorded; the text itself is free and never kept."""
    if dataset.get("ContrastBolusAgentSequence"):
        return True
    agent = text_of(dataset, "ContrastBolusAgent").upper()
    if not agent:
        return None  # the element is often empty where contrast was given
    return agent not in _NO_AGENT


def _hidden(fact: str, key: SecretStr) -> str:
    """What is the same where a fact is the same, and tells nothing of it."""
    return keyed_hash(fact, key)[:8] if fact.strip() else ""
