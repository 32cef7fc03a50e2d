"""Truth files of every kind, and what is wrong with bad ones."""

import io
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.errors import ConfigError
from raypipe.evaluate.truth import KnownSeries, KnownTruth, read_truth
from raypipe.geometry import Box, Geometry, box_around
from raypipe.phantom import SeriesTruth

GRID = np.array([[0, 0, -1.0, 40], [0, 2.0, 0, -10], [2.5, 0, 0, 50], [0, 0, 0, 1]])
FILES = {"a/1.dcm": "A", "a/2.dcm": "A", "b.nii": "B"}


def parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    buffer, names = io.BytesIO(), dict.fromkeys(name for row in rows for name in row)
    columns = {name: [row.get(name) for row in rows] for name in names}
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def read(content: Any, name: str = "truth.parquet") -> KnownTruth:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return read_truth(raw, name, FILES.get)


def of(truth: KnownTruth) -> dict[str, KnownSeries]:
    return {series.series_key: series for series in truth.series}


def row(**changes: Any) -> dict[str, Any]:
    lesion = {"label": "cyst", "box_lower_zyx": [1, 2, 3], "box_upper_zyx": [2, 8, 9]}
    return {"series_key": None, "source": "a/1.dcm", **lesion, **changes}


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "images": [
            {"id": 1, "file_name": "a/1.dcm", "slice": 4, "width": 512, "cluster_key": "P1"},
            {"id": 2, "file_name": "a/2.dcm", "slice": 5},
            {"id": 3, "file_name": "b.nii"},
        ],
        "categories": [{"id": 7, "name": "cyst", "supercategory": "lesion"}],
        "annotations": [
            {"image_id": 1, "category_id": 7, "bbox": [10, 20, 5, 6], "track_id": 0},
            {"image_id": 2, "category_id": 7, "bbox": [11, 19, 5, 6], "track_id": 0},
            {"image_id": 2, "category_id": 7, "bbox": [100, 100, 8, 8]},
            {"image_id": 3, "category_id": 7, "bbox_3d": [1, 2, 3, 10, 20, 30]},
        ],
        **changes,
    }


def test_parquet_rows_become_series() -> None:
    rows = [
        row(diameter_mm=5.0, subtle=True, cluster_key="P1"),
        row(source="a/2.dcm", attributes=[{"name": "density", "value": "fluid"}]),
        row(source=None, series_key="Z", label=None, box_lower_zyx=None, box_upper_zyx=None),
        row(source="elsewhere.dcm"),
    ]
    truth = read(parquet(rows))
    assert truth.unknown == ("elsewhere.dcm",)
    a, z = of(truth)["A"], of(truth)["Z"]
    assert len(a.lesions) == 2 and a.cluster_key == "P1" and a.geometry is None
    assert (a.lesions[0].diameter_mm, a.lesions[0].subtle) == (5.0, True)
    assert a.lesions[0].box_zyx.upper_zyx == (2, 8, 9)
    assert z.lesions == ()


def test_parquet_boxes_on_a_grid_of_their_own() -> None:
    affine = np.diag([2.0, 1.0, 3.0, 1.0])
    grid = {"shape_zyx": [4, 5, 6], "affine_zyx_to_lps": affine.ravel().tolist()}
    series = read(parquet([row(**grid), row(source="a/2.dcm", **grid)])).series[0]
    assert series.geometry is not None
    assert series.geometry.spacing_zyx_mm == (2.0, 1.0, 3.0)
    with pytest.raises(ConfigError, match="different grids"):
        read(parquet([row(**grid), row()]))


def test_parquet_as_the_training_takes_it() -> None:
    """A file, corners in the patient, attributes as text; "" says the same as null."""
    corners = {"box_lower_lps_mm": [-30.0, 2.0, 100.0], "box_upper_lps_mm": [-20.0, 8.0, 105.0]}
    bare = {"box_lower_zyx": None, "box_upper_zyx": None}
    lesion = row(source="", file="a/1.dcm", attributes="density=fluid;margin=smooth", cluster_key=7)
    normal = {**row(source="", file="b.nii"), **bare, "label": "", "cluster_key": 7}
    a, b = of(read(parquet([{**lesion, **bare, **corners}, normal]))).values()
    assert b.lesions == () and (a.cluster_key, b.cluster_key) == ("7", "7")
    assert a.geometry is not None
    target = Geometry(shape_zyx=(99, 99, 99), affine_zyx_to_lps=GRID)
    there = a.geometry.box_to(target, a.lesions[0].box_zyx)
    assert there == target_box(target, *corners.values())
    with pytest.raises(ConfigError, match="different grids"):
        read(parquet([{**lesion, **bare, **corners}, row()]))


def target_box(grid: Geometry, lower: Sequence[float], upper: Sequence[float]) -> Box:
    return box_around(grid, list(itertools.product(*zip(lower, upper, strict=True))))


def test_errors_do_not_repeat_a_row_that_may_name_a_patient() -> None:
    patient = {"source": "/archive/Doe^Jane/1.dcm", "cluster_key": "Doe^Jane"}
    for changes in ({"box_upper_zyx": None}, {"patient_name": "Doe^Jane"}):
        with pytest.raises(ConfigError) as caught:
            read(parquet([row(**patient, **changes)]))
        assert "row 0" in str(caught.value) and "Jane" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"box_upper_zyx": [1, 8, 9]}, "row 1: .*lies beyond box_lower_zyx"),
        ({"box_upper_zyx": None}, "row 1: .*box_lower_zyx and box_upper_zyx"),
        ({"box_lower_zyx": [1.0, 2.0]}, "row 1: box_lower_zyx"),
        ({"source": None}, "row 1: .*by series_key or by source"),
        ({"label": None}, "row 1: .*a box has a label"),
        ({"diameter_mm": -1.0}, "row 1: diameter_mm: .*greater than 0.*got -1.0"),
        ({"diamter_mm": 4.0}, "row 1: diamter_mm: unknown; known are series_key"),
        ({"shape_zyx": [1, 2, 3]}, "row 1: .*come together"),
        ({"label": ""}, "row 1: .*a box has a label"),
        ({"box_lower_zyx": [math.nan, 2, 3]}, "row 1: .*every corner is finite"),
        ({"box_upper_zyx": [math.inf, 8, 9]}, "row 1: .*every corner is finite"),
        ({"box_lower_lps_mm": [1.0, 2.0, 3.0]}, "row 1: .*or box_lower_lps_mm"),
        (
            {"shape_zyx": [1, 2, 3], "affine_zyx_to_lps": [0.0] * 15 + [1.0]},
            "row 1: .*affine_zyx_to_lps is singular",
        ),
        (
            {"shape_zyx": [0, 2, 3], "affine_zyx_to_lps": np.eye(4).ravel().tolist()},
            "row 1: .*three positive numbers",
        ),
    ],
)
def test_bad_rows_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(parquet([row(), row(**changes)]))


def test_coco_boxes_of_one_track_are_one_lesion() -> None:
    truth = of(read(coco(), "truth.json"))
    a = sorted(truth["A"].lesions, key=lambda lesion: lesion.box_zyx.lower_zyx)
    assert [(t.box_zyx.lower_zyx, t.box_zyx.upper_zyx) for t in a] == [
        ((4, 19, 10), (6, 26, 16)),
        ((5, 100, 100), (6, 108, 108)),
    ]
    assert truth["A"].cluster_key == "P1"
    box = truth["B"].lesions[0].box_zyx
    assert (box.lower_zyx, box.upper_zyx) == ((3, 2, 1), (33, 22, 11))


def test_coco_images_without_boxes_are_series_without_lesions() -> None:
    truth = read(coco(annotations=[]), "truth.json")
    assert {s.series_key: s.lesions for s in truth.series} == {"A": (), "B": ()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 7, "bbox": [0, 0, 1, 1]}]}, "image_id 9"),
        (
            {"annotations": [{"image_id": 1, "category_id": 8, "bbox": [0, 0, 1, 1]}]},
            "annotation 0: category_id 8",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 7, "bbox": [0, 0, 0, 1]}]},
            "annotations.0: .*positive",
        ),
        ({"annotations": [{"image_id": 1, "category_id": 7}]}, "annotations.0: .*has bbox"),
        ({"images": [{"id": 1}]}, "images.0: .*file_name or series_key"),
        (
            {"images": [{"id": i, "file_name": f"a/{i}.dcm"} for i in (1, 2)]},
            "image 2: slice 0 of its series occurs twice",
        ),
        (
            {"images": [{"id": 1, "file_name": name} for name in ("a/1.dcm", "b.nii")]},
            "images: the id 1 occurs twice",
        ),
        (
            {"categories": [{"id": 7, "name": name} for name in ("cyst", "stone")]},
            "categories: the id 7 occurs twice",
        ),
        (
            {"annotations": [{"image_id": 1, "category_id": 7, "bbox": [math.nan, 0, 1, 1]}]},
            "annotations.0: .*every corner is finite",
        ),
    ],
)
def test_bad_coco_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(coco(**changes), "truth.json")


def test_truth_of_a_phantom_archive() -> None:
    phantom = SeriesTruth(
        name="x", kind="dicom", paths=("b.nii",), series_uid="", status="ok", reason=None,
        flags=(), region="chest", seed=0, shape_zyx=(4, 5, 6), spacing_zyx_mm=(2.0, 1.0, 3.0),
        affine_zyx_to_lps=((0, 0, 3.0, 0), (0, 1.0, 0, 0), (2.0, 0, 0, 0), (0, 0, 0, 1)),
        lesions=(
            {
                "label": "cyst", "diameter_mm": 4.0, "contrast_hu": 50.0, "subtle": True,
                "box_zyx": {"lower_zyx": [0, 1, 2], "upper_zyx": [1, 2, 3]},
            },
        ),
    )  # fmt: skip
    broken = {**asdict(phantom), "status": "rejected", "paths": ["a/1.dcm"]}
    (series,) = read([asdict(phantom), broken], "truth.json").series
    assert series.series_key == "B"
    assert series.geometry is not None and series.geometry.spacing_zyx_mm == (2.0, 1.0, 3.0)
    assert (series.lesions[0].label, series.lesions[0].subtle) == ("cyst", True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": ""}, "series 0: lesions.0.label"),
        ({"diameter_mm": 0.0}, "series 0: lesions.0.diameter_mm"),
        (
            {"box_zyx": {"lower_zyx": [3, 2, 1], "upper_zyx": [1, 2, 3]}},
            "series 0: lesions.0.box_zyx: .*lies below",
        ),
    ],
)
def test_bad_phantoms_are_named(changes: dict[str, Any], message: str) -> None:
    box = {"lower_zyx": [0, 1, 2], "upper_zyx": [1, 2, 3]}
    lesion = {"label": "cyst", "diameter_mm": 4.0, "contrast_hu": 50.0, "subtle": True}
    series = {
        "paths": ["b.nii"], "status": "ok", "shape_zyx": [4, 5, 6],
        "affine_zyx_to_lps": np.eye(4).tolist(), "lesions": [{**lesion, "box_zyx": box, **changes}],
    }  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        read([series], "truth.json")


def test_other_files_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"\.parquet or a \.json"):
        read(b"", "truth.csv")
    with pytest.raises(ConfigError, match="not JSON"):
        read(b"{", "truth.json")
    with pytest.raises(ConfigError, match="not Parquet"):
        read(b"abc", "truth.parquet")
