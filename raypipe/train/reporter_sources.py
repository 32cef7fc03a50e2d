"""Where the conversations come from that a report model learns: the knowledge graph, or tables.

In: the source of a config. Out: conversations to train on and to measure on.
Does not know: tokens, networks, Ray.

Synthetic conversations are requests of THE request builder with an answer that their grammar
accepts, so that a model learns what it is asked in production.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    import pyarrow as pa

Table = Mapping[str, Sequence[Any]]
"""Name of a column -> its cells, which may be left out where they were not asked for."""


def conversations(config: TrainReporterConfig) -> tuple[list[Conversation], list[Conversation]]:
    """Conversations to train on, and to measure on.

    Raises:
        ConfigError: a table is not there or damaged, lacks a column, or holds an empty text.
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

    ending = PurePath(path).suffix
    if ending not in _READERS:
        raise ConfigError(f"source: {path} must end with one of {', '.join(_READERS)}")
    try:
        with fsspec.open(path, "rb") as file:
            table = _READERS[ending](file.read(), names)
    except FileNotFoundError as error:
        raise ConfigError(f"source: {path} does not exist") from error
    except ValueError as error:  # told without its text, which may hold a report's
        raise ConfigError(
            f"source: {path} is no valid {ending} file in UTF-8 ({type(error).__name__}); write "
            "it anew"
        ) from None
    columns = []
    for name in names:
        if name not in table:
            raise ConfigError(
                f"source: {path} has no column {name!r}, only {', '.join(table)}; set "
                "source.prompt_column and source.text_column"
            )
        texts = ["" if cell is None else str(cell).strip() for cell in table[name]]
        if "" in texts or not texts:
            where = f"row {texts.index('') + 1} holds no text" if texts else "there is no row"
            raise ConfigError(f"source: {path}, column {name!r}: {where}; fill it in")
        columns.append(texts)
    return columns


def _parquet(content: bytes, names: Sequence[str]) -> Table:
    return _cells(read_parquet(content), names)


def _csv(content: bytes, names: Sequence[str]) -> Table:
    """Cells stay the text that they are, and a line may end within quotes."""
    import pyarrow as pa
    from pyarrow import csv

    table = csv.read_csv(
        pa.BufferReader(content),
        csv.ReadOptions(use_threads=False),  # as read_parquet, and for its reason
        csv.ParseOptions(newlines_in_values=True),
        csv.ConvertOptions(column_types={name: pa.string() for name in names}),
    )
    return _cells(table, names)


def _cells(table: "pa.Table", names: Sequence[str]) -> Table:
    return {
        name: table.column(name).to_pylist() if name in names else [] for name in table.column_names
    }


def _jsonl(content: bytes, _: Sequence[str]) -> Table:
    rows = [json.loads(line) for line in content.splitlines() if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line is no object")
    keys = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in keys}


_READERS: dict[str, Callable[[bytes, Sequence[str]], Table]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _jsonl,
}
