"""raypipe/archive/index.py: every file in one row; a second run reads only what is new."""

import shutil
import struct
import tracemalloc
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from raypipe.archive.index import IndexConfig, build_index
from raypipe.archive.manifest import (
    MANIFEST_SCHEMA,
    first_row,
    read_manifest,
    series_keys,
    series_ref,
)
from raypipe.archive.state import State
from raypipe.archive.storage import StorageConfig
from raypipe.errors import ConfigError
from raypipe.phantom import FAULTS, DicomOptions, Phantom, SeriesTruth, write_broken, write_dicom
from tests.archive.ct_files import tissue, write_ct, write_stack

Rows = list[dict[str, Any]]
Index = Callable[[Path | str], Rows]


def by_folder(rows: Rows) -> dict[str, Rows]:
    found: dict[str, Rows] = {}
    for row in rows:
        found.setdefault(Path(row["instances"][0]["uri"]).parent.name, []).append(row)
    return found


def test_every_variant_of_the_phantom_archive_is_one_row(
    archive: tuple[Path, list[SeriesTruth]], index: Index
) -> None:
    folder, truths = archive
    rows = index(folder)
    assert len(rows) == len(truths)
    found = by_folder(rows)
    for truth in truths:
        (row,) = found[Path(truth.paths[0]).parent.name]
        headers_tell = truth.reason in (None, "transfer_syntax_mismatch", "localizer")
        assert row["status"] == (truth.status if headers_tell else "ok")
        assert row["kind"] == truth.kind
        if truth.kind == "dicom" and truth.name == "axial_thin":
            assert row["shape_zyx"] == list(truth.shape_zyx)
            np.testing.assert_allclose(row["spacing_zyx_mm"], truth.spacing_zyx_mm, atol=1e-4)


def test_not_one_file_is_lost(tmp_path: Path, index: Index, phantom: Phantom) -> None:
    source = tmp_path / "archive"
    for fault in FAULTS:
        write_broken(phantom, source / fault, fault)
    (source / "notes.txt").write_text("not a picture")
    (source / "dangling").symlink_to(source / "nowhere")
    rows = index(source)
    counts = Counter(i["uri"] for row in rows for i in row["instances"] + row["repeated"])
    files = {str(p) for p in source.rglob("*") if not p.is_dir()}
    assert set(counts) == files
    assert set(counts.values()) == {1}


EXPECTED = {
    "wrong_transfer_syntax": {"transfer_syntax_mismatch"},
    "unknown_transfer_syntax": {"transfer_syntax_unsupported"},
    "no_modality": {"modality_missing"},
    "wrong_modality": {"not_ct"},
    "no_position": {"geometry_missing"},
    "no_pixel_data": {"no_pixel_data"},
    "secondary_capture": {"secondary_capture"},
    "colour": {"unsupported_color"},
    "mixed_shapes": {None, "shape_mismatch"},
    "mixed_orientation": {None, "localizer"},
    "garbage": {"not_an_image"},
    "empty_file": {"not_an_image"},
    "truncated_pixels": {None},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_has_its_reason(
    tmp_path: Path, index: Index, phantom: Phantom, fault: Any
) -> None:
    write_broken(phantom, tmp_path / "archive", fault)
    rows = index(tmp_path / "archive")
    assert {row["reason"] for row in rows} == EXPECTED[fault]
    for row in rows:
        assert (row["status"] == "rejected") == (row["reason"] is not None)
        assert bool(row["message"]) == (row["reason"] is not None)


def test_rows_follow_the_schema_and_hold_no_patient(tmp_path: Path, index: Index) -> None:
    write_stack(tmp_path / "archive", [0.0, 2.0, 4.0], BodyPartExamined="Doe^Jane")
    write_ct(tmp_path / "archive" / "mr", tissue(), Modality="DOE^JANE", SeriesInstanceUID="9.9")
    index(tmp_path / "archive")
    out = tmp_path / "manifest"
    table = read_manifest(str(out), StorageConfig())
    assert table.schema.equals(MANIFEST_SCHEMA)
    for file in out.rglob("*.parquet"):
        text = str(pq.read_table(file).to_pylist()).upper()
        assert "DOE" not in text and "SECRET" not in text and "1.2.3.4'" not in text


def test_slices_are_ordered_along_the_normal(tmp_path: Path, index: Index) -> None:
    z_mm = [6.0, 0.0, 4.0, 2.0]
    write_stack(tmp_path / "archive", z_mm)
    (row,) = index(tmp_path / "archive")
    names = [Path(i["uri"]).name for i in row["instances"]]
    assert names == ["s001.dcm", "s003.dcm", "s002.dcm", "s000.dcm"]
    assert row["spacing_zyx_mm"] == [2.0, 0.7, 0.8]
    ref = series_ref(row)
    assert [i.uri for i in ref.instances] == [i["uri"] for i in row["instances"]]


def test_second_run_opens_only_what_is_new(tmp_path: Path) -> None:
    source, out = tmp_path / "archive", str(tmp_path / "manifest")
    write_stack(source / "a", [0.0, 2.0, 4.0])
    write_stack(source / "b", [0.0, 2.0], SeriesInstanceUID="1.2.3.5")
    first = build_index(str(source), out, IndexConfig())
    assert (first.series, first.series_added, first.files_read) == (2, 2, 5)
    keys = {r["series_key"] for r in read_manifest(out, StorageConfig()).to_pylist()}

    again = build_index(str(source), out, IndexConfig())
    assert (again.files_read, again.bytes_read) == (0, 0)
    assert (again.series_added, again.series_changed, again.series_removed) == (0, 0, 0)

    write_ct(source / "a" / "late.dcm", tissue(seed=9), 6.0)
    write_stack(source / "c", [0.0, 2.0], SeriesInstanceUID="1.2.3.6")
    more = build_index(str(source), out, IndexConfig())
    assert (more.files_read, more.series_added, more.series_changed) == (3, 1, 1)
    rows = read_manifest(out, StorageConfig()).to_pylist()
    assert keys < {r["series_key"] for r in rows}
    assert sorted(len(r["instances"]) for r in rows) == [2, 2, 4]
    assert first_row(out, StorageConfig()) == rows[0]

    shutil.rmtree(source / "b")
    less = build_index(str(source), out, IndexConfig())
    assert (less.files_vanished, less.series_removed, less.files_read) == (2, 1, 0)
    assert read_manifest(out, StorageConfig()).num_rows == 2


def test_members_of_an_older_archive_file_do_not_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that saw the new file was stopped before it could forget the old one's members."""
    source, out = tmp_path / "archive", str(tmp_path / "manifest")
    write_stack(tmp_path / "s", [0.0, 2.0, 4.0, 6.0, 8.0])

    def pack(first: int, last: int) -> None:
        source.mkdir(exist_ok=True)
        with zipfile.ZipFile(source / "a.zip", "w") as file:
            for path in sorted((tmp_path / "s").iterdir())[first:last]:
                file.write(path, path.name)

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    pack(0, 5)
    build_index(str(source), out, IndexConfig())
    pack(1, 4)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(State, "compact", stop)
        build_index(str(source), out, IndexConfig())
    build_index(str(source), out, IndexConfig())
    (row,) = read_manifest(out, StorageConfig()).to_pylist()
    assert [i["uri"][-8:] for i in row["instances"]] == ["s001.dcm", "s002.dcm", "s003.dcm"]


def test_a_changed_file_is_read_again(tmp_path: Path, index: Index) -> None:
    path = write_ct(tmp_path / "archive" / "x.dcm", tissue())
    assert index(tmp_path / "archive")[0]["status"] == "ok"
    path.write_bytes(b"nothing any more")
    assert index(tmp_path / "archive")[0]["reason"] == "not_an_image"


def test_an_unreadable_file_fails_and_is_tried_again(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stack(tmp_path / "archive", [0.0, 2.0])
    whole = Path.open

    def refuse(self: Path, *args: Any, **kwargs: Any) -> Any:
        if self.name == "s001.dcm":
            raise PermissionError(13, "no")
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", refuse)
    rows = index(tmp_path / "archive")
    assert {(r["status"], r["reason"]) for r in rows} == {
        ("ok", None),
        ("failed", "source_unreadable"),
    }
    monkeypatch.undo()
    (row,) = index(tmp_path / "archive")
    assert row["status"] == "ok" and len(row["instances"]) == 2


def test_many_parts_keep_every_series_once(tmp_path: Path) -> None:
    source, out = tmp_path / "archive", str(tmp_path / "manifest")
    for i in range(7):
        write_ct(source / f"{i}.dcm", tissue(), SeriesInstanceUID=f"1.2.{i}")
    build_index(str(source), out, IndexConfig(rows_per_part=3, remember_every=2))
    write_ct(source / "7.dcm", tissue(), SeriesInstanceUID="1.2.7")
    summary = build_index(str(source), out, IndexConfig(rows_per_part=3, remember_every=2))
    keys = [r["series_key"] for r in read_manifest(out, StorageConfig()).to_pylist()]
    assert len(keys) == len(set(keys)) == summary.series == 8
    assert series_keys(out, StorageConfig()) == set(keys)
    assert series_keys(out, StorageConfig(), 3) == set(sorted(keys)[:3])


def test_keys_depend_on_the_secret_alone(tmp_path: Path) -> None:
    write_stack(tmp_path / "one" / "x", [0.0, 2.0])
    shutil.copytree(tmp_path / "one", tmp_path / "two" / "deeper")

    def keys(source: str, out: str, secret: str) -> set[str]:
        config = IndexConfig(hash_key=SecretStr(secret))
        build_index(str(tmp_path / source), str(tmp_path / out), config)
        rows = read_manifest(str(tmp_path / out), StorageConfig()).to_pylist()
        return {r["series_key"] for r in rows}

    assert keys("one", "m1", "a") == keys("two", "m2", "a")
    assert keys("one", "m3", "b") != keys("one", "m1", "a")


def test_callers_mistakes_are_config_errors(tmp_path: Path) -> None:
    write_stack(tmp_path / "archive", [0.0, 2.0])
    (tmp_path / "empty").mkdir()
    out = str(tmp_path / "manifest")
    with pytest.raises(ConfigError, match="cannot be listed"):
        build_index(str(tmp_path / "missing"), out, IndexConfig())
    with pytest.raises(ConfigError, match="holds no files"):
        build_index(str(tmp_path / "empty"), out, IndexConfig())
    with pytest.raises(ConfigError, match="no manifest"):
        read_manifest(out, StorageConfig())
    build_index(str(tmp_path / "archive"), out, IndexConfig())
    with pytest.raises(ConfigError, match="folder of its own"):
        build_index(str(tmp_path / "archive" / "s000.dcm"), out, IndexConfig())
    with pytest.raises(ConfigError, match=r"another index\.hash_key"):
        build_index(str(tmp_path / "archive"), out, IndexConfig(hash_key=SecretStr("other")))
    with pytest.raises(ConfigError, match="mask"):
        build_index(str(tmp_path / "archive"), out, IndexConfig(hash_key=SecretStr("*" * 10)))


def test_manifest_inside_the_source_is_not_indexed(tmp_path: Path) -> None:
    write_stack(tmp_path / "archive", [0.0, 2.0])
    out = str(tmp_path / "archive" / "manifest")
    for _ in range(2):
        summary = build_index(str(tmp_path / "archive"), out, IndexConfig())
        assert summary.files == 2


def test_progress_counts_up_to_the_end(tmp_path: Path) -> None:
    write_stack(tmp_path / "archive", [0.0, 2.0, 4.0])
    seen: list[tuple[int, int, int]] = []
    build_index(
        str(tmp_path / "archive"),
        str(tmp_path / "manifest"),
        IndexConfig(),
        lambda *progress: seen.append(progress),
    )
    assert [s[0] for s in seen] == [0, 1, 2, 3]
    assert {s[1] for s in seen} == {3}
    assert seen[-1][2] > 0


def test_dicomdir_is_counted_not_listed(tmp_path: Path, phantom: Phantom) -> None:
    from pydicom.fileset import FileSet

    write_dicom(phantom, tmp_path / "in", DicomOptions())
    files = FileSet()
    for path in sorted((tmp_path / "in").iterdir()):
        files.add(path)
    files.write(tmp_path / "archive")
    out = str(tmp_path / "manifest")
    summary = build_index(str(tmp_path / "archive"), out, IndexConfig())
    assert summary.dicomdir_ignored == 1
    assert summary.status_counts == {"ok": 1}
    assert summary.files == 13


@pytest.mark.shared_data
def test_real_archive(shared_data: Path, index: Index) -> None:
    rows = index(shared_data / "dicom")
    found = by_folder(rows)
    for name, count in {
        "ge_chest_abdomen_pelvis": 100,
        "ge_head_tilt": 28,
        "siemens_abdomen": 18,
        "siemens_body_jpeg2000": 20,
    }.items():
        (row,) = found[name]
        assert row["status"] == "ok" and len(row["instances"]) == count
    malformed = {Path(r["instances"][0]["uri"]).name: r for r in found["malformed"]}
    assert {name: r["reason"] for name, r in malformed.items()} == {
        "Cornell_bug.dcm": "modality_missing",
        "wrong_syntax_1.dicom": "transfer_syntax_mismatch",
        "wrong_syntax_2.dicom": "transfer_syntax_mismatch",
    }
    assert sum(len(r["instances"]) for r in rows) == 169


def test_a_deflated_object_that_hides_it_is_refused_and_not_expanded(tmp_path: Path) -> None:
    """The transfer syntax stands behind a long element, where it is not looked for."""
    packer = zlib.compressobj(9, wbits=-15)
    long = struct.pack("<HH2sHI", 2, 1, b"OB", 0, 5000) + bytes(5000)
    syntax = struct.pack("<HH2sH", 2, 0x10, b"UI", 22) + b"1.2.840.10008.1.2.1.99"
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 64 << 20) + bytes(64 << 20)
    path = tmp_path / "bomb.dcm"
    content = packer.compress(pixels) + packer.flush()
    path.write_bytes(bytes(128) + b"DICM" + long + syntax + content)
    tracemalloc.start()
    build_index(str(tmp_path), str(tmp_path / "m"), IndexConfig())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    (row,) = read_manifest(str(tmp_path / "m"), StorageConfig()).to_pylist()
    assert (row["status"], row["reason"]) == ("rejected", "header_unreadable")
    assert peak < 24 << 20
