"""The Open-I benchmark on a made-up table: parts, reader, library, the whole without a model."""

import csv
from pathlib import Path
from typing import Any

import pytest
from xgrammar import Grammar
from xgrammar.testing import _is_grammar_accept_string

from raypipe.bench import openi_write
from raypipe.bench.openi import (
    ADMITTED,
    LIBRARY,
    LIBRARY_BLIND,
    RADIOLOGIST,
    TEMPLATE,
    OpeniResult,
    bench_openi,
)
from raypipe.bench.openi_data import Study, read_studies, split_sentences
from raypipe.bench.openi_library import Library, LibraryConfig
from raypipe.bench.openi_measures import ct_claims
from raypipe.bench.openi_reader import expanded, load_reader, qualifiers_fit
from raypipe.bench.openi_training import ADAPTER, OpeniConfig, training_config
from raypipe.bench.openi_write import ADAPTED_HELD, BASE, BASE_HELD, requests_of
from raypipe.errors import ConfigError
from raypipe.report.config import ReportConfig
from raypipe.report.engine import EchoEngine, GenerationRequest
from tests.bench.openi_table import COLUMNS, write_table

WITHOUT_TRAINING = OpeniConfig(train=False, candidates=4, bootstrap=20)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_table(tmp_path_factory.mktemp("openi") / "data")


@pytest.fixture(scope="module")
def studies(data: Path) -> list[Study]:
    return read_studies(data)


@pytest.fixture(scope="module")
def library(studies: list[Study]) -> Library:
    train = [study for study in studies if study.part == "train"]
    return Library(train, load_reader(), LibraryConfig())


def study(*tags: str, **header: str) -> Study:
    known = {"image": "two views of the chest", "comparison": "", "indication": "cough"}
    return Study(uid="new", tags=tags, header=known | header, reference="")


def test_parts_by_uid_are_fixed_and_share_none(studies: list[Study], data: Path) -> None:
    parts = {s.uid: s.part for s in studies}
    assert len(parts) == len(studies) == 120
    assert parts == {s.uid: s.part for s in read_studies(data)}
    assert {name: list(parts.values()).count(name) for name in ("train", "test")}["train"] > 60
    assert set(parts.values()) == {"train", "validation", "test"}


def test_sentences_with_what_was_removed_are_not_learnt(studies: list[Study]) -> None:
    removed = [s for s in studies if "XXXX" in s.reference]
    assert removed and not any("xxxx" in s.text.lower() for s in removed)
    assert split_sentences("1. Normal heart. 2. lungs clear, 1.5 cm. No change") == (
        ["Normal heart", "lungs clear, 1.5 cm", "No change"]
    )


def test_prompts_hold_no_text_of_the_report(studies: list[Study]) -> None:
    one = next(s for s in studies if "cardiomegaly/mild" in s.tags)
    assert one.prompt(header=False) == f"index: {'; '.join(one.tags)}"
    assert one.prompt(header=True).startswith("image: ")
    assert "enlarged" not in one.prompt(header=True)


def test_what_is_wrong_with_the_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no reports\.csv"):
        read_studies(tmp_path)
    with (tmp_path / "reports.csv").open("w", newline="") as stream:
        csv.writer(stream).writerow([name for name in COLUMNS if name != "impression"])
    with pytest.raises(ConfigError, match="no column 'impression'"):
        read_studies(tmp_path)


@pytest.mark.parametrize(
    ("sentence", "claimed", "denied"),
    [
        ("The heart is mildly enlarged.", {"cardiomegaly"}, set()),
        ("Heart size is normal.", set(), {"cardiomegaly"}),
        ("No pneumothorax or pleural effusion.", set(), {"pneumothorax", "pleural_effusion"}),
        ("The lungs are clear of focal airspace disease.", set(), {"consolidation"}),
        ("Surgical clips in the right upper quadrant.", {"device"}, set()),
        ("No acute cardiopulmonary abnormality.", set(), set()),
    ],
)
def test_reader(sentence: str, claimed: set[str], denied: set[str]) -> None:
    read = load_reader().read(sentence)
    assert {label for each in read.claimed for label in each} == claimed
    assert denied <= read.denied


def test_a_name_that_several_findings_share_needs_one_of_them() -> None:
    reader = load_reader()
    text = "Calcified nodes."
    assert reader.tally(text, ["calcinosis/lung/hilum/lymph nodes"])[:2] == (1, 0)
    assert reader.tally(text, ["cardiomegaly"])[:2] == (1, 1)
    assert reader.tally("Clear lungs.", ["cardiomegaly"]) == (0, 0, 1, 1)


def test_sides_places_and_grades_have_to_be_those_of_a_term() -> None:
    assert qualifiers_fit("Mild left basilar atelectasis.", ["atelectasis/base/left/mild"])
    assert not qualifiers_fit("Mild right basilar atelectasis.", ["atelectasis/base/left/mild"])
    assert not qualifiers_fit("Large effusion.", ["pleural effusion/small"])
    assert expanded("{a|b} {|c }d") == ["a d", "a c d", "b d", "b c d"]


def test_library_texts_are_true_to_every_set_of_terms(
    studies: list[Study], library: Library
) -> None:
    reader = load_reader()
    for one in studies:
        if one.part == "train":
            continue
        for text in (*library.texts(one, 4), library.template(one)):
            claimed, invented, named, omitted = reader.tally(text, one.tags)
            assert (invented, omitted) == (0, 0), (one.tags, text)
            assert claimed >= min(named, 1)
            assert not ct_claims(text, one.tags, reader)[1], (one.tags, text)


def test_library_writes_as_the_house_of_the_header_does(library: Library) -> None:
    first = library.texts(study("normal"), 1)[0]
    assert "Lungs are clear bilaterally." in first
    other = library.texts(study("normal", image="chest pa and lateral", comparison="none."), 1)[0]
    assert "The lungs are clear." in other


def test_a_sentence_with_words_of_other_findings_is_not_admitted(library: Library) -> None:
    labels = load_reader().labels_of(["cardiomegaly/mild"])
    tags = ["cardiomegaly/mild"]
    assert library.admits("The heart is mildly enlarged.", tags, labels)
    assert not library.admits("The heart is normal in size.", tags, labels)  # denies it
    assert not library.admits("The tip in the vena cava.", tags, labels)  # words of a catheter
    assert not library.admits("Small left pleural effusion.", tags, labels)


def test_the_ct_reader_finds_what_was_planted() -> None:
    reader = load_reader()
    assert ct_claims("Cardiomegaly. No pneumothorax.", ["cardiomegaly/mild"], reader) == (1, 0)
    assert ct_claims("Pneumothorax.", ["cardiomegaly/mild"], reader) == (1, 1)
    assert ct_claims("Pneumonia.", ["opacity/lung/base"], reader) == (1, 0)  # a kind of opacity


def test_grammars_accept_the_library_and_nothing_else(
    studies: list[Study], library: Library
) -> None:
    test = [s for s in studies if s.part == "test"][:4]
    texts = [library.texts(s, 3) for s in test]
    config = OpeniConfig()
    for request, admitted in zip(
        requests_of(ADAPTED_HELD, (test, texts), config), texts, strict=True
    ):
        grammar = Grammar.from_ebnf(str(request.grammar))
        assert all(_is_grammar_accept_string(grammar, text) for text in admitted)
        assert not _is_grammar_accept_string(grammar, f"{admitted[0]} Pneumothorax.")
        assert request.max_tokens > max(map(len, admitted)) and request.adapter == ADAPTER
    free = requests_of(BASE, (test, texts), config)
    assert {(r.grammar, r.adapter, r.max_tokens) for r in free} == {(None, None, 96)}


def invented(request: GenerationRequest) -> str:
    """What a bad model would write; a held one cannot."""
    return request.example if request.grammar else "Pneumothorax. Widespread metastases."


def test_the_whole_without_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EchoEngine(invented)
    monkeypatch.setattr(openi_write, "start_engine", lambda config: engine)
    result = bench_openi(data, tmp_path, WITHOUT_TRAINING, ReportConfig())
    systems = (TEMPLATE, LIBRARY_BLIND, LIBRARY, BASE, BASE_HELD)
    assert result.evaluation.systems == systems
    assert set(result.against_tags) == {*systems, ADMITTED, RADIOLOGIST}
    assert result.against_tags[BASE].invented.value == 1.0
    assert result.against_tags[BASE_HELD].invented.value == 0.0
    every, held_rate = (result.against_tags[s].invented for s in (ADMITTED, BASE_HELD))
    assert every.value == 0.0 and every.below > held_rate.below  # more claims, a closer bound
    assert every.high == pytest.approx(1 - 0.05 ** (1 / every.below))
    held, template = (result.evaluation.measure(s, "bleu_4").value for s in (BASE_HELD, TEMPLATE))
    assert held is not None and template is not None and held > template
    assert OpeniResult.model_validate_json((tmp_path / "openi.json").read_text()) == result
    assert (tmp_path / "reports_scores.png").is_file()

    def again(config: Any) -> None:
        raise AssertionError("what is there is not written again")

    monkeypatch.setattr(openi_write, "start_engine", again)
    assert bench_openi(data, tmp_path, WITHOUT_TRAINING, ReportConfig()) == result
    other = WITHOUT_TRAINING.model_copy(update={"candidates": 2})
    with pytest.raises(ConfigError, match="results of other settings"):
        bench_openi(data, tmp_path, other, ReportConfig())
    with pytest.raises(ConfigError, match="holds texts of vllm smollm2, not of vllm other"):
        bench_openi(data, tmp_path, WITHOUT_TRAINING, ReportConfig(language_model="other"))


def test_training_is_told_the_pairs_and_enough_steps(tmp_path: Path) -> None:
    config = OpeniConfig(epochs=2.0)
    told = training_config(tmp_path, config, ReportConfig(), tokens=51_200)
    assert told.steps == 100 and told.source.kind == "pairs"
    assert told.name == ADAPTER and told.term_weight == 1.0
