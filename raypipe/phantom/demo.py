"""A small archive of synthetic series of every kind, and a large one of like series.

In: a folder, a number of series, a seed. Out: files, and what is true of each series.
Does not know: how the archive reader works.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raypipe.phantom.anatomy import Phantom, PhantomSpec, make_phantom
from raypipe.phantom.broken_writer import Fault, write_broken
from raypipe.phantom.dicom_writer import DicomOptions, WrittenSeries, write_dicom
from raypipe.phantom.enhanced_writer import write_enhanced
from raypipe.phantom.frames import with_noise
from raypipe.phantom.localizer_writer import write_localizer
from raypipe.phantom.nifti_writer import write_image, write_nifti


@dataclass(frozen=True, kw_only=True)
class SeriesTruth:
    """What is true of one series of a synthetic archive.

    Args:
        name: of the variant, such as "axial_thin".
        kind: "dicom", "nifti" or "image".
        paths: its files relative to the archive's folder.
        series_uid: "" where there is none.
        status: "ok" or "rejected".
        reason: slug where rejected.
        flags: what a reader has to notice.
        region, seed: of the phantom.
        shape_zyx, spacing_zyx_mm: of the phantom's own grid.
        affine_zyx_to_lps: 4 x 4, of the same grid.
        lesions: their truth as plain mappings, boxes on the same grid.
    """

    name: str
    kind: str
    paths: tuple[str, ...]
    series_uid: str
    status: str
    reason: str | None
    flags: tuple[str, ...]
    region: str
    seed: int
    shape_zyx: tuple[int, int, int]
    spacing_zyx_mm: tuple[float, float, float]
    affine_zyx_to_lps: tuple[tuple[float, ...], ...]
    lesions: tuple[dict[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class _Variant:
    name: str
    spec: dict[str, Any]
    options: dict[str, Any]
    writer: str = "dicom"
    fault: Fault | None = None
    reason: str | None = None
    flags: tuple[str, ...] = ()


_CHEST = {"region": "chest", "spacing_zyx_mm": (3.0, 1.9, 1.9)}
_THICK = {"region": "abdomen", "spacing_zyx_mm": (5.0, 1.9, 1.9), "contrast": "portal"}
_HEAD = {"region": "head", "spacing_zyx_mm": (4.0, 1.2, 1.2), "lesions": 1}

_VARIANTS: tuple[_Variant, ...] = (
    _Variant(name="axial_thin", spec=_CHEST | {"spacing_zyx_mm": (1.5, 1.9, 1.9)}, options={}),
    _Variant(name="axial_thick", spec=_THICK, options={"signed": False, "padding_value": 0}),
    _Variant(
        name="oblique",
        spec=_CHEST | {"orientation": "oblique", "contrast": "arterial"},
        options={"transfer_syntax": "implicit", "extension": ""},
    ),
    _Variant(
        name="coronal",
        spec=_CHEST | {"region": "chest_abdomen", "orientation": "coronal",
                       "spacing_zyx_mm": (4.0, 2.2, 2.2)},
        options={"reverse": True},
    ),
    _Variant(
        name="tilted_head", spec=_HEAD, options={"gantry_tilt_deg": 16.0}, flags=("gantry_tilt",)
    ),
    _Variant(
        name="uneven_spacing", spec=_HEAD, options={"uneven_spacing": True},
        flags=("uneven_spacing",),
    ),
    _Variant(name="enhanced", spec=_THICK, options={"signed": False}, writer="enhanced"),
    _Variant(
        name="compressed_jpeg2000",
        spec=_THICK | {"contrast": "arterial"},
        options={"transfer_syntax": "jpeg2000"},
    ),
    _Variant(name="compressed_rle", spec=_CHEST, options={"transfer_syntax": "rle"}),
    _Variant(
        name="overlapping_no_uid",
        spec=_CHEST | {"thickness_mm": 5.0, "spacing_zyx_mm": (2.5, 1.9, 1.9)},
        options={"empty_series_uid": True, "transfer_syntax": "deflated"},
        flags=("overlapping_slices", "series_uid_missing"),
    ),
    _Variant(name="nifti", spec=_THICK, options={}, writer="nii"),
    _Variant(
        name="nifti_gz_oblique", spec=_CHEST | {"orientation": "oblique"}, options={},
        writer="nii.gz",
    ),
    _Variant(
        name="image", spec=_THICK, options={}, writer="image",
        flags=("no_geometry", "no_hu", "single_slice"),
    ),
    _Variant(
        name="truncated", spec=_CHEST, options={}, fault="truncated_pixels",
        reason="pixels_unreadable",
    ),
    _Variant(
        name="wrong_transfer_syntax", spec=_CHEST, options={}, fault="wrong_transfer_syntax",
        reason="transfer_syntax_mismatch",
    ),
    _Variant(name="localizer", spec=_CHEST, options={}, writer="localizer", reason="localizer"),
    _Variant(
        name="duplicated_slices", spec=_HEAD, options={"duplicated_slices": (3, 4)},
        flags=("duplicate_slices",),
    ),
)  # fmt: skip


def write_archive(
    folder: Path | str,
    n_series: int = len(_VARIANTS),
    seed: int = 0,
    *,
    shape_zyx: tuple[int, int, int] = (40, 192, 192),
    truth_path: Path | str | None = None,
) -> list[SeriesTruth]:
    """Write an archive of n_series series, of every variant in turn, each of its own patient.

    The first 17 cover: axial (thin, thick), oblique, coronal, tilted, uneven spacing, enhanced
    multi-frame, JPEG 2000, RLE, deflated, NIfTI (.nii, .nii.gz), a picture, two broken series, a
    localizer, duplicated slices.

    Args:
        folder: made where needed.
        n_series: how many.
        seed: equal seeds give equal archives.
        shape_zyx: voxels of every series; heads have two fifths of the slices.
        truth_path: where to write the truths as JSON, best outside the archive.
    """
    folder = Path(folder)
    truths = []
    for number in range(n_series):
        variant = _VARIANTS[number % len(_VARIANTS)]
        phantom = make_phantom(_spec(variant, shape_zyx, seed * 10_000 + number))
        target = folder / f"{number:04d}_{variant.name}"
        written = _write(phantom, target, variant)
        truths.append(_truth(phantom, folder, variant, written))
    if truth_path is not None:
        write_truth(truths, truth_path)
    return truths


def _spec(variant: _Variant, shape_zyx: tuple[int, int, int], seed: int) -> PhantomSpec:
    slices, rows, columns = shape_zyx
    wanted = dict(variant.spec)
    # keep the field of view where the shape is not the usual 192 x 192
    dz, dy, dx = wanted["spacing_zyx_mm"]
    wanted["spacing_zyx_mm"] = (dz, round(dy * 192 / rows, 4), round(dx * 192 / columns, 4))
    if wanted["region"] == "head":
        slices = max(8, slices * 2 // 5)
        wanted["noise_hu"] = 4.0
    return PhantomSpec.model_validate(wanted | {"shape_zyx": (slices, rows, columns), "seed": seed})


def _write(phantom: Phantom, target: Path, variant: _Variant) -> WrittenSeries:
    options = DicomOptions.model_validate(variant.options)
    if variant.fault is not None:
        return write_broken(phantom, target, variant.fault, options)
    if variant.writer == "dicom":
        return write_dicom(phantom, target, options)
    if variant.writer == "enhanced":
        return write_enhanced(phantom, target, options)
    if variant.writer == "localizer":
        return write_localizer(phantom, target, options)
    if variant.writer == "image":
        shown = phantom.lesions[0].box_zyx.center_zyx[0] if phantom.lesions else None
        z = None if shown is None else round(shown)
        return WrittenSeries(paths=(write_image(phantom, target / "slice.png", z=z),))
    return WrittenSeries(paths=(write_nifti(phantom, target / f"volume.{variant.writer}"),))


def _truth(
    phantom: Phantom, folder: Path, variant: _Variant, written: WrittenSeries
) -> SeriesTruth:
    kind = {"nii": "nifti", "nii.gz": "nifti", "image": "image"}.get(variant.writer, "dicom")
    geometry = phantom.volume.geometry
    return SeriesTruth(
        name=variant.name,
        kind=kind,
        paths=tuple(path.relative_to(folder).as_posix() for path in written.paths),
        series_uid=written.series_uid,
        status="rejected" if variant.reason else "ok",
        reason=variant.reason,
        flags=variant.flags,
        region=phantom.spec.region,
        seed=phantom.spec.seed,
        shape_zyx=geometry.shape_zyx,
        spacing_zyx_mm=geometry.spacing_zyx_mm,
        affine_zyx_to_lps=tuple(tuple(map(float, row)) for row in geometry.affine_zyx_to_lps),
        lesions=tuple(asdict(lesion) for lesion in phantom.lesions),
    )


def write_truth(truths: Sequence[SeriesTruth], path: Path | str) -> Path:
    """Write truths as a JSON list."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(truth) for truth in truths], indent=1) + "\n")
    return path


def write_bulk_archive(
    folder: Path | str,
    n_series: int,
    seed: int = 0,
    *,
    shape_zyx: tuple[int, int, int] = (8, 96, 96),
    bodies: int = 12,
) -> list[SeriesTruth]:
    """Write many small plain DICOM series quickly, with distinct UIDs and patients.

    Only as many bodies as asked are built; the series take turns and differ by their noise. For
    measuring throughput and for tests that kill a job, not for measuring detection.
    """
    folder = Path(folder)
    variant = _Variant(name="bulk", spec={}, options={})
    pool = list(_bodies(min(bodies, n_series), shape_zyx, seed))
    truths = []
    for number in range(n_series):
        phantom = with_noise(pool[number % len(pool)], seed * 1_000_000 + number, 6.0)
        target = folder / f"{number // 1000:03d}" / f"{number:06d}"
        truths.append(_truth(phantom, folder, variant, write_dicom(phantom, target)))
    return truths


def _bodies(count: int, shape_zyx: tuple[int, int, int], seed: int) -> Iterator[Phantom]:
    rng = np.random.default_rng([seed, 3])
    width = 380.0 / max(shape_zyx[1:])
    for number in range(count):
        region, middle = (("chest", 60.0), ("abdomen", -100.0))[number % 2]
        yield make_phantom(
            PhantomSpec(
                region=region,
                shape_zyx=shape_zyx,
                spacing_zyx_mm=(5.0, width, width),
                center_z_mm=middle + float(rng.uniform(-40, 40)),
                seed=seed * 1000 + number,
                lesions=2,
                noise_hu=8.0,
            )
        )
