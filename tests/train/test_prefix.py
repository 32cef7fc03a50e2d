"""Cases, questions, and a prefix trained together with an adapter on a model of seconds."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from transformers import LlamaForCausalLM
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from raypipe.bench.prefix_base import base_model
from raypipe.bench.prefix_records import BaseModelConfig
from raypipe.errors import ConfigError
from raypipe.model.config import DetectorConfig
from raypipe.report.config import ReportConfig
from raypipe.report.engine import Message
from raypipe.report.prefix import load_prefix, with_places
from raypipe.train import prefix_run
from raypipe.train.prefix_cases import PrefixCase, PrefixDataConfig, parted, prefix_cases
from raypipe.train.prefix_run import PrefixConfig, train_prefix
from raypipe.train.prefix_text import ASKED, make_question, veiled
from raypipe.train.prefix_train import TrainPrefixConfig, production
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_rows import Conversation
from raypipe.train.synthesis import SynthesisConfig
from tests.report.finding_sets import make_context, make_finding

NODULE = {"margin": "spiculated", "density": "part_solid", "severity": "mild"}
FINDINGS = (
    make_finding(1, mean_hu=None, attributes=NODULE),
    make_finding(2, "liver_mass", mean_hu=None, side=None, attributes={"shape": "oval"}),
)
CASES = PrefixDataConfig(
    cases=2,
    synthesis=SynthesisConfig(slab_slices=(3, 4)),
    detector=DetectorConfig(weights="random", threads=1),
)
FEATURES = 5


def test_a_prompt_hides_what_its_answer_names() -> None:
    question = make_question(FINDINGS, make_context())
    prompt = question.request.messages[1].content
    assert "[F1] pulmonary nodule; right; 12 mm\n" in prompt
    assert not any(word in prompt for word in ("spiculated", "part-solid", "oval", "HU", "mild"))
    assert "spiculated" in question.answer and "part-solid" in question.answer
    told = make_question(FINDINGS, make_context(), told=True).request.messages[1].content
    assert "margin spiculated; density part-solid" in told and "severity" not in told


def test_a_veiled_finding_goes_by_its_wider_kind() -> None:
    cyst = make_finding(1, "liver_cyst", attributes={"density": "fluid", "severity": "mild"})
    assert veiled(cyst).label == "focal_liver_lesion"
    assert veiled(cyst).attributes == {"density": "fluid"}  # the wider kind has no severity
    stays = make_finding(1, "adrenal_nodule")
    assert veiled(stays) is stays
    question = make_question([veiled(cyst)], make_context())
    assert "focal liver lesion" in question.request.messages[1].content
    assert {values["density"] for values in question.options[0].values()} >= {"fluid", "hypodense"}


def test_the_grammar_offers_every_value_and_texts_are_read_back() -> None:
    question = make_question(FINDINGS, make_context())
    assert [len(options) for options in question.options] == [4 * 4, 3]
    grammar = Grammar.from_ebnf(question.request.grammar or "")
    rng = random.Random(0)
    for _ in range(20):
        chosen = [rng.choice(list(options.items())) for options in question.options]
        text = "\n".join(text for text, _ in chosen)
        assert _is_grammar_accept_string(grammar, text)
        assert question.read(text) == tuple(values for _, values in chosen)
        assert len(text.encode()) < question.request.max_tokens
    assert _is_grammar_accept_string(grammar, question.answer)
    assert question.read(question.answer) == question.truth
    assert question.read("There is nothing.") == ({}, {})


def test_cases_are_made_once_and_belong_to_their_config(tmp_path: Path) -> None:
    made: list[int] = []
    cases, detector = prefix_cases(tmp_path, CASES, made.append)
    assert detector == "random-0" and made == [1, 2] and len(cases) == 2
    for case in cases:
        assert len(case.features_nd) == len(case.findings) >= 1
        assert np.isfinite(case.features_nd).all()
        for finding in case.findings:
            assert finding.mean_hu is None and set(finding.attributes) & set(ASKED)
    again, _ = prefix_cases(tmp_path, CASES, made.append)
    assert made == [1, 2] and [c.findings for c in again] == [c.findings for c in cases]
    np.testing.assert_array_equal(again[1].features_nd, cases[1].features_nd)
    parts = [part for case in cases for part in parted(case, 1)]
    assert len(parts) == sum(len(case.findings) for case in cases)
    assert {f.finding_id for part in parts for f in part.findings} == {"F1"}
    np.testing.assert_array_equal(parts[-1].features_nd[0], cases[-1].features_nd[-1])
    with pytest.raises(ConfigError, match="other cases"):
        prefix_cases(tmp_path, CASES.model_copy(update={"seed": 1}), made.append)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = BaseModelConfig(layers=2, width=64, heads=2, inner=128, texts=60, steps=12)
    folder = base_model(tmp_path_factory.mktemp("base"), config, 1, threads=1)
    # steps of seconds leave embeddings so small that no adapter could make the model sure
    lm = LlamaForCausalLM.from_pretrained(folder)
    lm.get_input_embeddings().weight.data *= 6.0
    lm.save_pretrained(folder)
    return folder


def _told(numbers: range, tokens: int) -> list[Conversation]:
    """Answers of one word, which one number of the vector tells and the prompt does not."""
    made = []
    for number in numbers:
        features = np.random.default_rng(number).normal(size=(1, FEATURES)).astype(np.float32)
        features[0, 0] = 3.0 if number % 2 else -3.0
        made.append(
            Conversation(
                messages=(Message(role="user", content="margin"),),
                text=("smooth", "lobulated")[number % 2],
                features=with_places(features) if tokens else None,
                prefix=tokens,
            )
        )
    return made


def test_a_prefix_tells_what_the_text_cannot(base: Path, tmp_path: Path) -> None:
    config = TrainReporterConfig(
        name="both",
        output="",
        language_model=str(base),
        steps=60,
        batch_tokens=512,
        row_tokens=256,
        learning_rate=3e-3,
        term_weight=1.0,
        checkpoint_every=60,
        seed=1,
    )
    loss = {}
    for name, prefix in (("text", None), ("both", PrefixConfig(tokens=2, hidden=16))):
        tokens = prefix.tokens if prefix else 0
        told = _told(range(60), tokens), _told(range(60, 90), tokens)
        settings = config.model_copy(update={"name": name})
        made = train_prefix(settings, prefix, told, "random-0", tmp_path / name)
        loss[name] = made.metrics["loss"]
        assert (made.projector is None) is (prefix is None)
    # the same steps: with the prefix the words become surer than a toss-up lets them be
    assert loss["both"] < 0.8 * loss["text"], loss
    fitting = ReportConfig(
        language_model=str(base),
        adapter="both",
        adapters={"both": str(tmp_path / "both" / "adapter")},
        prefix=str(made.projector),
    )
    embeddings = load_prefix(fitting).embed(np.zeros((1, FEATURES), np.float32), (0,))
    assert embeddings is not None and embeddings.shape == (2, 64)
    with pytest.raises(ConfigError, match="trained beside the adapter"):
        load_prefix(replace_adapter(fitting, tmp_path / "text" / "adapter"))


def replace_adapter(config: ReportConfig, folder: Path) -> ReportConfig:
    return config.model_copy(update={"adapters": {"both": str(folder)}})


def test_a_question_lists_findings_in_the_order_of_its_lines() -> None:
    findings = tuple(
        replace(f, finding_id=f"F{3 - int(f.finding_id[1:])}") for f in reversed(FINDINGS)
    )
    question = make_question(findings, make_context())
    listed = [line[1:3] for line in question.request.messages[1].content.splitlines()[2:4]]
    assert listed == [findings[i].finding_id for i in question.order]
    assert [len(options) for options in question.options] == [16, 3]  # lung before liver


def test_production_conversations_are_what_reports_are_made_from() -> None:
    features = np.arange(2 * FEATURES, dtype=np.float32).reshape(2, FEATURES)
    case = PrefixCase(
        series=0, findings=FINDINGS[::-1], context=make_context(), features_nd=features
    )
    made = production(case, "en", 3)
    assert made.text.startswith("FINDINGS:") and "margin spiculated" in made.messages[1].content
    assert made.prefix == 6 and made.features is not None
    # the lung is told before the liver, which came first
    np.testing.assert_array_equal(made.features[:, :-1], features[::-1])
    assert made.features[:, -1].tolist() == [0.0, 1.0]


def test_training_a_prefix_wants_one_process_and_a_local_folder() -> None:
    for told in ({"workers": 2, "batch_tokens": 4096}, {"output": "s3://a"}, {"init": "default"}):
        with pytest.raises(ValidationError, match="one process trains"):
            TrainPrefixConfig.model_validate({"output": "out", **told})


def test_a_prefix_is_trained_where_the_config_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places: list[str] = []
    monkeypatch.setattr(prefix_run, "load_model", lambda *_: None)
    monkeypatch.setattr(prefix_run, "examples_of", lambda *_: ((), None))
    monkeypatch.setattr(
        prefix_run,
        "run",
        lambda config, loaded, examples, place, report: places.append(place.device),
    )
    for use_gpu in (False, True):
        config = TrainReporterConfig(output="unused", use_gpu=use_gpu)
        train_prefix(config, None, ((), ()), "random-0", tmp_path)
    assert places == ["cpu", "cuda"]
