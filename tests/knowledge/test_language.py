from pathlib import Path

import pytest
import yaml

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.language import load_language
from raypipe.knowledge.terminology import Terminology, load_terminology

LANGUAGES = ("en", "de")


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_detected_finding_has_words_that_read_back(code: str) -> None:
    terminology = load_terminology(code)
    for label in load_graph().detected:
        term = terminology.term(label)
        for name in (*term.written, *term.plurals):
            stated = terminology.read(f"{name}.")
            assert stated.labels() == {label} and stated.unread == (), name


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_property_has_words_that_read_back(code: str) -> None:
    terminology = load_terminology(code)
    for name, attribute in load_graph().attributes.items():
        for value in attribute.values:
            words = terminology.adjective(name, value)
            assert words is not None, f"{name}={value}"
            assert terminology.read(words).attributes == {name: {value}}


@pytest.mark.parametrize("code", LANGUAGES)
def test_numbers_read_back_in_the_form_of_the_language(code: str) -> None:
    terminology = load_terminology(code)
    for size_mm in (0.7, 4.6, 9.94, 12.0, 148.0):
        text = terminology.size_text(size_mm)
        assert terminology.size_text(terminology.read(text).sizes_mm[0]) == text
    for hu in (-45.0, 0.0, 230.0):
        assert terminology.read(terminology.hu_text(hu)).hu == (hu,)
    assert load_terminology("de").size_text(4.6) == "4,6 mm"
    assert load_terminology("de").hu_text(35.0) == "35 HE"


def test_german_is_read() -> None:
    read = load_terminology("de").read
    stated = read("V. a. Hirninfarkt links, von 8 mm auf 1,2 cm größenprogredient.")
    assert stated.labels() == {"brain_infarct"} and stated.doubts
    assert stated.sides == {"left"} and stated.sizes_mm == (12.0,) and stated.prior_mm == ((8.0,),)
    assert stated.changes == {"increased"}
    denied = read("Kein Pleuraerguss, aber ein Lungenrundherd im Oberfeld rechts.")
    assert denied.labels(negated=True) == {"pleural_effusion"}
    assert denied.labels() == {"pulmonary_nodule"}
    assert denied.levels == {"upper third"} and denied.sides == {"right"}
    assert read("Pleuraergüsse beidseits.").sides == {"left", "right"}
    assert read("Nierenstein ist nicht nachweisbar.").labels(negated=True) == {"kidney_stone"}


def test_a_file_of_ones_own_is_a_language(tmp_path: Path) -> None:
    raw = load_language("de").model_dump(mode="json", exclude_defaults=True)
    raw["names"]["gallstone"] = {"written": ["Cholelith"], "plurals": ["Cholelithen"]}
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    terminology = load_terminology(str(file))
    assert terminology.read("Cholelith.").labels() == {"gallstone"}


def test_a_wrong_language_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="de, en"):
        load_language("fr")
    with pytest.raises(ConfigError, match="de, en"):
        load_language(str(tmp_path / "none.yaml"))
    raw = load_language("de").model_dump(mode="json", exclude_defaults=True)
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(raw | {"wordz": {}}), encoding="utf-8")
    with pytest.raises(ConfigError, match="wordz"):
        load_language(str(file))
    language = load_language("de")
    strange = language.model_copy(update={"names": {"no_such": language.names["gallstone"]}})
    with pytest.raises(ConfigError, match="no_such"):
        Terminology.of_graph(load_graph(), strange)


def test_a_finding_without_words_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="terminology de: no finding 'hernia'"):
        load_terminology("de").term("hernia")


def test_what_german_reports_say_is_read() -> None:
    read = load_terminology("de").read
    for text in ("Lungenrundherd von 12 mm.", "Lungenrundherd mit einem Durchmesser von 12 mm."):
        assert read(text).sizes_mm == (12.0,) and read(text).prior_mm == (), text
    for text in ("Beidseitige Pleuraergüsse.", "Pleuraerguss beidseitig."):
        assert read(text).sides == {"left", "right"}, text
    assert read("Nierenzyste li.").sides == {"left"}
    assert read("Nierenzyste re.").sides == {"right"}
    for text in ("Kleiner Pleuraerguss.", "Größerer Pleuraerguss."):
        assert read(text).changes == frozenset(), text
    assert read("Der Pleuraerguss ist kleiner geworden.").changes == {"decreased"}


@pytest.mark.parametrize(
    "text",
    [
        "Ein Hirninfarkt kann nicht ausgeschlossen werden.",
        "Ein Hirninfarkt ist nicht sicher auszuschließen.",
        "Nicht auszuschließender Hirninfarkt.",
    ],
)
def test_what_is_not_excluded_in_german_is_in_doubt(text: str) -> None:
    stated = load_terminology("de").read(text)
    assert stated.labels() == {"brain_infarct"} and stated.doubts


@pytest.mark.parametrize(
    "text",
    [
        "Pleuraerguss: keiner.",
        "Der Pleuraerguss ist nicht mehr nachweisbar.",
        "Pleuraerguss vollständig rückgebildet.",
    ],
)
def test_what_is_not_there_in_german_is_denied(text: str) -> None:
    assert load_terminology("de").read(text).labels(negated=True) == {"pleural_effusion"}


def test_an_ordinal_number_ends_no_german_sentence() -> None:
    ((_, stated),) = load_terminology("de").read_text("Osteolyse der 8. Rippe links.")
    assert stated.labels() == {"osteolytic_lesion"} and stated.sides == {"left"}
    assert len(load_terminology("de").read_text("Leberzyste 8. Kein Pleuraerguss.")) == 2


@pytest.mark.parametrize(
    ("part", "change", "match"),
    [
        (
            "patterns",
            {"finding": ["{nam}{place}{size}{properties}{hu} {cite}."]},
            "finding: '{nam}",
        ),
        ("patterns", {"finding": ["{name}{place}{size}{properties}{hu}."]}, "finding: "),
        ("patterns", {"single": ["{name}{place}{size} {cite"]}, "single: "),
        ("patterns", {"group": []}, "group"),
        ("technique", {"spacing": "{cm}"}, "spacing: '{cm}'"),
        ("technique", {"repairs": {"moon": "Mond."}}, "no flag 'moon'"),
        ("reading", {"doubt": ["(open"]}, r"doubt: '\(open' is no pattern"),
        ("reading", {"units": {"mm": ["mm"]}}, "words for mm and for cm"),
        ("sides", None, "left, right and midline"),
    ],
)
def test_a_language_is_valid_once_read(
    part: str, change: dict[str, object] | None, match: str, tmp_path: Path
) -> None:
    raw = load_language("de").model_dump(mode="json", exclude_defaults=True)
    if change is None:
        del raw[part]["midline"]
    else:
        raw[part].update(change)
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    with pytest.raises(ConfigError, match=match):
        load_language(str(file))


def test_terms_in_another_encoding_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_bytes("name: Dänisch".encode("latin-1"))
    with pytest.raises(ConfigError, match="not in UTF-8"):
        load_language(str(file))
