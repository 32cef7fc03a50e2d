"""A DICOM segmentation of one result row: the box of each finding as a segment.

In: a result row, the stored slices of its series. Out: a binary Segmentation on the slices that the
boxes touch.
Does not know: files, where headers come from, whether they carry a patient's identity: what stands
in them is copied.

A segment is the volume of a box, not the contour of a lesion, and says so in its description.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from raypipe.errors import Reason, SeriesError
from raypipe.sink import codes as own
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
from raypipe.sink.dicom_sr import coding_scheme, concept, tracking_uid
from raypipe.sink.schema import Row

SERIES_NUMBER = 9002
BOX_NOTICE = "Box around the finding, not its contour."
_MAX_MASK_BYTES = 2 << 30
_SAME_POSITION_MM = 0.01


@quiet_dicom()
def segmentation(
    row: Row, slices: Sequence[SourceSlice], made_at: datetime | None = None
) -> Dataset:
    """The segmentation of one row.

    Args:
        row: a result row with status "ok" and at least one finding.
        slices: all slices of its series.
        made_at: date of the object; None gives a dummy.

    Raises:
        ValueError: the row has no finding.
        SeriesError: TOO_LARGE, its masks do not fit into 2 GiB; HEADER_UNREADABLE, an instance
            has no UIDs.
    """
    placed = place_findings(row, slices)
    if not placed:
        raise ValueError("a segmentation needs at least one finding")
    shown_at = _shown_at(placed, slices)
    shown = [slices[index] for index in dict.fromkeys(shown_at.values())]
    depth_mm = float(row["thickness_mm"] or row["spacing_zyx_mm"][0])
    sources = _sources(shown, row["series_key"], depth_mm)
    uid = derived_uid("seg", sources[0].SOPInstanceUID, content_of(row))
    document = hd.seg.Segmentation(
        source_images=sources,
        pixel_array=_masks(placed, shown_at, shown[0].shape_yx),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(n, item, row) for n, item in enumerate(placed, start=1)],
        series_instance_uid=derived_uid("seg series", sources[0].SeriesInstanceUID),
        series_number=SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=software_of(row),
        device_serial_number="0",
        series_description=f"{MANUFACTURER} boxes, research use only",
        content_label="BOXES",
        content_description=BOX_NOTICE,
        specific_character_set="ISO_IR 192",
        coding_schemes=[coding_scheme()],
        plane_positions=_positions(shown),
    )
    for item in (*document.DimensionOrganizationSequence, *document.DimensionIndexSequence):
        item.DimensionOrganizationUID = derived_uid("dimensions", uid)
    stamp(document, made_at)
    return document


def _shown_at(placed: Sequence[Placed], slices: Sequence[SourceSlice]) -> dict[int, int]:
    """Slice that a box touches -> the one that shows its position: the first, as in the volume."""
    origin = slices[0].position_lps_mm
    first: dict[int, int] = {}
    shown = {}
    for index in sorted({outline.index for item in placed for outline in item.outlines}):
        depth_mm = float(slices[index].points(origin)[2])
        shown[index] = first.setdefault(round(depth_mm / _SAME_POSITION_MM), index)
    return shown


def _sources(shown: Sequence[SourceSlice], series_key: str, depth_mm: float) -> list[Dataset]:
    """The headers of the instances that the slices belong to, on the one grid of the series.

    highdicom takes orientation, measures and frame of reference from them, and refuses sources in
    which they are missing, stand frame by frame, or differ by a last digit.
    """
    headers = completed_headers(shown, series_key)
    sources = list({header.SOPInstanceUID: header for header in headers}.values())
    orientation = hd.PlaneOrientationSequence("PATIENT", shown[0].direction)
    measures = hd.PixelMeasuresSequence(shown[0].spacing_yx_mm, depth_mm)
    shared = Dataset()
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = orientation, measures
    for header in sources:
        header.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
        if shown[0].frame is not None:
            header.SharedFunctionalGroupsSequence = [shared]
            continue
        header.ImageOrientationPatient = orientation[0].ImageOrientationPatient
        header.PixelSpacing = measures[0].PixelSpacing
        header.SliceThickness = measures[0].SliceThickness
        header.pop("SpacingBetweenSlices", None)
    return sources


def _positions(shown: Sequence[SourceSlice]) -> list[hd.PlanePositionSequence] | None:
    """Where the masks lie; told of multi-frame sources alone, of which only some frames count."""
    if shown[0].frame is None:
        return None
    return [hd.PlanePositionSequence("PATIENT", stored.position_lps_mm) for stored in shown]


def _masks(
    placed: Sequence[Placed], shown_at: Mapping[int, int], shape_yx: tuple[int, int]
) -> NDArray[np.uint8]:
    """(slice, row, column, segment): 1 in every voxel that a box touches."""
    at = {index: i for i, index in enumerate(dict.fromkeys(shown_at.values()))}
    shape = (len(at), *shape_yx, len(placed))
    if np.prod(shape, dtype=np.int64) > _MAX_MASK_BYTES:
        raise SeriesError(Reason.TOO_LARGE, f"masks of {shape} voxels do not fit into 2 GiB")
    masks = np.zeros(shape, dtype=np.uint8)
    for segment, item in enumerate(placed):
        for outline in item.outlines:
            (y0, x0), (y1, x1) = outline.lower_yx, outline.upper_yx
            rows = slice(_floor(y0), _ceil(y1))
            masks[at[shown_at[outline.index]], rows, _floor(x0) : _ceil(x1), segment] = 1
    return masks


def _floor(value: float) -> int:
    """The voxel that a near face lies in; a face on a border up to rounding belongs to the next."""
    return int(np.floor(value + 1e-4))


def _ceil(value: float) -> int:
    return int(np.ceil(value - 1e-4))


def _description(number: int, item: Placed, row: Row) -> hd.seg.SegmentDescription:
    finding = item.finding
    code = own.finding_code(finding.label)
    organ = own.organ_code(finding.label)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=f"{finding.finding_id} {code.meaning}"[:64],
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=concept(code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{MANUFACTURER} detector",
            family=codes.cid7162.ArtificialIntelligence,
            version=software_of(row),
            source=MANUFACTURER,
            parameters=dict(pair.split("=", 1) for pair in parameters_of(row)),
        ),
        tracking_uid=tracking_uid(row["series_key"], finding.finding_id),
        tracking_id=finding.finding_id,
        anatomic_regions=[concept(organ)] if organ else None,
    )
    description.SegmentDescription = f"{BOX_NOTICE} {NOT_FOR_DIAGNOSIS}"
    return description
