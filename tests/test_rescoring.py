import numpy as np
import pytest

from raypipe.rescoring import Layer, Rescoring

TWO = Rescoring(
    columns=("length", "contrast"),
    labels=("liver_cyst", "liver_mass"),
    mean=(1.0, 10.0),
    scale=(2.0, 5.0),
    networks=(
        (
            Layer(weight=((1.0, 0.0, 0.0, 0.0), (0.0, -1.0, 0.0, 0.5)), bias=(0.0, 0.25)),
            Layer(weight=((2.0, 4.0),), bias=(-1.0,)),
        ),
    ),
)


def test_the_logit_grows_by_what_the_layers_say() -> None:
    evidence = np.array([[3.0, 5.0], [-5.0, 20.0]])
    scores = TWO.scores(evidence, ["liver_mass", "liver_cyst"], [0.5, 0.8])
    # standardised (1, -1) and (-3, 2); hidden (1, 1 + 0.5 + 0.25) and (0, 0)
    more = np.array([2.0 * 1.0 + 4.0 * 1.75 - 1.0, -1.0])
    odds = np.array([1.0, 4.0]) * np.exp(more)
    np.testing.assert_allclose(scores, odds / (1 + odds), atol=5e-5)


def test_several_networks_speak_in_the_mean() -> None:
    constant = (Layer(weight=((0.0, 0.0, 0.0, 0.0),), bias=(3.0,)),)
    both = TWO.model_copy(update={"networks": (*TWO.networks, constant)})
    scores = both.scores(np.array([[-5.0, 20.0]]), ["liver_cyst"], [0.5])
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-(-1.0 + 3.0) / 2)), atol=5e-5)


def test_what_is_not_known_counts_as_the_mean() -> None:
    unknown = TWO.scores(np.full((1, 2), np.nan), ["liver_cyst"], [0.3])
    assert unknown == TWO.scores(np.array([[1.0, 10.0]]), ["liver_cyst"], [0.3])


def test_a_label_never_seen_keeps_its_score_and_none_give_none() -> None:
    assert TWO.scores(np.array([[3.0, 5.0]]), ["gallstone"], [0.37]) == [0.37]
    assert len(TWO.scores(np.zeros((0, 2)), [], [])) == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": (1.0,)}, "of one length"),
        ({"scale": (1.0, 0.0)}, "positive"),
        ({"labels": ("liver_cyst",)}, "takes 4 numbers, not 3"),
        ({"networks": (TWO.networks[0][:1],)}, "gives one number"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rescoring.model_validate({**TWO.model_dump(), **changes})
