"""Does a visual prefix tell the language model what the text hides? Two arms, equal budgets.

In: a budget, a folder. Out: accuracy of attributes in texts that vLLM writes, with and without the
prefix, as JSON, Markdown and a figure. Does not know: how a step is made, how a case is drawn.

A run (arm and seed) whose file lies in the folder is not trained again.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from raypipe.bench.machine import machine
from raypipe.bench.prefix_base import base_model, parameters
from raypipe.bench.prefix_probe import frequent, probed
from raypipe.bench.prefix_records import (
    PREFIX_ARM,
    TEXT_ARM,
    Answer,
    Arm,
    Made,
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
from raypipe.report.engine import FinishReason, GenerationRequest
from raypipe.report.model_source import find_model
from raypipe.report.prefix import VisualPrefix, load_prefix
from raypipe.report.vllm_engine import VllmEngine
from raypipe.train.prefix_cases import PrefixCase, PrefixDataConfig, parted, prefix_cases
from raypipe.train.prefix_run import PROJECTOR_FILE, conversation_of, train_prefix
from raypipe.train.prefix_text import Question, make_question, veiled
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_model import ADAPTER_FOLDER

ARMS: tuple[Arm, Arm] = (TEXT_ARM, PREFIX_ARM)
Said = Callable[[str], None]
R = TypeVar("R", Made, PrefixRun)


class _Bench:
    """The cases and the model that all runs share.

    Args:
        folder: for everything.
        config: the budget.
        say: told what is going on.
    """

    def __init__(self, folder: Path, config: PrefixBenchConfig, say: Said) -> None:
        self.folder, self.config, self.say = folder, config, say
        self.train, self.detector = self._cases("train", config.train)
        self.held_out, _ = self._cases("held_out", config.held_out)
        say("training the base model")
        self.base = base_model(folder / "base", config.base, config.together, config.threads)
        self.asked = [make_question(c.findings, c.context) for c in self.held_out]

    def _cases(self, part: str, wanted: PrefixDataConfig) -> tuple[list[PrefixCase], str]:
        def tell(done: int) -> None:
            self.say(f"{part.replace('_', ' ')} cases: {done} of {wanted.cases}")

        cases, detector = prefix_cases(self.folder / part, wanted, tell)
        if self.config.veiled:
            cases = [replace(c, findings=tuple(map(veiled, c.findings))) for c in cases]
        return [own for case in cases for own in parted(case, self.config.together)], detector

    def kept(self, kind: type[R], name: str) -> R | None:
        """What an earlier call left in a file; None where there is none.

        Raises:
            ConfigError: it is of another budget.
        """
        file = self.folder / name
        if not file.is_file():
            return None
        found = kind.model_validate_json(file.read_text())
        if found.budget.model_copy(update={"seeds": self.config.seeds}) != self.config:
            raise ConfigError(f"bench prefix: {file} is of another budget; empty {self.folder}")
        return found

    def keep(self, record: Made | PrefixRun, name: str) -> None:
        """Leave a record for later calls; one that was cut off leaves no half file."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        partial.write_text(record.model_dump_json())
        partial.replace(file)


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
    order = [(arm, seed) for seed in config.seeds for arm in ARMS]
    made = [_made(bench, arm, seed) for arm, seed in order]  # before the engine takes memory
    runs: dict[Arm, list[PrefixRun]] = {arm: [] for arm in ARMS}
    with ExitStack() as open_engine:
        engine: VllmEngine | None = None
        for one in made:
            done = bench.kept(PrefixRun, f"runs/{_name(one.arm, one.seed)}.json")
            if done is None:
                if engine is None:
                    engine = _engine(bench)
                    open_engine.callback(engine.close)
                done = _written(bench, engine, one)
            runs[one.arm].append(done)
            on_run(done)
    result = _result(bench, runs)
    (folder / "prefix.json").write_text(result.model_dump_json(indent=1) + "\n")
    (folder / "prefix.md").write_text(markdown(result))
    save_figure(ablation_figure(figure_arms(result)), folder / "prefix.png")
    return result


def _name(arm: Arm, seed: int) -> str:
    return f"{arm.replace(' ', '_')}-{seed}"


def _made(bench: _Bench, arm: Arm, seed: int) -> Made:
    """Adapter and projector of an arm and a seed: those that are there, or trained now."""
    name, config = _name(arm, seed), bench.config
    known = bench.kept(Made, f"made/{name}/made.json")
    if known is not None:
        return known
    bench.say(f"training: {arm}, seed {seed}")
    prefix = config.prefix if arm == PREFIX_ARM else None
    tokens = prefix.tokens if prefix else 0
    train, held_out = (
        [conversation_of(make_question(c.findings, c.context), c, tokens) for c in cases]
        for cases in (bench.train, bench.held_out)
    )
    settings = train_config(bench.base, name, seed, config)
    started = time.perf_counter()
    trained = train_prefix(
        settings, prefix, (train, held_out), bench.detector, bench.folder / "made" / name
    )
    made = Made(
        arm=arm,
        seed=seed,
        budget=config,
        seconds=time.perf_counter() - started,
        loss=trained.metrics["loss"],
    )
    bench.keep(made, f"made/{name}/made.json")
    return made


def train_config(
    base: Path, name: str, seed: int, config: PrefixBenchConfig
) -> TrainReporterConfig:
    """The training run of an arm; the same for both but for its name."""
    return TrainReporterConfig(
        name=name,
        output="",  # nothing is written by the loop
        language_model=str(base),
        rank=config.rank,
        alpha=2.0 * config.rank,
        steps=config.steps,
        batch_tokens=config.batch_tokens,
        row_tokens=config.batch_tokens // 2,
        learning_rate=config.learning_rate,
        term_weight=1.0,
        checkpoint_every=config.steps,  # the last step's weights count; none are chosen
        validation_examples=config.held_out.cases * config.held_out.most_findings,  # all
        threads=config.threads,
        seed=seed,
    )


def _engine(bench: _Bench) -> VllmEngine:
    bench.say("starting vLLM")
    config = VllmConfig(
        kv_cache_gib=0.25,
        max_model_len=1024,
        threads=bench.config.threads,
        max_loras=1,
        max_lora_rank=bench.config.rank,
    )
    return VllmEngine(find_model(str(bench.base)), config, prefix=True)


def _written(bench: _Bench, engine: VllmEngine, made: Made) -> PrefixRun:
    """What a trained arm writes about the held-out cases; kept in the folder."""
    name = _name(made.arm, made.seed)
    bench.say(f"writing: {made.arm}, seed {made.seed}")
    folder = bench.folder / "made" / name
    engine.add_adapter(describe_adapter(name, folder / ADAPTER_FOLDER))
    prefix = None
    if made.arm == PREFIX_ARM:
        prefix = load_prefix(
            ReportConfig(
                language_model=str(bench.base),
                adapter=name,
                adapters={name: str(folder / ADAPTER_FOLDER)},
                prefix=str(folder / PROJECTOR_FILE),
            )
        )
    completions = engine.generate(requests(bench.asked, bench.held_out, name, prefix))
    answers = [
        answer
        for question, case, completion in zip(bench.asked, bench.held_out, completions, strict=True)
        for answer in answers_of(question, case, completion.text)
    ]
    done = PrefixRun(
        arm=made.arm,
        seed=made.seed,
        budget=bench.config,
        seconds=made.seconds,
        loss=made.loss,
        unfinished=sum(c.finish_reason is not FinishReason.STOP for c in completions),
        answers=tuple(answers),
    )
    bench.keep(done, f"runs/{name}.json")
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


def _blind(cases: Sequence[PrefixCase]) -> list[PrefixCase]:
    return [replace(case, features_nd=case.features_nd[:, :0]) for case in cases]


def _result(bench: _Bench, runs: dict[Arm, list[PrefixRun]]) -> PrefixResult:
    scored = Scored(runs[TEXT_ARM][0].answers)
    found = measures(
        scored, {arm: [r.answers for r in own] for arm, own in runs.items()}, bench.config.bootstrap
    )
    references = {
        "the label's frequent value": frequent(bench.train, bench.held_out),
        "linear probe on label and size": probed(_blind(bench.train), _blind(bench.held_out)),
        "the same, and the vectors": probed(bench.train, bench.held_out),
    }
    return PrefixResult.model_validate(
        {
            **found,
            "budget": bench.config,
            "base_parameters": parameters(bench.base),
            "train_findings": sum(len(case.findings) for case in bench.train),
            "held_out_series": len({case.series for case in bench.held_out}),
            "held_out_texts": len(bench.held_out),
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
