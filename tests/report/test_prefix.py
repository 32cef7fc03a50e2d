"""The visual prefix: its file, what it fits, and how it comes into requests."""

from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from raypipe.errors import ConfigError
from raypipe.report.adapter import describe_adapter
from raypipe.report.config import ReportConfig, ServerConfig
from raypipe.report.engine import EchoEngine, GenerationRequest, Message
from raypipe.report.model_source import find_model
from raypipe.report.prefix import (
    Projector,
    check_detector,
    language_model_hash,
    load_prefix,
    with_places,
)
from raypipe.report.reporter import Reporter, ReportInput
from raypipe.report.request import tokens_bound
from raypipe.report.server_engine import ServerEngine
from raypipe.report.vllm_requests import prompt_of
from tests.report.finding_sets import make_context, make_finding
from tests.report.prefixes import (
    FEATURES,
    TOKENS,
    WIDTH,
    projector_of,
    write_model,
    write_projector,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> ReportConfig:
    folder = tmp_path_factory.mktemp("prefix")
    model = write_model(folder / "model")
    projector = write_projector(folder / "projector.safetensors", str(model))
    return ReportConfig(language_model=str(model), prefix=str(projector))


def _features(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, FEATURES)).astype(np.float32)


def test_a_projector_gives_each_finding_its_embeddings() -> None:
    projector = Projector(FEATURES, 5, TOKENS, WIDTH)
    rows = torch.from_numpy(with_places(_features(3)))
    made = projector(rows)
    assert made.shape == (3 * TOKENS, WIDTH)
    assert torch.allclose(projector(rows[1:2]), made[TOKENS : 2 * TOKENS], atol=1e-6)
    moved = rows[1:2].clone()
    moved[:, -1] = 0.0  # the same finding, first of the list
    assert not torch.allclose(projector(moved), made[TOKENS : 2 * TOKENS])


def test_a_projector_begins_as_large_as_the_embeddings_of_its_model() -> None:
    projector = Projector(FEATURES, 5, TOKENS, WIDTH)
    features = torch.from_numpy(100.0 + 30.0 * _features(50))
    projector.fit(features, 0.05)
    assert projector.mean.mean() == pytest.approx(100.0, abs=10.0)
    made = projector(torch.cat([features, torch.zeros(50, 1)], dim=1))
    assert 0.01 < float(made.detach().square().mean().sqrt()) < 0.1


def test_embeddings_follow_the_order_of_the_prompt(config: ReportConfig) -> None:
    prefix = load_prefix(config)
    features = _features(3)
    made = prefix.embed(features, (2, 0))
    assert made is not None and made.shape == (2 * TOKENS, WIDTH)
    alone = prefix.embed(features[2:], (0,))
    assert alone is not None
    np.testing.assert_allclose(made[:TOKENS], alone, atol=1e-6)
    assert prefix.embed(features, ()) is None and prefix.embed(None, ()) is None
    with pytest.raises(ValueError, match=r"\(n, 6\), not \(3, 4\)"):
        prefix.embed(features[:, :4], (0,))
    with pytest.raises(ValueError, match="Detect makes them"):
        prefix.embed(None, (0,))


def test_a_file_keeps_weights_and_what_they_fit(config: ReportConfig) -> None:
    again = projector_of(Path(config.prefix))
    features = _features(2)
    np.testing.assert_array_equal(
        again.embed(features, (0, 1)), load_prefix(config).embed(features, (0, 1))
    )
    assert again.info.detector == "random-0" and again.info.tokens == TOKENS


def test_another_language_model_is_refused(config: ReportConfig, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)  # the same shape, other numbers
    mine = language_model_hash(find_model(config.language_model))
    assert language_model_hash(find_model(str(other))) != mine
    with pytest.raises(ConfigError, match=f"{mine}, but report.language_model other is"):
        load_prefix(config.model_copy(update={"language_model": str(other)}))


def test_another_adapter_is_refused(config: ReportConfig, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (folder / "adapter_model.safetensors").write_bytes(b"numbers")
    adapted = config.model_copy(update={"adapter": "mine", "adapters": {"mine": str(folder)}})
    with pytest.raises(ConfigError, match=r"adapter \(none\), but report.adapter is [0-9a-f]{8}"):
        load_prefix(adapted)
    file = write_projector(
        tmp_path / "p.safetensors",
        config.language_model,
        adapter=describe_adapter("mine", folder).weights_hash,
    )
    load_prefix(adapted.model_copy(update={"prefix": str(file)}))
    with pytest.raises(ConfigError, match=r"report.adapter is \(none\)"):
        load_prefix(config.model_copy(update={"prefix": str(file)}))


def test_another_detector_is_refused(config: ReportConfig) -> None:
    check_detector(config, "random-0", FEATURES)
    with pytest.raises(ConfigError, match=r"random-0 \(6 numbers a finding\)"):
        check_detector(config, "random-1", FEATURES)
    with pytest.raises(ConfigError, match="7 numbers"):
        check_detector(config, "random-0", 7)


def test_a_file_that_is_no_projector_is_refused(config: ReportConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be read"):
        projector_of(tmp_path / "none.safetensors")
    (tmp_path / "bad").write_bytes(b"no projector")
    with pytest.raises(ConfigError, match="no projector of raypipe"):
        projector_of(tmp_path / "bad")
    with pytest.raises(ConfigError, match="no projector of raypipe"):
        projector_of(Path(config.language_model) / "model.safetensors")


def test_a_projector_comes_from_s3(config: ReportConfig, s3_endpoint: str, tmp_path: Path) -> None:
    s3 = fsspec.filesystem("s3", endpoint_url=s3_endpoint)
    s3.mkdir("prefixes")
    s3.put_file(config.prefix, "prefixes/p.safetensors")
    told = {"prefix": "s3://prefixes/p.safetensors", "adapter_s3_endpoint": s3_endpoint}
    found = load_prefix(config.model_copy(update=told))
    assert found.weights_hash == projector_of(Path(config.prefix)).weights_hash


@pytest.mark.parametrize("engine", ["openai", "template"])
def test_engines_that_take_no_embeddings_refuse_a_prefix(engine: str) -> None:
    with pytest.raises(ValidationError, match=r"report\.prefix: the engine"):
        ReportConfig.model_validate({"engine": engine, "prefix": "p.safetensors"})


def test_a_server_refuses_a_request_with_a_prefix() -> None:
    engine = ServerEngine(ServerConfig(), "m")
    request = GenerationRequest(
        messages=(Message(role="user", content="x"),),
        grammar=None,
        max_tokens=3,
        prefix=np.zeros((2, 4), np.float32),
    )
    with pytest.raises(ConfigError, match=r"report\.prefix: the OpenAI protocol"):
        engine.generate([request])
    engine.close()


def test_a_prompt_has_embeddings_in_front_and_tokens_behind() -> None:
    assert prompt_of([4, 5], None) == {"prompt_token_ids": [4, 5]}
    assert prompt_of([4, 5], np.zeros((0, 3), np.float32)) == {"prompt_token_ids": [4, 5]}
    made = prompt_of([4, 5], np.full((3, 2), 7.0, np.float32))
    assert made["prompt_token_ids"] == [0, 0, 0, 4, 5]
    assert made["prompt_is_token_ids"] == [False, False, False, True, True]
    assert made["prompt_embeds"].tolist() == [[7.0, 7.0]] * 3 + [[0.0, 0.0]] * 2


def test_requests_have_the_listed_findings_in_front(config: ReportConfig) -> None:
    def learns(request: GenerationRequest) -> str:
        whole = request.example.startswith("FINDINGS:")
        return request.example.replace("right", "left", 1) if whole else request.example

    engine = EchoEngine(learns)
    reporter = Reporter(config, engine)
    findings = (make_finding(1, "pleural_effusion"), make_finding(2, "lung_mass"))
    features = _features(2)
    report, nothing = reporter.describe(
        [ReportInput(findings, make_context(), features), ReportInput((), make_context())]
    )
    first, empty, repair = engine.requests
    order = [i for i in (1, 0) if f"[F{i + 1}]" in first.messages[1].content]
    assert first.messages[1].content.index("[F2]") < first.messages[1].content.index("[F1]")
    prefix = load_prefix(config)
    np.testing.assert_array_equal(first.prefix, prefix.embed(features, order))
    assert empty.prefix is None and not nothing.needs_review
    # a repair lists one finding, and only that is in front
    np.testing.assert_array_equal(repair.prefix, prefix.embed(features, (1,)))
    assert tokens_bound(first) == tokens_bound(replace(first, prefix=None)) + 2 * TOKENS
    assert report.model == f"{engine.name} + {prefix.name}" and not report.needs_review


def test_a_prefix_without_vectors_is_an_error(config: ReportConfig) -> None:
    with pytest.raises(ValueError, match="Detect makes them"):
        Reporter(config, EchoEngine()).describe([ReportInput((make_finding(),), make_context())])
