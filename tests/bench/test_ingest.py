"""Reading against other tools; a benchmark's plumbing, not its numbers."""

from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from raypipe.bench import ingest
from raypipe.bench.ingest import OURS, OURS_FILE, PEERS, bench_ingest
from raypipe.bench.ingest_tools import same_voxels
from raypipe.errors import ConfigError
from raypipe.phantom import DicomOptions, PhantomSpec, make_phantom, write_dicom


def test_every_tool_reads_the_same_voxels(tmp_path: Path) -> None:
    spec = PhantomSpec(shape_zyx=(8, 48, 40), spacing_zyx_mm=(3.0, 6.0, 7.0), seed=2)
    write_dicom(make_phantom(spec), tmp_path / "archive" / "one", DicomOptions())
    work = tmp_path / "work"
    work.mkdir()
    steps: list[str] = []
    result = bench_ingest(
        str(tmp_path / "archive"), work, repeats=1, files=40, on_step=steps.append
    )
    (series,) = result.series
    assert (series.name, series.slices, series.same_voxels) == ("one", 8, True)
    assert [t.tool for t in series.times] == [OURS, OURS_FILE, *PEERS]
    assert all(t.warm_s and t.cold_s for t in series.times), series.times
    assert result.s3_warm_s["one"] > 0
    assert result.index is not None and result.index.files == 40
    theirs, ours = result.total_s("dcm2niix")
    assert theirs == series.warm_s("dcm2niix") and ours == series.warm_s(OURS_FILE)
    assert set(result.all_cores_s) == set(PEERS) and min(result.all_cores_s.values()) > 0
    assert f"{OURS} on one" in steps


def test_a_folder_without_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "x.txt").write_text("nothing")
    work = tmp_path / "work"
    work.mkdir()
    with pytest.raises(ConfigError, match="holds no DICOM series"):
        bench_ingest(str(tmp_path / "archive"), work, repeats=1, files=0, on_step=print)
    with pytest.raises(ConfigError, match=r"is not empty \(manifest\)"):  # what the first left
        bench_ingest(str(tmp_path / "archive"), work, repeats=1, files=0, on_step=print)


def test_a_series_that_a_tool_refuses_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two patients whose series have one name, dcm2niix cannot read the deflated one."""
    monkeypatch.setattr(ingest, "_ROUNDS", 1)
    spec = PhantomSpec(shape_zyx=(5, 48, 40), spacing_zyx_mm=(3.0, 6.0, 7.0), seed=2)
    for patient in ("one", "two"):
        folder = tmp_path / "archive" / patient / "ct"
        write_dicom(make_phantom(spec), folder, DicomOptions(series_number=len(patient)))
        spec = spec.model_copy(update={"seed": 3})
    for file in folder.iterdir():
        header = pydicom.dcmread(file)
        header.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        header.save_as(file)
    work = tmp_path / "work"
    work.mkdir()
    result = bench_ingest(
        str(tmp_path / "archive"), work, repeats=1, files=0, on_step=lambda step: None
    )
    one, two = sorted(result.series, key=lambda series: series.name)
    assert (one.name, one.same_voxels) == ("one/ct", True)
    assert (two.name, two.same_voxels, two.warm_s("dcm2niix")) == ("two/ct", None, None)
    assert set(result.s3_warm_s) == {"one/ct", "two/ct"}
    assert result.total_s("dcm2niix")[1] == one.warm_s(OURS_FILE)


def test_a_peer_that_reads_nothing_is_left_out(tmp_path: Path) -> None:
    refused = ingest.ToolTime(tool="dcm2niix", warm_s=None, warm_runs_s=(), cold_s=None)
    ours = ingest.ToolTime(tool=OURS_FILE, warm_s=1.0, warm_runs_s=(1.0,), cold_s=1.0)
    told = {t: refused.model_copy(update={"tool": t}) for t in (OURS, *PEERS)}
    times = ingest.SeriesTimes(
        name="a", slices=1, megabytes=1.0, times=(ours, *told.values()), same_voxels=None
    )
    assert ingest._all_cores_s((object(),), (times,), tmp_path, 1) == {}  # type: ignore[arg-type]


def test_a_file_of_several_phases_is_on_another_grid(tmp_path: Path) -> None:
    volume = make_phantom(PhantomSpec(shape_zyx=(4, 16, 16), spacing_zyx_mm=(5, 20, 20))).volume
    phases = np.stack([volume.hu.transpose(2, 1, 0)] * 2, axis=-1)
    nibabel.save(nibabel.Nifti1Image(phases, np.eye(4)), tmp_path / "dcm2niix.nii")
    assert same_voxels(volume, tmp_path) is None
