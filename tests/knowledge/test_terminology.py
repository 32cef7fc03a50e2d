import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import (
    adjective,
    article,
    hu_text,
    joined,
    load_terminology,
    size_text,
)


def test_every_name_of_the_graph_reads_back_as_a_finding() -> None:
    terminology = load_terminology()
    for label, node in load_graph().findings.items():
        for name in (node.name, node.plural):
            assert terminology.read(f"There is {name}.").labels() == {label}
        for synonym in node.synonyms:
            assert len(terminology.read(f"There is {synonym}.").labels()) == 1, synonym


def test_every_written_name_reads_back_as_its_own_finding() -> None:
    terminology = load_terminology()
    for label, term in terminology.terms.items():
        for name in (*term.written, *term.plurals):
            assert terminology.read(name).labels() == {label}, name


def test_both_spellings_and_cases_are_read() -> None:
    read = load_terminology().read
    for text in ("Subdural haematoma", "SUBDURAL HEMATOMA", "subdural haematomas", "SDH"):
        assert read(text).labels() == {"subdural_haematoma"}, text
    assert read("pulmonary edema").labels() == {"pulmonary_oedema"}
    assert read("ground glass opacity").labels() == {"ground_glass_opacity"}


def test_a_name_inside_a_longer_name_is_not_a_finding_of_its_own() -> None:
    read = load_terminology().read
    assert read("Rib fracture on the left.").labels() == {"rib_fracture"}
    assert read("A lungmass is no word.").labels() == frozenset()
    # words inside names state no attribute and no side
    stated = read("A midline shift and a ground-glass opacity are seen.")
    assert stated.sides == frozenset() and stated.attributes == {}


def test_negation_holds_for_its_clause_only() -> None:
    read = load_terminology().read
    stated = read("No pleural effusion or lung mass was detected.")
    assert stated.labels(negated=True) == {"pleural_effusion", "lung_mass"}
    assert stated.labels() == frozenset()
    stated = read("No pleural effusion, but there is a lung mass.")
    assert stated.labels(negated=True) == {"pleural_effusion"}
    assert stated.labels() == {"lung_mass"}
    assert read("Normal liver without liver cyst").labels(negated=True) == {"liver_cyst"}


def test_doubt_is_read() -> None:
    read = load_terminology().read
    assert read("Possible pneumothorax.").mentions[0].uncertain
    assert not read("There is a pneumothorax.").mentions[0].uncertain


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("measuring 12 mm", (12.0,)),
        ("a 4.6 mm nodule", (4.6,)),
        ("a 12-mm nodule", (12.0,)),
        ("1.2 cm", (12.0,)),
        ("12 x 30 x 8 mm", (30.0,)),
        ("3 \u00d7 2 cm and 5 mm", (30.0, 5.0)),
        ("F12 mm", ()),
        ("35 HU, L3, 100 slices", ()),
    ],
)
def test_sizes_are_read_in_mm(text: str, sizes: tuple[float, ...]) -> None:
    assert load_terminology().read(text).sizes_mm == sizes


def test_attenuation_is_read_with_its_sign() -> None:
    assert load_terminology().read("from -45 HU to \u221212 HU and 7 HU").hu == (-45.0, -12.0, 7.0)


def test_sides_and_levels_are_read() -> None:
    read = load_terminology().read
    assert read("in the upper third of the left lung").levels == {"upper third"}
    assert read("in the upper third of the left lung").sides == {"left"}
    assert read("bilateral effusions").sides == {"left", "right"}
    assert read("Right-sided haematoma").sides == {"right"}
    assert read("at the level of L3").levels == {"L3"}
    assert read("outright brightness").sides == frozenset()


def test_every_adjective_reads_back_as_its_value() -> None:
    terminology = load_terminology()
    for name, attribute in load_graph().attributes.items():
        for value in attribute.values:
            words = adjective(name, value)
            assert words is not None, f"{name}={value} has no words"
            assert terminology.read(f"a {words} lesion").attributes == {name: {value}}


@given(st.floats(0.05, 2500.0))
def test_a_written_size_reads_back_as_written(size_mm: float) -> None:
    text = size_text(size_mm)
    (read,) = load_terminology().read(f"measuring {text}").sizes_mm
    assert size_text(read) == text
    assert abs(read - size_mm) <= (0.5 if read >= 10 else 0.0501)


def test_numbers_are_written_as_reports_write_them() -> None:
    assert [size_text(s) for s in (4.04, 4.66, 9.96, 12.5, 30.4)] == [
        "4 mm",
        "4.7 mm",
        "10 mm",
        "12 mm",
        "30 mm",
    ]
    assert hu_text(-0.3) == "0 HU" and hu_text(-44.6) == "-45 HU"


def test_articles() -> None:
    an = ["8 mm nodule", "11 mm nodule", "18 mm mass", "80 mm mass", "oval nodule", "ill-defined"]
    a = ["12 mm nodule", "1 mm", "118 mm mass", "uterine fibroid", "lung mass", "ureteral stone"]
    assert [article(words) for words in an] == ["an"] * len(an)
    assert [article(words) for words in a] == ["a"] * len(a)


def test_lists_are_joined() -> None:
    assert [joined(x) for x in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a or b",
        "a, b or c",
    ]


def test_an_unknown_label_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="knowledge graph"):
        load_terminology().term("ignore_previous_instructions")
