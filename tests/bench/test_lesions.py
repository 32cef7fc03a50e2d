"""The lesion benchmark on one small budget, with untrained weights."""

from pathlib import Path

import numpy as np
import pytest

from raypipe.bench.lesions import (
    LesionBenchConfig,
    LesionBenchResult,
    bench_lesions,
    filled_series,
    slice_truths,
)
from raypipe.config import load_config
from raypipe.errors import ConfigError
from raypipe.evaluate.plot_lesions import lesions_figure
from raypipe.evaluate.plot_style import save_figure
from raypipe.phantom import PhantomSpec, make_phantom, write_nifti
from raypipe.train.backgrounds import Filled
from raypipe.train.dataset import LEAST_PIXELS
from raypipe.volume.preprocess import PreprocessConfig, preprocess

CONFIG = load_config(overrides=["detector.weights=random", "detector.threads=1"])


@pytest.fixture(scope="module")
def filled() -> Filled:
    spec = PhantomSpec(
        region="abdomen",
        shape_zyx=(16, 256, 256),
        spacing_zyx_mm=(5.0, 1.5, 1.5),
        lesions=("liver_cyst", "renal_cyst", "liver_cyst"),
        seed=4,
    )
    phantom = make_phantom(spec)
    return Filled(
        volume=phantom.volume,
        lesions=phantom.lesions,
        lesion_map=phantom.lesion_map,
        organs=phantom.organs,
    )


def test_every_slice_has_its_part_of_each_lesion(filled: Filled) -> None:
    model_input = preprocess(filled.volume, PreprocessConfig())
    truths = slice_truths(filled, model_input, "k", "body")
    assert [truth.series_key for truth in truths] == [f"k/{z}" for z in range(16)]
    assert {truth.cluster_key for truth in truths} == {"body"}
    for number, lesion in enumerate(filled.lesions, start=1):
        pixels = np.count_nonzero(filled.lesion_map == number, axis=(1, 2))
        seen = sum(
            own.diameter_mm == lesion.diameter_mm for truth in truths for own in truth.lesions
        )
        assert seen == np.count_nonzero(pixels >= LEAST_PIXELS)
    boxes = [own.box_zyx for truth in truths for own in truth.lesions]
    assert all(box.size_zyx[0] == 1.0 for box in boxes)


def test_result_counts_what_was_measured(tmp_path: Path) -> None:
    done: list[tuple[int, str]] = []
    budget = LesionBenchConfig(series=1, bootstrap=0)
    result = bench_lesions(CONFIG, budget, lambda n, what: done.append((n, what)))
    assert done == [(1, "phantom 970000")]
    assert (result.series, result.real_series) == (1, 0)
    assert (result.findings.series, result.slices.clusters) == (1, 1)
    assert result.slices.series >= 20
    assert result.slices.lesions >= result.findings.lesions > 0
    assert result.map50.support == result.slices.lesions
    assert 0.0 <= (result.map50.value or 0.0) < 0.5  # untrained
    picture = tmp_path / "lesions.png"
    save_figure(lesions_figure(result.slices, result.findings, result.target_map), picture)
    assert picture.stat().st_size > 10_000
    assert LesionBenchResult.model_validate_json(result.model_dump_json()) == result


def test_fillings_of_one_background_belong_together(tmp_path: Path) -> None:
    spec = PhantomSpec(
        region="chest", shape_zyx=(14, 160, 160), spacing_zyx_mm=(5.0, 2.4, 2.4), lesions=(),
        seed=1,
    )  # fmt: skip
    phantom = make_phantom(spec)
    for name in ("a", "b"):
        write_nifti(phantom, tmp_path / "ct" / f"{name}.nii")
    budget = LesionBenchConfig(series=0, backgrounds=(str(tmp_path / "ct"),), insertions=2)
    series = list(filled_series(budget, PreprocessConfig()))
    assert [cluster for cluster, _ in series] == ["real CT 0"] * 2 + ["real CT 1"] * 2
    assert all(f.lesions for _, f in series)
    first, second = (f.volume.hu for _, f in series[:2])
    assert not np.array_equal(first, second)
    assert not any(f.all_organs for _, f in series)


def test_an_empty_budget_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one phantom"):
        bench_lesions(CONFIG, LesionBenchConfig(series=0), lambda *_: None)
