import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import read_manifest
from raypipe.archive.storage import StorageConfig
from raypipe.errors import ConfigError
from raypipe.geometry import Box, Geometry
from raypipe.knowledge.graph import load_graph
from raypipe.phantom import (
    Phantom,
    PhantomSpec,
    make_phantom,
    slice_boxes,
    write_dicom,
    write_image,
)
from raypipe.train.annotated_store import AnnotatedStoreConfig, annotated_store, box_on_grid
from raypipe.train.annotations import Annotation, read_annotations
from raypipe.train.dataset import SampleStore

GRAPH = load_graph()
LESION = {"file": "a.nii", "label": "renal_cyst"}
VOXELS = {"box_lower_zyx": [1.0, 2.0, 3.0], "box_upper_zyx": [2.0, 9.0, 9.0]}


def _phantom(seed: int) -> Phantom:
    return make_phantom(
        PhantomSpec(
            region="abdomen", shape_zyx=(8, 96, 96), spacing_zyx_mm=(5.0, 4.0, 4.0), seed=seed,
            center_z_mm=-100.0, lesions=("liver_cyst", "renal_cyst"),
        )
    )  # fmt: skip


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [_phantom(seed) for seed in (3, 4, 5)]


@pytest.fixture(scope="module")
def archive(phantoms: list[Phantom], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    for i, phantom in enumerate(phantoms):
        write_dicom(phantom, folder / f"series{i}")
    return folder


def _written(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(pa.Table.from_pylist([{n: row.get(n) for n in names} for row in rows]), path)
    return path


def _rows(phantom: Phantom, **name: str) -> list[dict[str, Any]]:
    return [
        {
            **name,
            "label": lesion.label,
            "box_lower_zyx": list(lesion.box_zyx.lower_zyx),
            "box_upper_zyx": list(lesion.box_zyx.upper_zyx),
            "attributes": ";".join(f"{k}={v}" for k, v in lesion.attributes.items()),
        }
        for lesion in phantom.lesions
    ]


def _in_mm(phantom: Phantom, row: dict[str, Any]) -> dict[str, Any]:
    lower, upper = row.pop("box_lower_zyx"), row.pop("box_upper_zyx")
    corners = phantom.volume.geometry.corners_lps_mm(
        Box(lower_zyx=tuple(lower), upper_zyx=tuple(upper))
    )
    return {
        **row,
        "box_lower_lps_mm": corners.min(axis=0).tolist(),
        "box_upper_lps_mm": corners.max(axis=0).tolist(),
    }


def test_boxes_in_voxels_and_in_mm_reach_the_store_where_the_lesions_are(
    phantoms: list[Phantom], archive: Path, tmp_path: Path
) -> None:
    name = sorted(p.name for p in (archive / "series1").iterdir())[0]
    rows = [
        *_rows(phantoms[0], file=f"series0/{name}"),
        *(_in_mm(phantoms[1], row) for row in _rows(phantoms[1], file=f"series1/{name}")),
    ]
    found = read_annotations(_written(rows, tmp_path / "truth.parquet"), GRAPH)
    summary = annotated_store(
        str(archive), found, tmp_path / "store", AnnotatedStoreConfig(validation=0.5)
    )
    assert summary.series == 2 and not summary.rejected  # series2 is not annotated
    assert sum(summary.lesions.values()) == len(rows) > 2
    stores = [SampleStore(summary.train_store), SampleStore(str(summary.validation_store))]
    assert len({int(s) for store in stores for s in store.series}) == 2
    whole = [store[i] for store in stores for i in range(len(store))]
    seen = [(s.labels[m], s.boxes_m4[m]) for s in whole for m in range(len(s.labels))]
    for label, box in [truth for p in phantoms[:2] for truth in _slice_truths(p)]:
        near = [b for name, b in seen if name == label and np.abs(b[:2] - box[:2]).max() < 8]
        assert near, label
    assert any(s.attributes[0] for s in whole if s.labels)


def _slice_truths(phantom: Phantom) -> list[tuple[str, Any]]:
    """Label and centre x, y on 256 pixels where each lesion is largest."""
    found = []
    for number, lesion in enumerate(phantom.lesions):
        z = int(np.argmax((phantom.lesion_map == number + 1).sum(axis=(1, 2))))
        box = dict(slice_boxes(phantom.lesion_map, z))[number]
        (_, y0, x0), (_, y1, x1) = box.lower_zyx, box.upper_zyx
        found.append((lesion.label, np.array([(x0 + x1) / 2, (y0 + y1) / 2]) * 256 / 96))
    return found


def test_series_keys_name_series_and_a_null_label_a_normal_one(
    phantoms: list[Phantom], archive: Path, tmp_path: Path
) -> None:
    build_index(str(archive), str(tmp_path / "manifest"), IndexConfig())
    keys = {
        Path(row["instances"][0]["uri"]).parent.name: row["series_key"]
        for row in read_manifest(str(tmp_path / "manifest"), StorageConfig()).to_pylist()
    }
    rows = [*_rows(phantoms[0], series_key=keys["series0"]), {"series_key": keys["series2"]}]
    found = read_annotations(_written(rows, tmp_path / "truth.parquet"), GRAPH)
    summary = annotated_store(
        str(archive), found, tmp_path / "store", AnnotatedStoreConfig(validation=0)
    )
    store = SampleStore(summary.train_store)
    assert summary.validation_store is None and summary.series == 2
    with_lesions = {store[i].series for i in range(len(store)) if store[i].labels}
    normal = ~np.isin(store.series, list(with_lesions))
    assert len(with_lesions) == 1 and normal.sum() == 8  # every slice of the normal series
    unknown = [Annotation(where="row 0", series_key="beef")]
    with pytest.raises(ConfigError, match="row 0: series_key 'beef' is not in the archive"):
        annotated_store(str(archive), unknown, tmp_path / "s", AnnotatedStoreConfig())


def test_coco_boxes_on_pictures(phantoms: list[Phantom], tmp_path: Path) -> None:
    phantom = phantoms[0]
    number, box = next((n, b) for z in range(8) for n, b in slice_boxes(phantom.lesion_map, z))
    z = next(z for z in range(8) if dict(slice_boxes(phantom.lesion_map, z)).get(number) == box)
    for name, level in (("a.png", z), ("b.png", 0)):
        write_image(phantom, tmp_path / "archive" / name, z=level)
    (_, y0, x0), (_, y1, x1) = box.lower_zyx, box.upper_zyx
    image = {"width": 96, "height": 96}
    told: dict[str, Any] = {
        "images": [
            {"id": 1, "file_name": "a.png", **image},
            {"id": 2, "file_name": "b.png", **image},
        ],
        "categories": [{"id": 7, "name": phantom.lesions[number].label}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 7, "bbox": [x0, y0, x1 - x0, y1 - y0]}
        ],
    }
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(told))
    found = read_annotations(file, GRAPH)
    config = AnnotatedStoreConfig(validation=0)
    store = SampleStore(
        annotated_store(str(tmp_path / "archive"), found, tmp_path / "store", config).train_store
    )
    scale = 256 / 96
    expected = [(x0 + x1) / 2 * scale, (y0 + y1) / 2 * scale, (x1 - x0) * scale, (y1 - y0) * scale]
    assert [len(store[i].labels) for i in range(2)] in ([1, 0], [0, 1])
    np.testing.assert_allclose(store.boxes, [expected], atol=1e-3)
    told["images"][0]["width"] = 512
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match=r"annotation 5: height and width .* differ"):
        annotated_store(str(tmp_path / "archive"), read_annotations(file, GRAPH), tmp_path, config)
    told["annotations"][0]["bbox"] = [1, 2, 3]
    file.write_text(json.dumps(told))
    with pytest.raises(ConfigError, match="annotation 5: bbox is x, y, width, height"):
        read_annotations(file, GRAPH)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**LESION, **VOXELS, "label": "renal_cist"}, "row 0: label 'renal_cist'.*renal_cyst"),
        ({**LESION, **VOXELS, "series_key": "a"}, "exactly one of series_key and file"),
        (LESION, "give a box either as"),
        ({**LESION, **VOXELS, "box_upper_zyx": [2.0, 9.0]}, "box_upper_zyx is three finite"),
        ({**LESION, **VOXELS, "box_upper_zyx": [1.0, 9.0, 9.0]}, "must exceed its lower corner"),
        ({**LESION, **VOXELS, "label": None}, "label is null, which says normal"),
        ({**LESION, **VOXELS, "attributes": "colour=red"}, "unknown attribute 'colour'"),
        ({**LESION, **VOXELS, "attributes": "density=golden"}, "density of renal_cyst cannot be"),
        ({**LESION, **VOXELS, "attributes": "density"}, "attributes 'density': write"),
        ({**LESION, **VOXELS, "bbox": 1}, "unknown column 'bbox'"),
        ({"file": "a.nii", **VOXELS}, "needs the columns label and series_key"),
    ],
)
def test_a_wrong_row_is_named_with_its_remedy(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        read_annotations(_written([row], tmp_path / "truth.parquet"), GRAPH)


def test_attributes_come_in_four_layouts(tmp_path: Path) -> None:
    pairs = [{"name": "density", "value": "fluid"}]
    for attributes in ("density=fluid", pairs, {"density": "fluid", "margin": None}):
        row = {**LESION, **VOXELS, "attributes": attributes}
        (found,) = read_annotations(_written([row], tmp_path / "t.parquet"), GRAPH)
        assert found.attributes == {"density": "fluid"}
    kind = pa.map_(pa.string(), pa.string())
    table = pa.Table.from_pylist([{**LESION, **VOXELS}])
    table = table.append_column("attributes", pa.array([[("density", "fluid")]], kind))
    pq.write_table(table, tmp_path / "map.parquet")
    assert read_annotations(tmp_path / "map.parquet", GRAPH)[0].attributes == {"density": "fluid"}


def test_files_that_hold_no_annotations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_annotations(tmp_path / "none.parquet", GRAPH)
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ConfigError, match="is no Parquet"):
        read_annotations(tmp_path / "no.parquet", GRAPH)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no COCO JSON"):
        read_annotations(tmp_path / "no.json", GRAPH)


def test_a_box_outside_its_series_is_refused() -> None:
    grid = Geometry(shape_zyx=(4, 96, 96), affine_zyx_to_lps=np.eye(4)[[2, 1, 0, 3]])
    outside = Annotation(
        where="t.parquet, row 7",
        series_key="k",
        label="renal_cyst",
        corners_23=np.array([(10.0, 1.0, 1.0), (12.0, 9.0, 9.0)]),
    )
    with pytest.raises(ConfigError, match=r"row 7: the box .* lies outside"):
        box_on_grid(outside, grid, grid)


def test_one_study_cannot_be_parted(archive: Path) -> None:
    name = sorted(p.name for p in (archive / "series0").iterdir())[0]
    only = [Annotation(where="row 0", file=f"series0/{name}")]
    with pytest.raises(ConfigError, match="1 annotated studies cannot be parted"):
        annotated_store(str(archive), only, archive, AnnotatedStoreConfig(validation=0.2))
    twice = [Annotation(where="row 0", file=name)]
    with pytest.raises(ConfigError, match="names 3 series; write its path"):
        annotated_store(str(archive), twice, archive, AnnotatedStoreConfig())


def _coco(path: Path, image: dict[str, Any], annotation: dict[str, Any]) -> Path:
    told = {
        "images": [{"id": 1, "file_name": "a.png", **image}],
        "categories": [{"id": 7, "name": "renal_cyst"}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]}],
    }
    told["annotations"][0].update(annotation)
    path.write_text(json.dumps(told), encoding="utf-8-sig")
    return path


def test_coco_as_programs_write_it(tmp_path: Path) -> None:
    attributes = {"occluded": False, "rotation": 0.0, "density": "fluid"}
    unknown_size = {"width": None, "height": None}
    file = _coco(tmp_path / "a.json", unknown_size, {"attributes": attributes})
    (found,) = read_annotations(file, GRAPH)
    assert found.attributes == {"density": "fluid"} and found.size_yx is None
    pairs = [{"name": "density", "value": "fluid"}]
    (found,) = read_annotations(_coco(tmp_path / "b.json", {}, {"attributes": pairs}), GRAPH)
    assert found.attributes == {"density": "fluid"}
    with pytest.raises(ConfigError, match="annotation 5: bbox is x, y, width, height"):
        read_annotations(_coco(tmp_path / "c.json", {}, {"bbox": [1, 2, np.inf, 4]}), GRAPH)


def test_a_coco_box_on_one_slice_of_a_series_is_refused(archive: Path, tmp_path: Path) -> None:
    name = sorted(p.name for p in (archive / "series0").iterdir())[5]
    found = read_annotations(
        _coco(tmp_path / "a.json", {"file_name": f"series0/{name}"}, {}), GRAPH
    )
    with pytest.raises(ConfigError, match=r"annotation 5: COCO boxes .* a series of 8 slices"):
        annotated_store(str(archive), found, tmp_path / "store", AnnotatedStoreConfig(validation=0))


def test_copies_and_files_in_a_zip_are_found_by_their_names(archive: Path, tmp_path: Path) -> None:
    config = AnnotatedStoreConfig(validation=0)
    for copy in ("first", "second"):
        shutil.copytree(archive / "series0", tmp_path / "twice" / copy)
    name = sorted(p.name for p in (archive / "series0").iterdir())[0]
    for copy in ("first", "second"):
        found = [Annotation(where="row 0", file=f"{copy}/{name}")]
        made = annotated_store(str(tmp_path / "twice"), found, tmp_path / copy, config)
        assert made.series == 1
    packed = shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "twice", "first")
    found = [Annotation(where="row 0", file=f"first/{name}")]
    assert annotated_store(packed, found, tmp_path / "zipped", config).series == 1
    alone = tmp_path / "alone" / name
    alone.parent.mkdir()
    shutil.copy(archive / "series0" / name, alone)
    found = [Annotation(where="row 0", file=name)]
    assert annotated_store(str(alone), found, tmp_path / "lone", config).series == 1


def test_a_part_of_which_no_series_can_be_read_is_told_with_the_reason(
    archive: Path, tmp_path: Path
) -> None:
    shutil.copytree(archive / "series0", tmp_path / "in" / "gap")
    names = sorted((tmp_path / "in" / "gap").iterdir())
    for file in names[3:5]:
        file.unlink()
    found = [Annotation(where="row 0", file=names[0].name)]
    with pytest.raises(ConfigError, match=r"no series for train could be read \(1 slice_gap\)"):
        annotated_store(
            str(tmp_path / "in"), found, tmp_path / "store", AnnotatedStoreConfig(validation=0)
        )
