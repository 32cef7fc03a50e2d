"""What a report model learns from: wordings, terms, tables, rows."""

import csv
import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import load_terminology
from raypipe.report.config import ReportConfig
from raypipe.report.phrase import first
from raypipe.report.plan import ReportPlan, make_plan
from raypipe.report.request import build_request
from raypipe.report.sections import report_phrase
from raypipe.report.verify import verify
from raypipe.train.reporter_config import PairsSource, SyntheticSource
from raypipe.train.reporter_findings import random_findings
from raypipe.train.reporter_sources import read_pairs, synthetic
from raypipe.train.reporter_style import best_text, texts
from raypipe.train.reporter_terms import term_spans

SOURCE = SyntheticSource(most_findings=8, seed=5)


def plans(language: str, count: int) -> list[ReportPlan]:
    terminology, graph = load_terminology(language), load_graph()
    config = ReportConfig(language=language)
    made: list[ReportPlan] = []
    rng = random.Random(7)
    while len(made) < count:
        findings, context = random_findings(rng, graph, 8)
        if all(finding.label in terminology.terms for finding in findings):
            made.append(make_plan(findings, context, terminology, graph, config))
    return made


@pytest.mark.parametrize("language", ["en", "de"])
def test_what_is_learnt_is_admitted_by_the_grammar_and_true(language: str) -> None:
    config = ReportConfig(language=language)
    for plan in plans(language, 25):
        text = best_text(plan)
        grammar = Grammar.from_ebnf(build_request(plan, config).grammar)
        assert _is_grammar_accept_string(grammar, text)
        assert not _is_grammar_accept_string(grammar, text + ".")
        verified = verify(plan, text)
        assert not verified.replaced and not verified.open


def test_wordings_vary_within_a_report_and_the_same_findings_are_told_the_same() -> None:
    told = plans("en", 60)
    many = [plan for plan in told if len(plan.told) > 4]
    for plan in many:
        sentences = best_text(plan).splitlines()[1 : len(plan.told) + 1]
        openings = [sentence.split()[0] for sentence in sentences]
        assert all(a != b for a, b in pairwise(openings))
        assert best_text(plan) == best_text(plan)
    assert len(many) > 3
    fixed = sum(best_text(plan) == first(report_phrase(plan)) for plan in told)
    assert fixed < len(told) / 4  # it is not the fixed wording that is learnt


def test_a_phrase_gives_all_its_texts_once() -> None:
    plan = next(plan for plan in plans("en", 20) if len(plan.told) == 1)
    found = list(texts(report_phrase(plan)))
    assert found[0] == first(report_phrase(plan))
    assert best_text(plan) in found


def test_the_attenuation_is_told_where_it_tells_something() -> None:
    for plan in plans("en", 60):
        for fact, sentence in zip(plan.told, best_text(plan).splitlines()[1:], strict=False):
            if fact.hu is not None:
                assert (" HU" in sentence) == (fact.organ_key != "lung")


def test_each_conversation_follows_from_seed_part_and_number() -> None:
    train, again = synthetic(SOURCE, "en", 0, 6), synthetic(SOURCE, "en", 0, 4)
    assert [c.text for c in train[:4]] == [c.text for c in again]
    held_out = synthetic(SOURCE, "en", 1, 6)
    assert not {c.text for c in train} & {c.text for c in held_out}
    assert train[0].messages[0].content == load_terminology().language.prompt.system


def test_terms_are_findings_sides_levels_sizes_and_negation() -> None:
    text = (
        "FINDINGS:\nThere is a 12 mm spiculated pulmonary nodule in the upper third of the right "
        "lung [F1].\nNo pleural effusion was detected."
    )
    spans = term_spans(text, load_terminology())
    assert [text[a:b] for a, b in spans] == [
        "12 mm",
        "pulmonary nodule",
        "upper third",
        "right",
        "No",
        "pleural effusion",
    ]
    german = "Lungenrundherd links, 6,9 mm groß [F1]."
    spans = term_spans(german, load_terminology("de"))
    assert [german[a:b] for a, b in spans] == ["Lungenrundherd", "links", "6,9 mm"]


def test_pairs_are_read_alike_from_all_kinds_of_tables(tmp_path: Path) -> None:
    table = pa.table({"tags": ["Cardiomegaly", "normal"], "report": ["Large heart.", "Normal."]})
    pq.write_table(table, tmp_path / "a.parquet")
    pyarrow.csv.write_csv(table, tmp_path / "a.csv")
    lines = "".join(f"{json.dumps(row)}\n" for row in table.to_pylist())
    (tmp_path / "a.jsonl").write_text(lines)
    for ending in ("parquet", "csv", "jsonl"):
        path = str(tmp_path / f"a.{ending}")
        source = PairsSource(
            kind="pairs", train=path, validation=path,
            prompt_column="tags", text_column="report", system="Write.",
        )  # fmt: skip
        made = read_pairs(path, source, "en")
        assert [c.text for c in made] == ["Large heart.", "Normal."]
        assert [m.content for m in made[0].messages] == ["Write.", "Cardiomegaly"]


@pytest.mark.parametrize(
    ("name", "columns", "match"),
    [
        ("a.parquet", {"prompt": ["x"], "report": ["y"]}, "no column 'text'.*text_column"),
        ("a.parquet", {"prompt": ["x", None], "text": ["y", "z"]}, "'prompt': row 2 holds no text"),
        ("a.xlsx", {"prompt": ["x"], "text": ["y"]}, r"must end with one of \.parquet"),
        ("b.parquet", {"prompt": ["x"], "text": ["y"]}, "does not exist"),
    ],
)
def test_a_wrong_table_is_told_with_its_remedy(
    name: str, columns: dict[str, list[str | None]], match: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    path = str(tmp_path / name)
    with pytest.raises(ConfigError, match=match):
        read_pairs(path, PairsSource(kind="pairs", train=path, validation=path), "en")


def _texts(path: Path) -> list[tuple[str, str]]:
    source = PairsSource(kind="pairs", train=str(path), validation=str(path))
    return [(c.messages[1].content, c.text) for c in read_pairs(str(path), source, "en")]


def test_cells_stay_the_text_that_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,text\n007,Normal.\n0,NA\n")
    assert _texts(tmp_path / "a.csv") == [("007", "Normal."), ("0", "NA")]
    dated = {"prompt": "2020-01-01", "text": "2021-02-03", "age": 7}
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(dated)}\n{json.dumps(dated | {'age': 'x'})}\n")
    assert _texts(tmp_path / "a.jsonl") == [("2020-01-01", "2021-02-03")] * 2


def test_reports_of_many_lines_are_read_from_a_csv_of_several_blocks(tmp_path: Path) -> None:
    rows = [
        (f"case {i},\nof two lines", f"FINDINGS:\nNodule {i}." + "\nx, y" * 60) for i in range(4000)
    ]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("prompt", "text"), *rows])
    assert _texts(tmp_path / "a.csv") == rows


def test_a_damaged_table_is_told_without_what_it_holds(tmp_path: Path) -> None:
    for name, content in {
        "a.csv": "prompt,text\nx,Größe\n".encode("latin-1"),
        "b.csv": b"prompt,text\nx,Normal.,Mr Smith\n",
        "a.jsonl": b'{"prompt": "x", "text": "Mr Smith\n',
        "b.jsonl": b'["Mr Smith"]\n',
        "a.parquet": b"Mr Smith",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ConfigError, match=f"{name} is no valid") as told:
            _texts(tmp_path / name)
        assert "Smith" not in str(told.value)


def test_random_findings_lie_in_the_ranges_of_the_graph() -> None:
    graph, rng, labels = load_graph(), random.Random(1), Counter[str]()
    for _ in range(300):
        findings, _context = random_findings(rng, graph, 8)
        assert [f.finding_id for f in findings] == [f"F{i + 1}" for i in range(len(findings))]
        for finding in findings:
            node = graph.finding(finding.label)
            labels[finding.label] += 1
            if node.size_range_mm:
                assert node.size_range_mm[0] <= finding.diameter_mm <= node.size_range_mm[1]
            if node.hu_range and finding.mean_hu is not None:
                assert node.hu_range[0] <= finding.mean_hu <= node.hu_range[1]
            assert all(graph.allows(finding.label, *pair) for pair in finding.attributes.items())
    assert set(graph.detected) <= set(labels)
    assert len(labels) > 30  # others too, so that every term of the graph is met
