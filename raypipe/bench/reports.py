"""Tokens per second of raypipe's engine beside bare vLLM, transformers and ray.data.llm.

In: a language model, a number of reports. Out: every peer's tokens/s on the same requests, the
ratio to it, and whether the texts are equal. Does not know: how a peer is driven.

    held  requests as Describe makes them: a grammar holds the report to its findings
    free  the same messages without a grammar, up to a limit of tokens, for transformers has none

One process at a time, so each peer has the machine and its memory for itself.
"""

import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from raypipe.bench.machine import machine
from raypipe.bench.reports_peers import Done, Peer, Prompt, Work
from raypipe.errors import ConfigError, RaypipeError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import load_terminology
from raypipe.report.config import ReportConfig
from raypipe.report.plan import make_plan
from raypipe.report.request import build_request
from raypipe.settings import Settings
from raypipe.train.reporter_findings import random_findings

Kind = Literal["held", "free"]
OURS: Peer = "raypipe"
TARGETS: dict[tuple[Kind, Peer], float] = {
    ("held", "vllm"): 0.97,
    ("held", "ray.data.llm"): 1.0,
    ("free", "vllm"): 0.97,
    ("free", "transformers"): 3.0,
    ("free", "ray.data.llm"): 1.0,
}
"""Tokens/s of raypipe over that of the peer, at least."""
_WARM_REPORTS = 4
_MOST_FINDINGS = 6


class Speed(Settings):
    """One peer on one kind of requests."""

    kind: Kind
    peer: str = Field(description="its name; raypipe without prefix caching is one too")
    tokens: int = Field(description="over all repetitions")
    seconds: tuple[float, ...] = Field(description="of each repetition, or of all as one")
    tokens_per_s: float = Field(description="median over repetitions")
    spread: tuple[float, float] = Field(description="lowest and highest repetition")
    ratio: float = Field(description="raypipe's tokens/s over this peer's")
    ratio_spread: tuple[float, float] = Field(description="lowest and highest repetition")
    same_texts: float = Field(description="share of texts equal to raypipe's")
    target: float | None


class ReportsBenchResult(Settings):
    """Everything that was measured."""

    model: str
    reports: int = Field(description="of one repetition")
    repeats: int
    speeds: tuple[Speed, ...]
    machine: dict[str, str | int]


def bench_reports(
    folder: Path,
    config: ReportConfig,
    *,
    reports: int,
    repeats: int,
    free_tokens: int,
    peers: Sequence[Peer] = ("vllm", "transformers", "ray.data.llm"),
    on_step: Callable[[str], None] = lambda step: None,
) -> ReportsBenchResult:
    """Measure raypipe and its peers on the same requests.

    Args:
        folder: for what the processes are told and answer; made where needed.
        config: language model and engine.
        reports: of one repetition.
        repeats: repetitions, each with other reports.
        free_tokens: limit of an answer without a grammar.
        peers: that are measured beside raypipe.
        on_step: told what is measured next.

    Raises:
        RaypipeError: a peer's process failed; the message names its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: dict[Kind, int | None] = {"held": None, "free": free_tokens}
    speeds: list[Speed] = []
    for kind, limit in kinds.items():
        warm, *sets = [
            _prompts(n, seed, config, limit)
            for seed, n in enumerate([_WARM_REPORTS, *[reports] * repeats])
        ]
        told = Work(peer=OURS, model=config.language_model, vllm=config.vllm, warm=warm, sets=sets)
        variants: dict[str, Work] = {OURS: told}
        if kind == "held":
            uncached = config.vllm.model_copy(update={"prefix_caching": False})
            variants["raypipe, no prefix caching"] = told.model_copy(update={"vllm": uncached})
        for peer in peers:
            if (kind, peer) in TARGETS:
                variants[peer] = told.model_copy(update={"peer": peer})
        done: dict[str, Done] = {}
        for name, each in variants.items():
            on_step(f"{kind}: {name}")
            done[name] = _in_process(folder / f"{kind}-{name.replace(' ', '_')}", each)
        speeds += [_speed(kind, name, done[name], done[OURS]) for name in done]
    return ReportsBenchResult(
        model=config.language_model,
        reports=reports,
        repeats=repeats,
        speeds=tuple(speeds),
        machine=machine(),
    )


def peers_named(names: Sequence[str]) -> tuple[Peer, ...]:
    """Peers by their names; all of them where none is named; ConfigError for an unknown one."""
    every = {name: name for _, name in TARGETS}
    unknown = [name for name in names if name not in every]
    if unknown:
        raise ConfigError(f"bench reports: no peer {unknown[0]!r}; there are {', '.join(every)}")
    return tuple(every[name] for name in every if not names or name in names)


def _prompts(count: int, seed: int, config: ReportConfig, limit: int | None) -> tuple[Prompt, ...]:
    """Requests about random finding sets; with a limit of tokens they have no grammar."""
    graph, terminology = load_graph(), load_terminology(config.language)
    rng = random.Random(f"bench reports {seed}")
    made = []
    for _ in range(count):
        findings, context = random_findings(rng, graph, _MOST_FINDINGS)
        plan = make_plan(findings, context, terminology, graph, config)
        request = build_request(plan, config)
        made.append(
            Prompt(
                messages=tuple((m.role, m.content) for m in request.messages),
                grammar=request.grammar if limit is None else None,
                max_tokens=request.max_tokens if limit is None else limit,
            )
        )
    return tuple(made)


def _in_process(stem: Path, told: Work) -> Done:
    """What a peer does in a process of its own, which takes its memory with it."""
    work_file, done_file, log = (stem.with_suffix(s) for s in (".work.json", ".json", ".log"))
    work_file.write_text(told.model_dump_json())
    command = [sys.executable, "-m", "raypipe.bench.reports_peers", str(work_file), str(done_file)]
    with log.open("w") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream, check=False).returncode
    if code or not done_file.is_file():
        raise RaypipeError(
            f"bench reports: the process of {told.peer} ended with {code}; its log is {log}"
        )
    return Done.model_validate_json(done_file.read_text())


def _speed(kind: Kind, name: str, done: Done, ours: Done) -> Speed:
    rates = _rates(done)
    our_rates = _rates(ours) if len(rates) > 1 else [sum(ours.tokens) / sum(ours.seconds)]
    ratios = [a / b for a, b in zip(our_rates, rates, strict=True)]
    pairs = [
        (a, b)
        for texts, own in zip(done.texts, ours.texts, strict=True)
        for a, b in zip(texts, own, strict=True)
    ]
    known = [target for (k, peer), target in TARGETS.items() if (k, peer) == (kind, name)]
    return Speed(
        kind=kind,
        peer=name,
        tokens=sum(done.tokens),
        seconds=done.seconds,
        tokens_per_s=statistics.median(rates),
        spread=(min(rates), max(rates)),
        ratio=statistics.median(ratios),
        ratio_spread=(min(ratios), max(ratios)),
        same_texts=sum(a == b for a, b in pairs) / len(pairs),
        target=known[0] if known else None,
    )


def _rates(done: Done) -> list[float]:
    return [tokens / seconds for tokens, seconds in zip(done.tokens, done.seconds, strict=True)]
