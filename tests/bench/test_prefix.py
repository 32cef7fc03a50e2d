"""The ablation's arithmetic and references, on answers that are known."""

import numpy as np
import pytest

from raypipe.bench.prefix_probe import frequent, probed
from raypipe.bench.prefix_records import (
    PREFIX_ARM,
    TEXT_ARM,
    Answer,
    PrefixBenchConfig,
    PrefixResult,
)
from raypipe.bench.prefix_results import ALL, Scored, figure_arms, markdown, measures
from raypipe.evaluate.plot_ablation import ablation_figure
from raypipe.train.prefix_cases import PrefixCase
from tests.report.finding_sets import make_context, make_finding

MARGINS = ("smooth", "spiculated", "lobulated")


def _answers(right: float, count: int = 60, seed: int = 0) -> list[Answer]:
    rng = np.random.default_rng(seed)
    return [
        Answer(
            series=i // 2,
            label="pulmonary_nodule",
            truth={"margin": "smooth", "density": "part_solid"},
            said={"margin": "smooth" if rng.random() < right else "lobulated"},
        )
        for i in range(count)
    ]


def test_accuracies_intervals_and_differences_are_of_the_questions() -> None:
    text = [_answers(0.3, seed=s) for s in (0, 1)]
    prefix = [_answers(0.9, seed=s) for s in (2, 3)]
    found = measures(Scored(text[0]), {TEXT_ARM: text, PREFIX_ARM: prefix}, 200)
    accuracy = found["accuracy"]
    for arm, runs in ((TEXT_ARM, text), (PREFIX_ARM, prefix)):
        right = [np.mean([a.said["margin"] == "smooth" for a in run]) for run in runs]
        assert accuracy[arm]["margin"] == pytest.approx(tuple(right))
        assert accuracy[arm]["density"] == (0.0, 0.0)  # nothing was said of it
        assert accuracy[arm][ALL] == pytest.approx([r / 2 for r in right])
        low, high = found["intervals"][arm]["margin"]
        assert low < np.mean(right) < high
    gain, low, high = found["difference"]["margin"]
    assert gain == pytest.approx(
        np.mean(accuracy[PREFIX_ARM]["margin"]) - np.mean(accuracy[TEXT_ARM]["margin"])
    )
    assert 0.3 < low < gain < high < 0.9
    assert "shape" not in found["difference"]  # no question asks for it


def test_an_attribute_that_draws_miss_keeps_its_interval() -> None:
    answers = [
        Answer(
            series=i,
            label="pulmonary_nodule",
            truth={"margin": "smooth"} | ({"shape": "round"} if i == 3 else {}),
            said={"margin": "smooth", "shape": "round"},
        )
        for i in range(6)
    ]
    found = measures(Scored(answers), {TEXT_ARM: [answers], PREFIX_ARM: [answers]}, 50)
    for arm in (TEXT_ARM, PREFIX_ARM):
        assert list(found["intervals"][arm]) == list(found["accuracy"][arm])
    assert found["difference"]["shape"] == (0.0, 0.0, 0.0)


def test_an_arm_that_answers_alike_gains_nothing() -> None:
    same = [_answers(0.5)]
    found = measures(Scored(same[0]), {TEXT_ARM: same, PREFIX_ARM: same}, 50)
    assert found["difference"]["margin"] == (0.0, 0.0, 0.0)


def _case(number: int, *, told: bool) -> PrefixCase:
    """A nodule: most are smooth; its vector tells the margin, or nothing."""
    rng = np.random.default_rng(number)
    index = int(rng.choice(3, p=[0.5, 0.3, 0.2]))
    features = rng.normal(size=(1, 6)).astype(np.float32)
    if told:
        features[0, index] += 6.0
    finding = make_finding(1, mean_hu=None, attributes={"margin": MARGINS[index]})
    return PrefixCase(
        series=number, findings=(finding,), context=make_context(), features_nd=features
    )


def _accuracy(answers: list[Answer]) -> float:
    scored = Scored(answers)
    return scored.accuracies(scored.right(answers))["margin"]


def test_the_probe_reads_what_vectors_carry_and_no_more() -> None:
    for told, low, high in ((True, 0.9, 1.0), (False, 0.2, 0.65)):
        train = [_case(i, told=told) for i in range(150)]
        asked = [_case(i, told=told) for i in range(200, 300)]
        assert low <= _accuracy(probed(train, asked)) <= high
    smooth = np.mean([c.findings[0].attributes["margin"] == "smooth" for c in asked])
    assert _accuracy(frequent(train, asked)) == pytest.approx(smooth)


def test_results_are_shown_as_they_fell() -> None:
    runs = {TEXT_ARM: [_answers(0.3)], PREFIX_ARM: [_answers(0.9, seed=1)]}
    result = PrefixResult.model_validate(
        {
            **measures(Scored(runs[TEXT_ARM][0]), runs, 20),
            "budget": PrefixBenchConfig(seeds=(0,)),
            "base_parameters": 1000,
            "train_findings": 10,
            "held_out_series": 30,
            "held_out_texts": 60,
            "held_out_findings": 60,
            "asked": {"margin": 60, "density": 60},
            "reference": {"probe": {ALL: 0.25, "margin": 0.5, "density": 0.0}},
            "seconds": {TEXT_ARM: 1.0, PREFIX_ARM: 2.0},
            "machine": {},
        }
    )
    assert PrefixResult.model_validate_json(result.model_dump_json()) == result
    text = markdown(result)
    value = result.accuracy[PREFIX_ARM]["margin"][0]
    assert f"| {PREFIX_ARM} |" in text and f"{value:.3f} (" in text and "margin (60)" in text
    assert f"{result.difference['margin'][0]:+.3f} (" in text and "| probe | 0.250 |" in text
    first, second = figure_arms(result)
    assert not first.gains and second.gains["margin"].value == result.difference["margin"][0]
    assert len(ablation_figure((first, second)).axes) == 2
