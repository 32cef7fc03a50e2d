from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.bench import ct_kidney
from raypipe.bench.ct_kidney import CLASSES, KidneyRun, bench_ct_kidney, evaluate, kidney_config
from raypipe.errors import ConfigError
from raypipe.evaluate.measures import MACRO, MICRO
from raypipe.train.slices import SliceFolder, read_folder
from raypipe.train.slices_config import ViewConfig
from tests.train.slice_folder import write_folder

CHANGES = {
    "view": ViewConfig(size_yx=(128, 128)),
    **{"steps": 1, "batch_slices": 2, "checkpoint_every": 1, "init": ""},
}
RUNS = tuple(range(i, i + 2) for i in range(0, 400, 20))


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct_kidney, "BOOTSTRAP", 10)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("kidney"), CLASSES, RUNS)


@pytest.fixture(scope="module")
def slices(data: Path, tmp_path_factory: pytest.TempPathFactory) -> SliceFolder:
    return read_folder(str(data), tmp_path_factory.mktemp("store"))


def test_a_run_is_measured_on_its_test_part_and_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[KidneyRun] = []
    told: dict[str, Any] = {"seeds": 1, "changes": CHANGES, "on_run": seen.append}
    result = bench_ct_kidney(str(data), tmp_path, **told)
    (run,) = result.runs
    assert seen == [run]
    counts = np.array(run.confusion.counts)
    assert counts.sum() == run.slices["test"] == 32  # four of twenty blocks, two pictures each
    assert run.accuracy == pytest.approx(np.trace(counts) / 32)
    assert result.gap_to_paper == pytest.approx(run.accuracy - 0.946)
    assert (tmp_path / "confusion_blocks.png").stat().st_size > 5000
    assert not list(tmp_path.glob("*.pt"))

    def again(*args: Any) -> None:
        raise AssertionError("what is there is not trained again")

    monkeypatch.setattr(ct_kidney, "run", again)
    assert bench_ct_kidney(str(data), tmp_path, **told).runs == result.runs
    with pytest.raises(ConfigError, match="was trained otherwise"):
        bench_ct_kidney(str(data), tmp_path, seeds=1, changes={**CHANGES, "steps": 2})


def test_a_run_that_was_stopped_goes_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while it measures: the steps before are not done again."""
    told: dict[str, Any] = {"seeds": 1, "changes": CHANGES}

    def killed(*args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ct_kidney, "evaluate", killed)
        with pytest.raises(KeyboardInterrupt):
            bench_ct_kidney(str(data), tmp_path, **told)
    assert (tmp_path / "blocks-0.pt").is_file()
    with pytest.raises(ConfigError, match=r"blocks-0\.pt was begun otherwise"):
        bench_ct_kidney(str(data), tmp_path, seeds=1, changes={**CHANGES, "steps": 2})
    (run,) = bench_ct_kidney(str(data), tmp_path, **told).runs
    assert run.train_seconds > 0


def test_measures_are_those_of_the_claims(slices: SliceFolder) -> None:
    indices = np.arange(len(slices))
    perfect = np.eye(4, dtype=np.float32)[slices.label_s]
    right = evaluate(slices, indices, perfect)
    assert right.measure("image", "exact_match", MICRO).value == 1.0
    assert right.measure("image", "auc_roc", MACRO).value == 1.0
    assert right.clusters == 4 * len(RUNS)
    all_normal = np.zeros_like(perfect)
    all_normal[:, 1] = 1.0
    wrong = evaluate(slices, indices, all_normal)
    assert wrong.measure("image", "exact_match", MICRO).value == pytest.approx(0.25)
    assert wrong.measure("image", "f1", MACRO).value == pytest.approx(0.1)
    assert wrong.measure("image", "auc_roc", MACRO).value == pytest.approx(0.5)


def test_seeds_draw_other_parts_and_share_the_recipe(tmp_path: Path) -> None:
    one, two = (kidney_config("data", tmp_path, "runs", seed) for seed in (0, 1))
    assert one.split.whole_runs and one.split.seed != two.split.seed
    assert one.model_dump(exclude={"seed", "split"}) == two.model_dump(exclude={"seed", "split"})


def test_other_classes_are_refused(tmp_path: Path) -> None:
    other = write_folder(tmp_path / "in", ("Cyst", "Normal"), RUNS[:3])
    with pytest.raises(ConfigError, match="holds Cyst, Normal, not"):
        bench_ct_kidney(str(other), tmp_path / "out", seeds=1, changes=CHANGES)
