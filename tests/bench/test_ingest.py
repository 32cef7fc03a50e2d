"""Reading against other tools; a benchmark's plumbing, not its numbers."""

from pathlib import Path

import pytest

from raypipe.bench.ingest import OURS, OURS_FILE, PEERS, bench_ingest
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
