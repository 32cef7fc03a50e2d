"""Forecasts of an archive from a sample."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from raypipe.archive.index import build_index
from raypipe.batch.forecast import (
    Calibration,
    advise,
    calibrate,
    extrapolate,
    forecast,
    sample_by_size,
)
from raypipe.config import RunConfig, load_config
from raypipe.errors import ConfigError
from raypipe.phantom import write_bulk_archive
from tests.tiny_detector import fast_settings

START = datetime(2026, 1, 1, tzinfo=UTC)


def rows_of(sizes: np.ndarray, *, workers: int, startup_s: float):  # type: ignore[no-untyped-def]
    """Rows of a cluster that does `workers` seconds of work a second; 1 s + 2 s a megavoxel."""
    finished = START + timedelta(seconds=startup_s)
    rows = []
    for i, size in enumerate(sizes):
        work = 1.0 + 2.0 * float(size)
        finished += timedelta(seconds=work / workers)
        timings = {
            "load": 0.5 * work,
            "prepare": 0.1 * work,
            "detect": 0.4 * work,
            "describe": None,
            "started_at": START,
            "finished_at": finished,
        }
        rows.append({"series_key": str(i), "status": "ok", "timings": timings})
    return rows, {str(i): float(s) for i, s in enumerate(sizes)}, (finished - START).total_seconds()


def test_an_archive_of_larger_series_takes_what_their_size_says() -> None:
    rng = np.random.default_rng(0)
    rows, size_of, wall_s = rows_of(rng.uniform(0.5, 4.0, 40), workers=4, startup_s=20.0)
    measured = calibrate(rows, size_of, wall_s)
    assert measured.base_s == pytest.approx(1.0, rel=1e-6)
    assert measured.voxel_s == pytest.approx(2.0, rel=1e-6)
    assert measured.speed == pytest.approx(4.0, rel=1e-3)
    assert measured.startup_s == pytest.approx(20.0, rel=1e-3)
    archive = rng.uniform(4.0, 9.0, 1000)
    told = extrapolate(measured, archive, 1010, 40, RunConfig(price_per_hour=2.0), 8.0)
    expected_h = (20.0 + (1.0 + 2.0 * archive).sum() / 4) / 3600
    assert told.hours == pytest.approx(expected_h, rel=1e-3)
    assert told.cost == pytest.approx(2 * expected_h, rel=1e-3)
    assert told.rejected == 10
    assert told.stages["load"].workers == pytest.approx(2.0, rel=1e-3)


def test_series_that_end_in_batches_tell_the_steady_speed_and_not_that_of_the_ramp() -> None:
    sizes = np.tile([0.5, 2.0], 32)
    rows, size_of, _ = rows_of(sizes, workers=2, startup_s=5.0)
    warming_up = timedelta(seconds=30)
    for i, row in enumerate(rows):
        last = rows[i - i % 8 + 7]["timings"]["finished_at"]
        row["timings"] = row["timings"] | {"finished_at": last + warming_up * (i >= 8)}
    wall_s = (rows[-1]["timings"]["finished_at"] - START).total_seconds()
    measured = calibrate(rows, size_of, wall_s)
    assert measured.speed == pytest.approx(2.0, rel=1e-6)
    assert measured.startup_s == pytest.approx(35.0, rel=1e-6)


def test_series_of_one_size_need_no_slope() -> None:
    rows, size_of, wall_s = rows_of(np.full(20, 2.0), workers=2, startup_s=0.0)
    measured = calibrate(rows, size_of, wall_s)
    assert (measured.base_s, measured.voxel_s) == (pytest.approx(5.0), 0.0)


def test_rejected_series_are_not_measured_and_too_few_are_refused() -> None:
    rows, size_of, wall_s = rows_of(np.linspace(1, 2, 10), workers=1, startup_s=0.0)
    for row in rows[:5]:
        row["status"] = "rejected"
    with pytest.raises(ConfigError, match="only 5 of 10"):
        calibrate(rows, size_of, wall_s)


def test_the_sample_holds_small_and_large_series_in_proportion() -> None:
    sizes = np.array([1.0] * 80 + [10.0] * 20)
    picked = sizes[sample_by_size(sizes, 10)]
    assert sorted(picked.tolist()) == [1.0] * 8 + [10.0] * 2
    assert sorted(sample_by_size(sizes, 500).tolist()) == list(range(100))
    rising = np.arange(100.0)
    first = rising[sample_by_size(rising, 40)][:20]
    assert 35 < first.mean() < 65  # mixed: what runs while the job warms up is not the smallest


@pytest.mark.parametrize(
    ("seconds", "cores", "expected"),
    [
        # 2 detectors take 20 series a second, which is 50 s of loading
        ((2.0, 0.5, 0.1, 0.1), 8.0, "42 more CPUs"),
        ((0.1, 0.1, 1.0, 8.0), 64.0, "run.describe.max_size: 16 instead of 1"),
        ((0.1, 0.1, 1.0, 0.1), 64.0, "large enough: detect"),
    ],
)
def test_advice_keeps_the_accelerators_busy(
    seconds: tuple[float, ...], cores: float, expected: str
) -> None:
    stages = dict(zip(("load", "prepare", "detect", "describe"), seconds, strict=True))
    run = RunConfig.model_validate(
        {"detect": {"max_size": 2, "cpus": 0.0, "gpus": 1.0}, "describe": {"cpus": 0.0}}
    )
    told = advise(stages, run, cores)
    assert any(expected in line for line in told), told


def test_uncertain_work_widens_the_interval() -> None:
    exact = Calibration(
        base_s=1.0, voxel_s=0.0, speed=1.0, startup_s=0.0, relative_error=0.0,
        stage_shares={"load": 1.0, "prepare": 0.0, "detect": 0.0, "describe": 0.0},
    )  # fmt: skip
    loose = exact.model_copy(update={"relative_error": 0.1})
    ones = np.ones(3600)
    told = extrapolate(loose, ones, 3600, 10, RunConfig(), 2.0)
    assert told.hours_high - told.hours_low == pytest.approx(2 * 0.196)
    sure = extrapolate(exact, ones, 3600, 10, RunConfig(), 2.0)
    assert sure.hours_high == sure.hours_low == pytest.approx(1.0)


def test_the_calibration_is_a_real_run(tmp_path: Path, ray_cluster: None) -> None:
    write_bulk_archive(tmp_path / "archive", n_series=12, seed=3, shape_zyx=(4, 64, 64))
    config = load_config(overrides=(*fast_settings(), "run.price_per_hour=1.5"))
    manifest = str(tmp_path / "manifest")
    build_index(str(tmp_path / "archive"), manifest, config.index, lambda done, total, size: None)
    work = tmp_path / "work"
    work.mkdir()
    told = forecast(manifest, work, config, series=8, on_progress=lambda progress: None)
    assert (told.series, told.calibrated_on, told.rejected) == (12, 8, 0)
    assert told.hours > 0 and told.cost == pytest.approx(1.5 * told.hours)
    assert told.advice


def test_an_archive_too_small_for_a_forecast_is_refused(tmp_path: Path) -> None:
    write_bulk_archive(tmp_path / "archive", n_series=2, seed=3, shape_zyx=(4, 64, 64))
    config = load_config()
    manifest = str(tmp_path / "manifest")
    build_index(str(tmp_path / "archive"), manifest, config.index, lambda done, total, size: None)
    with pytest.raises(ConfigError, match="at least 8"):
        forecast(manifest, tmp_path, config, series=8, on_progress=lambda progress: None)


def test_batches_that_end_together_are_measured_as_a_whole() -> None:
    rows, size_of, wall_s = rows_of(np.full(8, 2.0), workers=2, startup_s=0.0)
    last = rows[-1]["timings"]["finished_at"]
    for row in rows:
        row["timings"]["finished_at"] = last
    measured = calibrate(rows, size_of, wall_s)
    assert measured.speed == pytest.approx(2.0)
