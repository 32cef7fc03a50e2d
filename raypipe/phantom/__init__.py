"""Synthetic CT with known lesions: for the demo, for tests, and as training backgrounds.

In: a PhantomSpec. Out: a Phantom (volume, lesions, organ map), and files of every kind that the
archive reader has to know.
Does not know: the packages that read it.
"""

from raypipe.phantom.anatomy import Phantom, PhantomSpec, make_phantom, phantom_geometry
from raypipe.phantom.backgrounds import estimate_noise, estimate_organs
from raypipe.phantom.broken_writer import FAULTS, Fault, write_broken
from raypipe.phantom.demo import SeriesTruth, write_archive, write_bulk_archive, write_truth
from raypipe.phantom.dicom_writer import (
    DicomOptions,
    WrittenSeries,
    outside_circle,
    write_dicom,
)
from raypipe.phantom.enhanced_writer import write_enhanced
from raypipe.phantom.lesion_kinds import DEFAULT_LABELS, KINDS
from raypipe.phantom.lesions import Inserted, Lesion, insert_lesion, insert_lesions, slice_boxes
from raypipe.phantom.localizer_writer import write_localizer
from raypipe.phantom.nifti_writer import write_image, write_nifti
from raypipe.phantom.organs import ORGAN_NAMES, Organ

__all__ = [
    "DEFAULT_LABELS",
    "FAULTS",
    "KINDS",
    "ORGAN_NAMES",
    "DicomOptions",
    "Fault",
    "Inserted",
    "Lesion",
    "Organ",
    "Phantom",
    "PhantomSpec",
    "SeriesTruth",
    "WrittenSeries",
    "estimate_noise",
    "estimate_organs",
    "insert_lesion",
    "insert_lesions",
    "make_phantom",
    "outside_circle",
    "phantom_geometry",
    "slice_boxes",
    "write_archive",
    "write_broken",
    "write_bulk_archive",
    "write_dicom",
    "write_enhanced",
    "write_image",
    "write_localizer",
    "write_nifti",
    "write_truth",
]
