from pathlib import Path

import pytest

from raypipe.bench import ablation
from raypipe.bench.ablation import ENCODER, bench_ablation, start_weights, train_config
from raypipe.bench.ablation_arms import ARMS, AblationConfig, ArmRun, StoredClaim
from raypipe.bench.ablation_results import MEASURES, measure, slice_truths
from raypipe.errors import CheckpointError, ConfigError
from raypipe.model.checkpoint import load_checkpoint, save_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.train.dataset import SampleStore
from raypipe.train.synthesis import SynthesisConfig, make_store

TINY = SynthesisConfig(phantom_series=2, slices_per_series=3, slab_slices=(4, 5), seed=11)
CONFIG = AblationConfig(
    steps=1,
    batch_slices=2,
    seeds=(0,),
    bootstrap=10,
    start="",
    data=TINY,
    held_out=TINY.model_copy(update={"seed": 15}),
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    return make_store(tmp_path_factory.mktemp("held_out"), TINY)


def test_arms_share_their_budget_and_differ_in_network_and_loss_alone() -> None:
    configs = [train_config(arm, 1, CONFIG) for arm in ARMS]
    assert len({c.strategy for c in configs}) == 4
    same = [c.model_dump(exclude={"strategy", "loss"}) for c in configs]
    assert all(c == same[0] for c in same)
    losses = [c.loss.model_dump() for c in configs]
    assert losses[3] == CONFIG.loss.model_dump()
    on = [{name for name, value in loss.items() if value > 0} for loss in losses]
    assert on[0] < on[1] < on[3] and on[0] < on[2] < on[3]
    assert on[1] & on[2] == on[0]


def test_every_arm_starts_from_one_encoder_and_is_fresh_elsewhere(
    store: SampleStore, tmp_path: Path
) -> None:
    trained = Detector(DetectorConfig(weights="random", seed=5), store.fingerprint)
    source = tmp_path / "trained.safetensors"
    save_checkpoint(source, trained.network.state_dict(), trained.info)
    states = []
    for arm in (ARMS[0], ARMS[3]):
        file = tmp_path / f"{arm.slug}.safetensors"
        told = train_config(arm, 1, CONFIG)
        start_weights(told, str(source), store.fingerprint, file)
        states.append(load_checkpoint(file)[0])
    of_source = trained.network.state_dict()
    for state in states:
        for key, value in state.items():
            if key.startswith(ENCODER):
                assert value.equal(of_source[key])
        assert not state["box_head.classify.weight"].equal(of_source["box_head.classify.weight"])
    with pytest.raises(CheckpointError, match="preprocessing"):
        start_weights(train_config(ARMS[0], 1, CONFIG), str(source), "other", source)


def _run(arm: int, seed: int, claims: tuple[StoredClaim, ...]) -> ArmRun:
    return ArmRun(
        arm=ARMS[arm], seed=seed, budget=CONFIG, parameters=1, loss=1.0, seconds=1.0, claims=claims
    )


def _perfect(store: SampleStore) -> tuple[StoredClaim, ...]:
    return tuple(
        StoredClaim(
            slice=int(truth.series_key),
            label=lesion.label,
            score=0.9,
            lower_yx=lesion.box_zyx.lower_zyx[1:],
            upper_yx=lesion.box_zyx.upper_zyx[1:],
        )
        for truth in slice_truths(store)
        for lesion in truth.lesions
    )


def test_an_arm_that_finds_everything_gains_one_over_one_that_finds_nothing(
    store: SampleStore,
) -> None:
    claims = ((), (), (), _perfect(store))
    runs = {arm.slug: [_run(i, 0, claims[i])] for i, arm in enumerate(ARMS)}
    result = measure(store, runs, CONFIG)
    assert result.slices == len(store) and result.lesions == len(store.labels)
    assert result.arms[0].differences == {}
    at = "mAP at IoU 0.5"
    assert [arm.runs[at] for arm in result.arms] == [(0.0,), (0.0,), (0.0,), (1.0,)]
    assert result.arms[1].differences[at].difference == 0.0
    assert result.arms[3].differences[at].difference == pytest.approx(1.0)


def test_slices_of_one_series_stay_together(store: SampleStore) -> None:
    truths = slice_truths(store)
    assert [truth.cluster_key for truth in truths] == [str(s) for s in store.series]
    assert len({truth.series_key for truth in truths}) == len(store)


@pytest.mark.slow
def test_an_ablation_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[ArmRun] = []
    result = bench_ablation(tmp_path, CONFIG, done.append)
    assert [r.arm.slug for r in done] == [arm.slug for arm in ARMS]
    assert set(result.arms[0].runs) <= set(MEASURES)
    text = (tmp_path / "ablation.md").read_text()
    assert all(f"| {arm.name} |" in text for arm in ARMS)
    assert (tmp_path / "ablation.png").stat().st_size > 10_000
    parameters = [arm.parameters for arm in result.arms]
    assert parameters[0] < parameters[1] < parameters[3]

    def refuse(*_: object) -> None:
        raise AssertionError("a finished run was trained again")

    monkeypatch.setattr(ablation, "run", refuse)
    again: list[ArmRun] = []
    bench_ablation(tmp_path, CONFIG, again.append)
    assert again == done
    other = CONFIG.model_copy(update={"steps": 2})
    with pytest.raises(ConfigError, match="another budget"):
        bench_ablation(tmp_path, other, again.append)
