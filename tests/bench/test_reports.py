"""The throughput benchmark: requests, ratios, one real peer on a tiny model, failures by name."""

from pathlib import Path

import pytest

from raypipe.bench.reports import TARGETS, _in_process, _prompts, _speed, peers_named
from raypipe.bench.reports_peers import Done, Work, work
from raypipe.errors import ConfigError, RaypipeError
from raypipe.report.config import ReportConfig, VllmConfig
from tests.train.tiny_reporter import write_model

CONFIG = ReportConfig(vllm=VllmConfig(threads=1, max_num_seqs=2))


def test_requests_are_those_of_describe_and_differ_by_repetition() -> None:
    held, again, other = (_prompts(3, seed, CONFIG, None) for seed in (1, 1, 2))
    assert held == again != other
    assert all(prompt.grammar and prompt.request().grammar == prompt.grammar for prompt in held)
    free = _prompts(3, 1, CONFIG, 16)
    assert [p.messages for p in free] == [p.messages for p in held]
    assert {(p.grammar, p.max_tokens) for p in free} == {(None, 16)}


def done(*seconds: float, tokens: int = 100, text: str = "a") -> Done:
    count = len(seconds)
    return Done(seconds=seconds, tokens=(tokens,) * count, texts=((text, "b"),) * count)


def test_ratios_are_medians_over_the_same_requests() -> None:
    ours = done(1.0, 2.0, 4.0)
    speed = _speed("held", "vllm", done(1.0, 1.0, 1.0, text="c"), ours)
    assert speed.tokens_per_s == 100.0 and speed.ratio == 0.5
    assert speed.ratio_spread == (0.25, 1.0) and speed.spread == (100.0, 100.0)
    assert speed.same_texts == 0.5 and speed.target == TARGETS["held", "vllm"]
    own = _speed("held", "raypipe", ours, ours)
    assert (own.ratio, own.same_texts, own.target) == (1.0, 1.0, None)


def test_a_peer_that_is_timed_as_one_is_compared_with_all_repetitions() -> None:
    ours = done(1.0, 3.0)
    whole = Done(seconds=(2.0,), tokens=(200,), texts=ours.texts)
    speed = _speed("free", "ray.data.llm", whole, ours)
    assert speed.ratio == pytest.approx((200 / 4.0) / (200 / 2.0))
    assert speed.same_texts == 1.0


def test_transformers_answers_every_set_whole(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    sets = tuple(_prompts(3, seed, CONFIG, 6) for seed in (1, 2))
    told = Work(
        peer="transformers",
        model=model,
        vllm=CONFIG.vllm,
        warm=_prompts(1, 0, CONFIG, 2),
        sets=sets,
    )
    found = work(told)
    assert len(found.seconds) == 2 and min(found.seconds) > 0
    assert all(0 < tokens <= 3 * 6 for tokens in found.tokens)
    alone = told.model_copy(update={"sets": ((sets[0][1],),)})
    assert work(alone).texts[0][0] == found.texts[0][1]  # padding changes no text


def test_a_process_that_fails_is_named_with_its_log(tmp_path: Path) -> None:
    told = Work(peer="transformers", model="./none", vllm=CONFIG.vllm, warm=(), sets=())
    with pytest.raises(RaypipeError, match=r"process of transformers ended with 1; its log is"):
        _in_process(tmp_path / "free-transformers", told)
    assert "there is no folder of that name" in (tmp_path / "free-transformers.log").read_text()


def test_peers_by_name() -> None:
    assert peers_named(()) == ("vllm", "ray.data.llm", "transformers")
    assert peers_named(("transformers",)) == ("transformers",)
    with pytest.raises(ConfigError, match="no peer 'sglang'"):
        peers_named(("sglang",))
