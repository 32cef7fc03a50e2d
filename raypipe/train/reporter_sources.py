"""Where the conversations come from that a report model learns: the knowledge graph, or tables.

In: the source of a config. Out: conversations to train on and to measure on.
Does not know: tokens, networks, Ray.

Synthetic conversations are requests of THE request builder with an answer that their grammar
accepts, so that a model learns what it is asked in production.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import PurePath

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import load_terminology
from raypipe.parquet import read_parquet
from raypipe.report.config import ReportConfig
from raypipe.report.engine import Message
from raypipe.report.plan import make_plan
from raypipe.report.request import build_request
from raypipe.train.reporter_config import PairsSource, SyntheticSource, TrainReporterConfig
from raypipe.train.reporter_findings import random_findings
from raypipe.train.reporter_rows import Conversation
from raypipe.train.reporter_style import best_text


def conversations(config: TrainReporterConfig) -> tuple[list[Conversation], list[Conversation]]:
    """Conversations to train on, and to measure on.

    Raises:
        ConfigError: a table is not there, lacks a column, or holds an empty text.
    """
    source = config.source
    if isinstance(source, PairsSource):
        return (
            read_pairs(source.train, source, config.language),
            read_pairs(source.validation, source, config.language),
        )
    return (
        synthetic(source, config.language, 0, source.examples),
        synthetic(source, config.language, 1, source.validation_examples),
    )


def synthetic(source: SyntheticSource, language: str, part: int, count: int) -> list[Conversation]:
    """Conversations about random finding sets.

    Args:
        source: how findings are drawn.
        language: of the reports; findings that it has no words for are not drawn.
        part: 0 to train on, 1 to measure on; parts share no draw.
        count: how many.
    """
    graph, terminology = load_graph(), load_terminology(language)
    report = ReportConfig(language=language)
    made: list[Conversation] = []
    number = 0
    while len(made) < count:
        rng = random.Random(f"{source.seed}/{part}/{number}")  # each by itself
        number += 1
        findings, context = random_findings(rng, graph, source.most_findings)
        if any(finding.label not in terminology.terms for finding in findings):
            continue
        plan = make_plan(findings, context, terminology, graph, report)
        messages = build_request(plan, report).messages
        made.append(Conversation(messages=messages, text=best_text(plan)))
    return made


def read_pairs(path: str, source: PairsSource, language: str) -> list[Conversation]:
    """Conversations of a table, one a row.

    Args:
        path: .parquet, .csv or .jsonl, local or an address.
        source: names of the columns, system message.
        language: whose system message is taken where the source has none.
    """
    system = source.system
    if system is None:
        system = load_terminology(language).language.prompt.system
    prompts, texts = _columns(path, (source.prompt_column, source.text_column))
    return [
        Conversation(
            messages=(
                Message(role="system", content=system),
                Message(role="user", content=prompt),
            ),
            text=text,
        )
        for prompt, text in zip(prompts, texts, strict=True)
    ]


def _columns(path: str, names: Sequence[str]) -> list[list[str]]:
    """Columns of a table as text; no cell is empty."""
    import fsspec
    import pyarrow as pa
    from pyarrow import csv, json

    alone = {"use_threads": False}  # as read_parquet, and for its reason
    readers: dict[str, Callable[[bytes], pa.Table]] = {
        ".parquet": read_parquet,
        ".csv": lambda content: csv.read_csv(pa.BufferReader(content), csv.ReadOptions(**alone)),
        ".jsonl": lambda content: json.read_json(
            pa.BufferReader(content), json.ReadOptions(**alone)
        ),
    }
    ending = PurePath(path).suffix
    if ending not in readers:
        raise ConfigError(f"source: {path} must end with one of {', '.join(readers)}")
    try:
        with fsspec.open(path, "rb") as file:
            table = readers[ending](file.read())
    except FileNotFoundError as error:
        raise ConfigError(f"source: {path} does not exist") from error
    columns = []
    for name in names:
        if name not in table.column_names:
            raise ConfigError(
                f"source: {path} has no column {name!r}, only {', '.join(table.column_names)}; set "
                "source.prompt_column and source.text_column"
            )
        cells = [str(cell or "").strip() for cell in table.column(name).to_pylist()]
        if "" in cells or not cells:
            where = f"row {cells.index('') + 1}" if cells else "no row"
            raise ConfigError(f"source: {path}, column {name!r}: {where} holds a text; fill it in")
        columns.append(cells)
    return columns
