"""Does a visual prefix tell the language model what the text hides? Two arms, equal budgets.

In: a budget, a folder. Out: accuracy of attributes in texts that vLLM writes, with and without the
prefix, as JSON, Markdown and a figure. Does not know: how a step is made, how a case is drawn.

A run (arm and seed) whose file lies in the folder is not trained again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from raypipe.bench.machine import machine
from raypipe.bench.prefix_base import base_model, parameters
from raypipe.bench.prefix_probe import frequent, probed
from raypipe.bench.prefix_records import (
    PREFIX_ARM,
    TEXT_ARM,
    Answer,
    Arm,
    PrefixBenchConfig,
    PrefixResult,
    PrefixRun,
)
from raypipe.bench.prefix_results import Scored, figure_arms, markdown, measures
from raypipe.errors import ConfigError
from raypipe.evaluate.plot_ablation import ablation_figure
from raypipe.evaluate.plot_style import save_figure
from raypipe.report.adapter import describe_adapter
from raypipe.report.config import ReportConfig, VllmConfig
from raypipe.report.engine import Engine, FinishReason, GenerationRequest
from raypipe.report.model_source import find_model
from raypipe.report.prefix import VisualPrefix, load_prefix
from raypipe.report.vllm_engine import VllmEngine
from raypipe.train.prefix_cases import PrefixCase, prefix_cases
from raypipe.train.prefix_run import TrainedPrefix, conversation_of, train_prefix
from raypipe.train.prefix_text import Question, make_question
from raypipe.train.reporter_config import TrainReporterConfig

ARMS: tuple[Arm, Arm] = (TEXT_ARM, PREFIX_ARM)
Said = Callable[[str], None]


class _Bench:
    """The cases and the model that all runs share.

    Args:
        folder: for everything.
        config: the budget.
        say: told what is going on.
    """

    def __init__(self, folder: Path, config: PrefixBenchConfig, say: Said) -> None:
        self.folder, self.config, self.say = folder, config, say
        self.train, self.detector = self._cases("train")
        self.held_out, _ = self._cases("held_out")
        say("the base model")
        self.base = base_model(folder / "base", config.base, config.threads)
        self.asked = [make_question(c.findings, c.context) for c in self.held_out]

    def _cases(self, part: str) -> tuple[list[PrefixCase], str]:
        wanted = getattr(self.config, part)
        return prefix_cases(
            self.folder / part,
            wanted,
            lambda done: self.say(f"{part.replace('_', ' ')} cases: {done} of {wanted.cases}"),
        )


def bench_prefix(
    folder: Path, config: PrefixBenchConfig, say: Said, on_run: Callable[[PrefixRun], None]
) -> PrefixResult:
    """Train both arms with every seed, decode, measure, and write JSON, Markdown and a figure.

    Args:
        folder: for cases, model, runs and results; a second call goes on where the first stopped.
        config: the budget.
        say: told what is going on.
        on_run: called after each run, also one that was already there.

    Raises:
        ConfigError: the folder holds something of another budget.
    """
    bench = _Bench(folder, config, say)
    runs: dict[Arm, list[PrefixRun]] = {arm: [] for arm in ARMS}
    trained = {
        (arm, seed): _trained(bench, arm, seed) for seed in config.seeds for arm in ARMS
    }  # all, before the engine takes memory
    engine: Engine | None = None
    try:
        for (arm, seed), made in trained.items():
            if isinstance(made, PrefixRun):
                done = made
            else:
                engine = engine or _engine(bench)
                done = _decoded(bench, engine, arm, seed, *made)
            runs[arm].append(done)
            on_run(done)
    finally:
        if engine is not None:
            engine.close()
    result = _result(bench, runs)
    (folder / "prefix.json").write_text(result.model_dump_json(indent=1) + "\n")
    (folder / "prefix.md").write_text(markdown(result))
    save_figure(ablation_figure(figure_arms(result)), folder / "prefix.png")
    return result


def _run_file(bench: _Bench, arm: Arm, seed: int) -> Path:
    return bench.folder / "runs" / f"{_slug(arm)}-{seed}.json"


def _slug(arm: Arm) -> str:
    return arm.replace(" ", "_")


def _trained(bench: _Bench, arm: Arm, seed: int) -> PrefixRun | tuple[TrainedPrefix, float]:
    """The run where it is there; else adapter and projector, trained now, and the seconds."""
    file = _run_file(bench, arm, seed)
    if file.is_file():
        known = PrefixRun.model_validate_json(file.read_text())
        same = known.budget.model_copy(update={"seeds": bench.config.seeds})
        if same != bench.config:
            raise ConfigError(f"bench prefix: {file} is of another budget; empty {bench.folder}")
        return known
    bench.say(f"training: {arm}, seed {seed}")
    config = bench.config
    prefix = config.prefix if arm == PREFIX_ARM else None
    tokens = prefix.tokens if prefix else 0
    told = [
        [
            conversation_of(make_question(c.findings, c.context), c, tokens)
            for c in cases
        ]
        for cases in (bench.train, bench.held_out)
    ]  # fmt: skip
    settings = TrainReporterConfig(
        name=f"{_slug(arm)}-{seed}",
        output="",
        language_model=str(bench.base),
        rank=config.rank,
        alpha=2.0 * config.rank,
        steps=config.steps,
        batch_tokens=config.batch_tokens,
        row_tokens=config.batch_tokens // 4,
        learning_rate=config.learning_rate,
        term_weight=1.0,
        checkpoint_every=config.steps,  # the last step's weights count; none are chosen
        validation_examples=len(bench.held_out),
        threads=config.threads,
        seed=seed,
    )
    started = time.perf_counter()
    made = train_prefix(
        settings, prefix, (told[0], told[1]), bench.detector, bench.folder / "made" / settings.name
    )
    return made, time.perf_counter() - started


def _engine(bench: _Bench) -> VllmEngine:
    bench.say("starting vLLM")
    config = VllmConfig(
        kv_cache_gib=0.25,
        max_model_len=1024,
        threads=bench.config.threads,
        max_loras=1,
        max_lora_rank=8 if bench.config.rank <= 8 else 64,
    )
    return VllmEngine(find_model(str(bench.base)), config, prefix=True)


def _decoded(
    bench: _Bench, engine: Engine, arm: Arm, seed: int, made: TrainedPrefix, seconds: float
) -> PrefixRun:
    """What a trained run writes about the held-out cases; kept in the folder."""
    assert isinstance(engine, VllmEngine)
    name = f"{_slug(arm)}-{seed}"
    bench.say(f"writing: {arm}, seed {seed}")
    engine.add_adapter(describe_adapter(name, made.adapter))
    prefix = None
    if made.projector is not None:
        told = ReportConfig(
            language_model=str(bench.base),
            adapter=name,
            adapters={name: str(made.adapter)},
            prefix=str(made.projector),
        )
        prefix = load_prefix(told)
    completions = engine.generate(requests(bench.asked, bench.held_out, name, prefix))
    answers = [
        answer
        for question, case, completion in zip(bench.asked, bench.held_out, completions, strict=True)
        for answer in answers_of(question, case, completion.text)
    ]
    done = PrefixRun(
        arm=arm,
        seed=seed,
        budget=bench.config,
        seconds=seconds,
        loss=made.metrics["loss"],
        unfinished=sum(c.finish_reason is not FinishReason.STOP for c in completions),
        answers=tuple(answers),
    )
    file = _run_file(bench, arm, seed)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(done.model_dump_json())
    partial.replace(file)  # a run that was cut off leaves no half file
    return done


def requests(
    asked: Sequence[Question],
    cases: Sequence[PrefixCase],
    adapter: str,
    prefix: VisualPrefix | None,
) -> list[GenerationRequest]:
    """The questions for an engine, with what the detector saw where there is a prefix."""
    return [
        replace(
            question.request,
            adapter=adapter,
            prefix=prefix.embed(case.features_nd, question.order) if prefix else None,
        )
        for question, case in zip(asked, cases, strict=True)
    ]


def answers_of(question: Question, case: PrefixCase, text: str) -> list[Answer]:
    """What a text says of each finding that is asked about."""
    return [
        Answer(
            series=case.series,
            label=case.findings[i].label,
            truth=dict(truth),
            said=dict(said),
        )
        for i, truth, said in zip(question.order, question.truth, question.read(text), strict=True)
    ]


def _result(bench: _Bench, runs: dict[Arm, list[PrefixRun]]) -> PrefixResult:
    scored = Scored(runs[TEXT_ARM][0].answers)
    found = measures(
        scored, {arm: [r.answers for r in own] for arm, own in runs.items()}, bench.config.bootstrap
    )
    references = {
        "the label's frequent value": frequent(bench.train, bench.held_out),
        "linear probe on the vectors": probed(bench.train, bench.held_out),
    }
    return PrefixResult.model_validate(
        {
            **found,
            "budget": bench.config,
            "base_parameters": parameters(bench.base),
            "train_findings": sum(len(case.findings) for case in bench.train),
            "held_out_cases": len(bench.held_out),
            "held_out_findings": sum(len(case.findings) for case in bench.held_out),
            "asked": {name: int((scored.names == name).sum()) for name in set(scored.names)},
            "reference": {
                name: Scored(answers).accuracies(Scored(answers).right(answers))
                for name, answers in references.items()
            },
            "seconds": {arm: sum(r.seconds for r in own) / len(own) for arm, own in runs.items()},
            "machine": machine(),
        }
    )
