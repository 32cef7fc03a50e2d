"""The network side of training a report model, on a tiny Llama in a plain process."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from raypipe.errors import ConfigError
from raypipe.knowledge.terminology import load_terminology
from raypipe.report.engine import Message
from raypipe.train.loop import Place
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_loop import examples_of
from raypipe.train.reporter_model import LoadedModel, load_model, trained_parts
from raypipe.train.reporter_rows import (
    Conversation,
    Example,
    RowPlan,
    make_example,
    make_row,
    packed,
    shared_length,
)
from raypipe.train.reporter_run import run, weighted_loss
from raypipe.train.reporter_sources import conversations
from raypipe.train.reporter_validate import f1_of_texts, fact_f1, write
from tests.train.tiny_reporter import config, write_model

Calls = list[tuple[dict[str, float], dict[str, Any]]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def told(tiny: str, tmp_path: Path) -> TrainReporterConfig:
    return config(tiny, tmp_path)


@pytest.fixture
def loaded(told: TrainReporterConfig) -> LoadedModel:
    return _stirred(load_model(told))


def _stirred(loaded: LoadedModel) -> LoadedModel:
    """The adapter as after some steps; a fresh one changes nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trained_parts(loaded.model).parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return loaded


def _examples(loaded: LoadedModel, told: TrainReporterConfig) -> list[Example]:
    return examples_of(told, loaded, conversations(told))[0]


def _gradient(loaded: LoadedModel, rows: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted loss and its gradient, as one vector."""
    parts = trained_parts(loaded.model)
    parts.zero_grad()
    loss = weighted_loss(loaded.model(rows))
    loss.backward()
    grads = [p.grad.flatten() for p in parts.parameters() if p.grad is not None]
    return loss.detach(), torch.cat(grads)


def test_a_packed_row_computes_what_its_examples_compute_alone(
    loaded: LoadedModel, told: TrainReporterConfig
) -> None:
    examples = _examples(loaded, told)[:3]
    shared = shared_length(examples)
    assert shared > 50  # the system message
    row = make_row(examples, shared)
    assert len(row.tokens_l) == sum(len(e.tokens) for e in examples) - 2 * shared
    together = _gradient(loaded, [row])
    alone = _gradient(loaded, [make_row([example], 0) for example in examples])
    torch.testing.assert_close(together[0], alone[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together[1], alone[1], rtol=1e-3, atol=1e-6)


def test_an_example_does_not_see_the_one_before(
    loaded: LoadedModel, told: TrainReporterConfig
) -> None:
    first, second, other = _examples(loaded, told)[:3]
    shared = shared_length([first, second, other])
    count = int((second.weights > 0).sum())
    behind = [loaded.model([make_row([e, second], shared)]).loss_n[-count:] for e in (first, other)]
    torch.testing.assert_close(behind[0], behind[1], rtol=1e-5, atol=1e-6)
    assert int((first.weights > 0).sum()) != int((other.weights > 0).sum())


def test_features_become_prompt_embeddings_and_train_the_projector(
    told: TrainReporterConfig,
) -> None:
    class Projector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(5, 2 * 64)

        def forward(self, features_nd: torch.Tensor) -> torch.Tensor:
            made: torch.Tensor = self.linear(features_nd)
            return made.reshape(-1, 64)

    loaded = _stirred(load_model(told, Projector()))
    plain = conversations(told)[0][:3]
    rng = np.random.default_rng(0)
    terminology = load_terminology()
    examples = [
        make_example(
            replace(one, features=rng.normal(size=(n, 5)).astype(np.float32), prefix=2 * n),
            loaded.tokenizer,
            terminology,
            2.0,
        )
        for n, one in enumerate(plain, start=1)
    ]
    assert shared_length(examples) == 0
    together = _gradient(loaded, [make_row(examples, 0)])
    alone = _gradient(loaded, [make_row([example], 0) for example in examples])
    torch.testing.assert_close(together[0], alone[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(together[1], alone[1], rtol=1e-3, atol=1e-6)
    projector = loaded.model.projector
    assert projector is not None
    assert any(float(p.grad.abs().sum()) > 0 for p in projector.parameters() if p.grad is not None)
    with pytest.raises(ValueError, match="projector"):
        load_model(told).model([make_row(examples, 0)])


def test_terms_weigh_more_and_prompts_nothing(loaded: LoadedModel) -> None:
    conversation = Conversation(
        messages=(Message(role="system", content="Write."), Message(role="user", content="x")),
        text="There is a pulmonary nodule on the right [F1].",
    )
    example = make_example(conversation, loaded.tokenizer, load_terminology(), 3.0)
    assert not example.weights[: example.prompt].any()
    answer = loaded.tokenizer.convert_ids_to_tokens(example.tokens[example.prompt :].tolist())
    heavy = [t for t, w in zip(answer, example.weights[example.prompt :], strict=True) if w == 3.0]
    assert loaded.tokenizer.convert_tokens_to_string(heavy) == " pulmonary nodule right"
    assert example.weights[-1] == 1.0 and example.tokens[-1] == loaded.tokenizer.eos_token_id
    scored = loaded.model([make_row([example], 0)])
    by_hand = np.average(scored.loss_n.detach().numpy(), weights=example.weights[example.prompt :])
    assert float(weighted_loss(scored).detach()) == pytest.approx(by_hand, rel=1e-6)
    assert by_hand != pytest.approx(float(scored.loss_n.detach().mean()), rel=1e-4)


def test_every_example_is_in_one_row_of_an_epoch(
    loaded: LoadedModel, told: TrainReporterConfig
) -> None:
    examples = _examples(loaded, told)
    shared = shared_length(examples)
    rows = packed(examples, reversed(range(len(examples))), 512, shared)
    assert sorted(i for row in rows for i in row) == list(range(len(examples)))
    assert all(len(make_row([examples[i] for i in row], shared).tokens_l) <= 512 for row in rows)
    assert len(rows) < len(examples) / 1.5
    with pytest.raises(ConfigError, match="row_tokens is 64"):
        packed(examples, range(len(examples)), 64, shared)


def test_steps_go_through_all_rows_again_and_again(
    loaded: LoadedModel, told: TrainReporterConfig
) -> None:
    examples = _examples(loaded, told)
    plan = RowPlan(examples, 2, 512, seed=3)
    late = RowPlan(examples, 2, 512, seed=3).rows(9)  # a restart makes the same rows
    for ours, theirs in zip(plan.rows(9), late, strict=True):
        assert torch.equal(ours.tokens_l, theirs.tokens_l)
    other = RowPlan(examples, 2, 512, seed=4).rows(9)
    assert any(
        a.tokens_l.shape != b.tokens_l.shape or not torch.equal(a.tokens_l, b.tokens_l)
        for a, b in zip(other, late, strict=True)
    )


def _run(told: TrainReporterConfig, saved: dict[str, Any] | None = None) -> Calls:
    calls: Calls = []
    loaded = load_model(told)
    examples = examples_of(told, loaded, conversations(told))
    run(told, loaded, examples, Place(), lambda m, s: calls.append((m, s)), saved)
    return calls


def test_training_lowers_the_loss_and_leaves_the_model_frozen(
    told: TrainReporterConfig,
) -> None:
    told = told.model_copy(update={"steps": 24, "checkpoint_every": 12, "learning_rate": 2e-2})
    loaded = load_model(told)
    frozen = {n: p.clone() for n, p in loaded.model.named_parameters() if not p.requires_grad}
    calls: Calls = []
    examples = examples_of(told, loaded, conversations(told))
    run(told, loaded, examples, Place(), lambda m, s: calls.append((m, s)))
    assert [m["step"] for m, _ in calls] == [12.0, 24.0]
    assert calls[1][0]["weighted_loss"] < calls[0][0]["weighted_loss"] < 6.5  # from 6.8
    assert calls[1][0]["token_accuracy"] > 0.2  # of 734 tokens
    now = dict(loaded.model.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    assert all("lora_" in name for name in calls[1][1]["model"])  # a checkpoint holds no more


def test_a_run_goes_on_from_its_state(told: TrainReporterConfig) -> None:
    halves = told.model_copy(update={"checkpoint_every": 2})
    whole = _run(halves)
    second = _run(halves, whole[0][1])
    assert [m["step"] for m, _ in second] == [4.0]
    for name, value in whole[-1][1]["average"].items():
        torch.testing.assert_close(second[-1][1]["average"][name], value)


def test_bfloat16_is_close_to_float32(told: TrainReporterConfig) -> None:
    plain, low = (
        _run(told.model_copy(update={"precision": precision}))[0]
        for precision in ("float32", "bfloat16")
    )
    assert low[0]["loss"] == pytest.approx(plain[0]["loss"], abs=0.02)
    assert all(value.dtype == torch.float32 for value in low[1]["average"].values())


def test_activations_computed_twice_change_nothing(told: TrainReporterConfig) -> None:
    saving = told.model_copy(update={"checkpoint_activations": True})
    assert _run(saving)[0][0]["loss"] == pytest.approx(_run(told)[0][0]["loss"], abs=1e-4)


def test_facts_of_written_reports_are_measured(
    loaded: LoadedModel, told: TrainReporterConfig
) -> None:
    told = told.model_copy(update={"written_examples": 1})
    validation = examples_of(told, loaded, conversations(told))[1]
    assert 0.0 <= fact_f1(loaded, validation, told, "cpu") < 0.5  # random weights
    together = write(loaded, validation.examples[:3], "cpu")
    alone = [write(loaded, [example], "cpu")[0] for example in validation.examples[:3]]
    assert [a[:40] for a in together] == [a[:40] for a in alone]  # however long the others are
    terminology = load_terminology()
    truth = "A 12 mm pulmonary nodule is seen in the right lung [F1]."
    assert f1_of_texts([truth], [truth], terminology) == 1.0
    assert 0.0 < f1_of_texts([truth.replace("right", "left")], [truth], terminology) < 1.0


def test_a_wrong_target_and_uneven_workers_are_told(tiny: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"targets: .* no modules"):
        load_model(config(tiny, tmp_path, targets=["attention.wq"]))
    with pytest.raises(ValueError, match="2 rows, which 3 workers cannot share"):
        config(tiny, tmp_path, workers=3)
    with pytest.raises(ValueError, match="must be a multiple of row_tokens 768"):
        config(tiny, tmp_path, batch_tokens=1000)
