"""`raypipe train prefix`: adapter and projector for a language model of one's own.

In: a TrainPrefixConfig. Out: OUTPUT/NAME/adapter and OUTPUT/NAME/projector.safetensors, which
report.adapter and report.prefix name.
Does not know: Ray; one process trains, as a projector is small.
"""

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import load_terminology
from raypipe.report.config import ReportConfig
from raypipe.report.plan import make_plan
from raypipe.report.prefix import with_places
from raypipe.report.request import build_request, listed
from raypipe.train.prefix_cases import PrefixCase, PrefixDataConfig, prefix_cases
from raypipe.train.prefix_run import PrefixConfig, TrainedPrefix, conversation_of, train_prefix
from raypipe.train.prefix_text import make_question
from raypipe.train.reporter_config import TrainReporterConfig
from raypipe.train.reporter_rows import Conversation
from raypipe.train.reporter_style import best_text


class TrainPrefixConfig(TrainReporterConfig):
    """A training run of a projector and the adapter beside it; `source` is not read."""

    data: PrefixDataConfig = Field(
        default=PrefixDataConfig(), description="generated series to train on"
    )
    validation: PrefixDataConfig = Field(
        default=PrefixDataConfig(cases=40, seed=985_000), description="to measure on"
    )
    prefix: PrefixConfig = Field(default=PrefixConfig(), description="the projector")
    hide_attributes: bool = Field(
        default=False,
        description="prompts that hide the attributes, so that only the image tells them; else "
        "those of production, which list what the detector says",
    )

    @model_validator(mode="after")
    def _one_process(self) -> Self:
        if self.workers > 1 or "://" in self.output or self.init:
            raise ValueError(
                "train prefix: one process trains from nothing into a local folder; leave workers "
                "at 1 and init empty, and copy the files afterwards"
            )
        return self


def train_prefix_on_cases(config: TrainPrefixConfig) -> TrainedPrefix:
    """Make the cases where they are missing, train, and write adapter and projector.

    Raises:
        ConfigError: a case has more findings than a report tells, or does not fit into a row.
    """
    folder = Path(config.output) / config.name
    parts, detectors = [], set()
    for name, data in (("data", config.data), ("validation", config.validation)):
        cases, detector = prefix_cases(folder / "cases" / name, data)
        detectors.add(detector)
        parts.append([_conversation(case, config) for case in cases])
    if len(detectors) > 1:
        raise ConfigError("train prefix: data and validation name different detectors; use one")
    return train_prefix(config, config.prefix, (parts[0], parts[1]), detectors.pop(), folder)


def _conversation(case: PrefixCase, config: TrainPrefixConfig) -> Conversation:
    if config.hide_attributes:
        question = make_question(case.findings, case.context)
        return conversation_of(question, case, config.prefix.tokens)
    return production(case, config.language, config.prefix.tokens)


def production(case: PrefixCase, language: str, tokens: int) -> Conversation:
    """A case as production asks about it, answered in the wording that reads best."""
    report = ReportConfig(language=language)
    plan = make_plan(case.findings, case.context, load_terminology(language), load_graph(), report)
    numbers = {finding.finding_id: i for i, finding in enumerate(case.findings)}
    order = [numbers[fact.finding_id] for fact in listed(plan)]
    return Conversation(
        messages=build_request(plan, report).messages,
        text=best_text(plan),
        features=with_places(case.features_nd[order]),
        prefix=tokens * len(order),
    )
