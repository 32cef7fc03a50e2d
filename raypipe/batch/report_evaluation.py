"""Put the reports of several systems on the same series beside what is true.

In: addresses of runs and tables. Out: a ReportSet, and what had to be left out.
Does not know: measures, figures.

    texts       .parquet or .csv: key, text, and system where one file holds several; or a run
    references  .parquet or .csv: key, text
    findings    .parquet or .csv: key, label, and side (left, right, midline), level, size_mm where
                known; a row a finding, a row without a label for a report that has none
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv

from raypipe.archive.storage import StorageConfig, filesystem_for
from raypipe.batch.output import ID_COLUMN, open_output
from raypipe.errors import ConfigError, Status
from raypipe.evaluate.facts import ReportFacts, known_facts
from raypipe.evaluate.text import ReportSet
from raypipe.evaluate.truth_models import check_label
from raypipe.knowledge.terminology import SIDES, is_length, load_terminology
from raypipe.parquet import read_parquet
from raypipe.sink.schema import has_scale

_SUFFIXES = (".parquet", ".csv")
_WORDS = ("key", "system", "text", "label", "side", "level")
Texts = dict[str, str]  # key -> text
Facts = dict[str, ReportFacts]  # key -> what is true
FindingRow = tuple[str, str | None, str | None, float | None]


@dataclass(frozen=True, kw_only=True)
class ReportCohort:
    """The reports that every system and every truth knows.

    Args:
        reports: texts and truth.
        left_out: name of a source -> reports of it that another one lacks.
    """

    reports: ReportSet
    left_out: Mapping[str, int]


def load_reports(
    sources: Sequence[str],
    references: str | None,
    findings: str | None,
    storage: StorageConfig,
) -> ReportCohort:
    """Read texts and truth.

    Args:
        sources: runs and tables of texts.
        references: table of reference texts.
        findings: table of what is true; without it and without references the findings of the
            first run are.
        storage: of S3.

    Raises:
        ConfigError: a table lacks a column, a report comes twice, or no report is known to all.
    """
    systems: dict[str, Texts] = {}
    facts: Facts | None = None
    for source in sources:
        found, of_run = _texts(source, storage)
        if facts is None:
            facts = of_run
        for name, texts in found.items():
            systems[_unused(name, systems)] = texts
    truth = _by_key(references, storage) if references is not None else None
    if findings is not None:
        facts = _facts(findings, storage)
    elif truth is not None:
        facts = None  # what the references state is the truth
    return _joined(systems, truth, facts)


def _joined(systems: Mapping[str, Texts], truth: Texts | None, facts: Facts | None) -> ReportCohort:
    known: dict[str, Iterable[str]] = dict(systems)
    if truth is not None:
        known["references"] = truth
    if facts is not None:
        known["findings"] = facts
    shared = set.intersection(*(set(keys) for keys in known.values())) if known else set()
    if not shared:
        raise ConfigError(
            "evaluation of reports: no key is in every source; compare the column `key` "
            f"({ID_COLUMN} of a run)"
        )
    keys = tuple(sorted(shared))
    left_out = {name: len(set(each) - shared) for name, each in known.items()}
    return ReportCohort(
        reports=ReportSet(
            keys=keys,
            systems={name: [texts[key] for key in keys] for name, texts in systems.items()},
            references=None if truth is None else [truth[key] for key in keys],
            facts=None if facts is None else [facts[key] for key in keys],
        ),
        left_out={name: number for name, number in left_out.items() if number},
    )


def _texts(source: str, storage: StorageConfig) -> tuple[dict[str, Texts], Facts | None]:
    """System -> its texts; with them the findings where the source is a run."""
    if not source.endswith(_SUFFIXES):
        return _of_run(source, storage)
    name = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    systems: dict[str, Texts] = defaultdict(dict)
    for row in _rows(source, ("key", "text"), storage):
        system = str(row.get("system") or name)
        _add(systems[system], row["key"], str(row["text"] or ""), f"{source}, {system}")
    return dict(systems), None


def _of_run(source: str, storage: StorageConfig) -> tuple[dict[str, Texts], Facts]:
    """The reports of a run and the findings that they were written from."""
    output = open_output(source, storage)
    texts: Texts = {}
    facts: Facts = {}
    for row in output.iterate_rows([ID_COLUMN, "status", "flags", "findings", "report"]):
        if row["status"] != Status.OK:
            continue
        report = row["report"]
        sentences = [each["text"] for each in (*report["findings"], *report["impression"])]
        texts[row[ID_COLUMN]] = "\n".join(sentences)
        scaled = has_scale(row)
        facts[row[ID_COLUMN]] = known_facts(
            (f["label"], f["side"], f["level"], f["diameter_mm"] if scaled else None)
            for f in row["findings"]
        )
    if not texts:
        raise ConfigError(
            f"{source} holds no reports: name the output folder of `raypipe run`, or a .parquet or "
            ".csv table with the columns key and text"
        )
    return {output.uri.rsplit("/", 1)[-1]: texts}, facts


def _by_key(table: str, storage: StorageConfig) -> Texts:
    texts: Texts = {}
    for row in _rows(table, ("key", "text"), storage):
        _add(texts, row["key"], str(row["text"] or ""), table)
    return texts


def _facts(table: str, storage: StorageConfig) -> Facts:
    found: dict[str, list[FindingRow]] = defaultdict(list)
    for number, row in enumerate(_rows(table, ("key", "label"), storage)):
        listed = found[row["key"]]
        if row["label"]:
            listed.append(_finding(row, f"{table}: row {number}"))
    return {key: known_facts(listed) for key, listed in found.items()}


def _finding(row: Mapping[str, Any], where: str) -> FindingRow:
    """Label, side, level and size of a row; a value that no text could agree with is refused."""
    label, size = str(row["label"]), row.get("size_mm")
    side, level = row.get("side") or None, row.get("level") or None
    check_label(label, where)
    if side is not None and side not in SIDES:
        raise ConfigError(
            f"{where}: side {side!r} is none of {', '.join(SIDES)}; leave it out where it is not "
            "known, and write a row for each side of a finding on both"
        )
    if level is not None and not load_terminology().knows_level(level):
        raise ConfigError(
            f"{where}: level {level!r} is neither a vertebra nor one of "
            f"{', '.join(sorted(load_terminology().levels))}; leave it out where it is not known"
        )
    try:
        size_mm = None if size in (None, "") else float(size)
    except ValueError:
        size_mm = math.nan
    if size_mm is not None and not is_length(size_mm):
        raise ConfigError(
            f"{where}: size_mm {size!r} is no length in mm; write a number, or leave it out"
        )
    return label, side, level, size_mm


def _add(texts: Texts, key: str, text: str, source: str) -> None:
    if key in texts:
        raise ConfigError(f"{source}: the key {key!r} comes twice; leave one row of each report")
    texts[key] = text


def _rows(table: str, columns: Sequence[str], storage: StorageConfig) -> list[dict[str, Any]]:
    """Rows of a Parquet or CSV file that has these columns, each under the key of its report."""
    if not table.endswith(_SUFFIXES):
        raise ConfigError(f"{table}: a table of reports is a .parquet or a .csv file")
    filesystem, path = filesystem_for(table, storage)
    if not filesystem.isfile(path):
        raise ConfigError(f"{table}: there is no such file")
    try:
        content = filesystem.cat_file(path)
        read = read_parquet(content) if table.endswith(".parquet") else _csv(content)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{table}: cannot be read: {error}") from error
    missing = [name for name in columns if name not in read.column_names]
    if missing:
        raise ConfigError(
            f"{table}: the column {missing[0]!r} is missing; it holds {read.column_names}"
        )
    rows: list[dict[str, Any]] = read.to_pylist()
    for number, row in enumerate(rows):
        if row["key"] in (None, ""):
            raise ConfigError(f"{table}: row {number} has no key; name its report, or leave it out")
        row["key"] = str(row["key"])
    return rows


def _csv(content: bytes) -> pa.Table:
    """A CSV file; a key stays the text that it is, and a line may end within quotes."""
    options = pa_csv.ConvertOptions(
        column_types={name: pa.string() for name in _WORDS},
        strings_can_be_null=True,
    )
    parse = pa_csv.ParseOptions(newlines_in_values=True)
    read = pa_csv.ReadOptions(use_threads=False)  # as read_parquet, and for its reason
    return pa_csv.read_csv(
        pa.BufferReader(content), read_options=read, convert_options=options, parse_options=parse
    )


def _unused(name: str, systems: Mapping[str, Texts]) -> str:
    number, unused = 1, name
    while unused in systems:
        number += 1
        unused = f"{name} ({number})"
    return unused
