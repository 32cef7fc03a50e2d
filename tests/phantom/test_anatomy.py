import numpy as np
import pytest
from pydantic import ValidationError
from threadpoolctl import threadpool_info

from raypipe.phantom import Organ, Phantom, PhantomSpec, anatomy, make_phantom
from raypipe.phantom.organs import KIDNEYS

SMALL = {"shape_zyx": (24, 96, 96), "spacing_zyx_mm": (6.0, 4.0, 4.0)}


def _mean(phantom: Phantom, organ: Organ) -> float:
    return float(phantom.volume.hu[phantom.organs == organ].mean())


def test_a_seed_gives_the_same_arrays_and_another_seed_gives_others() -> None:
    first = make_phantom(PhantomSpec(**SMALL, seed=3))
    again = make_phantom(PhantomSpec(**SMALL, seed=3))
    other = make_phantom(PhantomSpec(**SMALL, seed=4))
    assert np.array_equal(first.volume.hu, again.volume.hu)
    assert first.lesions == again.lesions
    assert not np.array_equal(first.volume.hu, other.volume.hu)
    assert not np.array_equal(first.organs, other.organs)


@pytest.mark.parametrize(
    ("region", "expected"),
    [
        ("chest", {Organ.LUNG_LEFT, Organ.LUNG_RIGHT, Organ.HEART, Organ.AORTA, Organ.VERTEBRA}),
        ("abdomen", {Organ.LIVER, Organ.SPLEEN, Organ.KIDNEY_LEFT, Organ.STOMACH, Organ.BOWEL}),
        ("head", {Organ.BRAIN, Organ.CSF, Organ.BONE, Organ.SINUS_AIR, Organ.ORBIT}),
        ("chest_abdomen", {Organ.LUNG_LEFT, Organ.LIVER, Organ.KIDNEY_RIGHT, Organ.BONE}),
    ],
)
def test_a_region_holds_its_organs_with_their_hu(region: str, expected: set[Organ]) -> None:
    phantom = make_phantom(PhantomSpec(region=region, **SMALL, seed=1, lesions=0))  # type: ignore[arg-type]
    assert expected <= {Organ(code) for code in np.unique(phantom.organs)}
    typical = {
        Organ.LUNG_LEFT: (-920, -700),
        Organ.LIVER: (10, 80),
        Organ.BRAIN: (20, 50),
        Organ.SPLEEN: (20, 70),
        Organ.SUBCUTANEOUS_FAT: (-130, -40),
        Organ.VERTEBRA: (80, 700),
    }
    for organ in typical.keys() & expected:
        low, high = typical[organ]
        assert low < _mean(phantom, organ) < high, organ


def test_contrast_medium_fills_the_aorta() -> None:
    plain = make_phantom(PhantomSpec(**SMALL, seed=2, lesions=0))
    filled = make_phantom(PhantomSpec(**SMALL, seed=2, lesions=0, contrast="arterial"))
    assert _mean(filled, Organ.AORTA) > _mean(plain, Organ.AORTA) + 80


@pytest.mark.parametrize("seed", range(3))
def test_no_lung_lies_behind_the_spine(seed: int) -> None:
    phantom = make_phantom(PhantomSpec(region="chest", **SMALL, seed=seed, lesions=0))  # type: ignore[arg-type]
    lungs = np.isin(phantom.organs, (Organ.LUNG_LEFT, Organ.LUNG_RIGHT))
    seen = 0
    for lung, vertebra in zip(lungs, phantom.organs == Organ.VERTEBRA, strict=True):
        if vertebra.sum() < 50:  # a disc
            continue
        y, x = (round(float(axis.mean())) for axis in np.nonzero(vertebra))
        seen += bool(lung.any())
        assert not lung[y:, x - 3 : x + 4].any()
    assert seen > 5


def test_gas_lies_in_no_solid_organ() -> None:
    solid = (Organ.LIVER, Organ.SPLEEN, *KIDNEYS, Organ.AORTA, Organ.VEIN, Organ.MUSCLE)
    bubbles = 0
    for seed in (1011, 1020, 1026):
        phantom = make_phantom(
            PhantomSpec(
                region="abdomen", shape_zyx=(40, 128, 128), spacing_zyx_mm=(5.0, 3.0, 3.0),
                noise_hu=0.0, lesions=0, seed=seed,
            )
        )  # fmt: skip
        gas = phantom.volume.hu < -800
        bubbles += np.count_nonzero(gas & (phantom.organs == Organ.BOWEL))
        assert np.count_nonzero(gas & np.isin(phantom.organs, solid)) < 20
    assert bubbles > 1000


def test_anatomy_has_its_sides() -> None:
    phantom = make_phantom(PhantomSpec(region="abdomen", **SMALL, seed=5, lesions=0))
    geometry = phantom.volume.geometry

    def left_mm(organ: Organ) -> float:
        return float(geometry.to_lps_mm(np.argwhere(phantom.organs == organ)).mean(axis=0)[0])

    assert left_mm(Organ.LIVER) < 0 < left_mm(Organ.SPLEEN)
    assert left_mm(Organ.KIDNEY_RIGHT) < 0 < left_mm(Organ.KIDNEY_LEFT)


@pytest.mark.parametrize("orientation", ["axial", "coronal", "oblique"])
def test_an_orientation_shows_the_same_body(orientation: str) -> None:
    spec = PhantomSpec(**SMALL, seed=6, lesions=0, noise_hu=0.0, streaks_hu=0.0)
    axial = make_phantom(spec)
    turned = make_phantom(
        spec.model_copy(
            update={
                "orientation": orientation,
                "shape_zyx": (60, 60, 60),
                "spacing_zyx_mm": (5.0, 5.0, 5.0),
            }
        )
    )
    seen = turned.volume.geometry.to_lps_mm(np.argwhere(turned.organs == Organ.HEART))
    known = axial.volume.geometry.to_lps_mm(np.argwhere(axial.organs == Organ.HEART))
    assert np.linalg.norm(seen.mean(axis=0) - known.mean(axis=0)) < 8.0


def test_a_few_slices_match_those_of_the_whole() -> None:
    spec = PhantomSpec(**SMALL, seed=7, lesions=0, noise_hu=0.0, streaks_hu=0.0)
    whole = make_phantom(spec)
    z = 12
    height = float(whole.volume.geometry.to_lps_mm((z, 0, 0))[2])
    thin = make_phantom(spec.model_copy(update={"shape_zyx": (1, 96, 96), "center_z_mm": height}))
    same = float((thin.organs[0] == whole.organs[z]).mean())
    assert same > 0.95


def test_noise_has_the_wanted_strength_in_the_body() -> None:
    spec = PhantomSpec(**SMALL, seed=8, lesions=0, streaks_hu=0.0)
    quiet = make_phantom(spec.model_copy(update={"noise_hu": 0.0}))
    noisy = make_phantom(spec.model_copy(update={"noise_hu": 20.0}))
    body = quiet.organs > Organ.TABLE
    spread = (noisy.volume.hu.astype(float) - quiet.volume.hu)[body].std()
    assert 14 < spread < 28


@pytest.mark.parametrize(
    "wrong", [{"shape_zyx": (0, 10, 10)}, {"spacing_zyx_mm": (1.0, -1.0, 1.0)}, {"regoin": "chest"}]
)
def test_a_wrong_spec_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PhantomSpec.model_validate(wrong)


def test_a_phantom_is_made_by_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def blas_threads(_: PhantomSpec) -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = blas_threads(PhantomSpec())
    monkeypatch.setattr(anatomy, "_built", blas_threads)
    assert set(make_phantom(PhantomSpec())) == {1}  # type: ignore[call-overload]
    assert blas_threads(PhantomSpec()) == before
