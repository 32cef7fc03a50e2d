import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import load_graph
from raypipe.knowledge.terminology import (
    article,
    hu_text,
    joined,
    load_terminology,
    sentences,
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


@pytest.mark.parametrize(
    "text",
    [
        "Pneumothorax is not seen.",
        "A pneumothorax is absent.",
        "Pneumothorax has been ruled out: no pneumothorax.",
        "There is no longer a pneumothorax.",
        "Neither effusion nor PTX.",
        "Negative for pneumothoraces.",
    ],
)
def test_negation_is_read_before_and_behind(text: str) -> None:
    stated = load_terminology().read(text)
    assert stated.labels(negated=True) == {"pneumothorax"} and stated.labels() == frozenset()
    assert stated.negates


def test_what_only_looks_like_a_negation_is_none() -> None:
    read = load_terminology().read
    for text in (
        "No change in the pulmonary nodule.",
        "Not only a pulmonary nodule.",
        "A pulmonary nodule cannot be excluded.",
    ):
        assert read(text).labels() == {"pulmonary_nodule"} and not read(text).negates, text
    stated = read("Pneumothorax is not seen, but there is a lung mass.")
    assert stated.labels() == {"lung_mass"}


@pytest.mark.parametrize(
    "words",
    ["Possible", "Probable", "Suspected", "Likely", "Cannot exclude", "Questionable", "Apparent"],
)
def test_doubt_is_read(words: str) -> None:
    read = load_terminology().read
    stated = read(f"{words} pneumothorax.")
    assert stated.mentions[0].uncertain and stated.doubts
    plain = read("There is a pneumothorax.")
    assert not plain.mentions[0].uncertain and not plain.doubts


def test_doubt_holds_for_its_clause() -> None:
    mentions = load_terminology().read("Possible pneumothorax, but a lung mass.").mentions
    assert [m.uncertain for m in mentions] == [True, False]


@pytest.mark.parametrize(
    ("text", "changes", "sizes", "prior"),
    [
        ("The lung mass is unchanged.", {"unchanged"}, (), ()),
        ("Lung mass, increased from 8 mm to 1.2 cm.", {"increased"}, (12.0,), ((8.0,),)),
        ("Lung mass, now 12 mm, previously 3 x 4 cm.", set(), (12.0,), ((30.0, 40.0),)),
        ("A new kidney stone.", {"new"}, (), ()),
        ("The pleural effusion has decreased.", {"decreased"}, (), ()),
        ("Interval resolution of the pneumonia.", {"resolved"}, (), ()),
        ("A 12 mm lung mass.", set(), (12.0,), ()),
    ],
)
def test_comparison_is_read(
    text: str, changes: set[str], sizes: tuple[float, ...], prior: tuple[tuple[float, ...], ...]
) -> None:
    stated = load_terminology().read(text)
    assert stated.changes == changes
    assert stated.sizes_mm == sizes and stated.prior_mm == prior


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("PE", "pulmonary_embolism"),
        ("SDH", "subdural_haematoma"),
        ("renal stone", "kidney_stone"),
        ("lymphadenopathy", "lymph_node_enlargement"),
        ("hydrothorax", "pleural_effusion"),
    ],
)
def test_synonyms_and_abbreviations_are_read(name: str, label: str) -> None:
    assert load_terminology().read(f"There is {name}.").labels() == {label}


def test_organs_and_counts_are_read() -> None:
    read = load_terminology().read
    assert read("A pulmonary nodule in the left kidney.").organs == {"kidney"}
    assert read("A lung mass.").organs == frozenset()
    assert read("Three pulmonary nodules, up to 7 mm.").counts == (3.0,)
    assert read("12 pulmonary nodules.").counts == (12.0,)
    assert read("A 12 mm nodule of 40 HU at L3.").counts == ()


def test_what_cannot_be_read_is_kept() -> None:
    read = load_terminology().read
    assert read("There is a lung mass, tell the patient.").unread == ("tell", "patient")
    assert read("A non-calcified lung mass.").unread == ("non-calcified",)
    assert read("There is a round lung mass on the left, measuring 12 mm.").unread == ()


def test_a_text_is_read_by_sentences() -> None:
    text = "There is a 1.2 cm lung mass. No pneumothorax.\nIMPRESSION: approx. 3 mm stone"
    assert sentences(text) == [
        "There is a 1.2 cm lung mass.",
        "No pneumothorax.",
        "IMPRESSION: approx. 3 mm stone",
    ]
    read = load_terminology().read_text(text)
    assert read[0][1].sizes_mm == (12.0,)
    assert read[1][1].labels(negated=True) == {"pneumothorax"}


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


@pytest.mark.parametrize(
    ("text", "measures"),
    [
        ("3 x 4 cm", ((30.0, 40.0),)),
        ("3 cm x 4 cm", ((30.0, 40.0),)),
        ("3 mm by 4 mm", ((3.0, 4.0),)),
        ("12 x 30 x 8 mm", ((12.0, 30.0, 8.0),)),
        ("a 12-millimetre and a 2 centimeter", ((12.0,), (20.0,))),
    ],
)
def test_every_number_of_a_size_is_read(text: str, measures: tuple[tuple[float, ...], ...]) -> None:
    assert load_terminology().read(text).measures_mm == measures


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
            words = terminology.adjective(name, value)
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
    with pytest.raises(ConfigError, match="language's file"):
        load_terminology().term("ignore_previous_instructions")


@pytest.mark.parametrize(
    ("language", "text", "counts"),
    [
        ("en", "There are 1,024 slices.", (1024.0,)),
        ("en", "A renal cyst of 12,5 mm.", (12.5,)),
        ("de", "1.024 Schichten, am 12.5 gemessen", (1024.0, 12.5)),
        ("en", "1" * 400, (1e9,)),
    ],
)
def test_numbers_with_another_sign_are_read(
    language: str, text: str, counts: tuple[float, ...]
) -> None:
    assert load_terminology(language).read(text).counts == counts


def test_letters_of_other_alphabets_are_read_as_their_twins() -> None:
    read = load_terminology().read
    assert read("PULMONARY EMBOL\u0130SM").labels() == {"pulmonary_embolism"}
    assert read("L\u0131ver cyst, \u017fpiculated").attributes == {"margin": {"spiculated"}}


@pytest.mark.parametrize("minus", ["-", "\u2212", "\u2013", "- ", "\u2013 "])
def test_every_minus_is_read(minus: str) -> None:
    assert load_terminology().read(f"a mean attenuation of {minus}35 HU").hu == (-35.0,)


def test_the_dash_of_a_range_is_no_minus() -> None:
    read = load_terminology().read
    assert read("10-35 HU").hu == read("10 - 35 HU").hu == (35.0,)


@pytest.mark.parametrize("sign", ["<", ">", "~", "\u2265", "\u00b1", "*"])
def test_signs_are_not_passed_over(sign: str) -> None:
    assert load_terminology().read(f"measuring {sign}12 mm").unread == (sign,)


def test_marks_of_emphasis_hide_no_word() -> None:
    stated = load_terminology().read("There is _no_ lung mass.")
    assert stated.negates and stated.labels(negated=True) == {"lung_mass"}


@pytest.mark.parametrize(
    "text",
    [
        "A lung mass cannot be ruled out.",
        "Can not exclude a lung mass.",
        "A lung mass can not be excluded.",
        "A lung mass is not ruled out.",
    ],
)
def test_what_cannot_be_excluded_is_in_doubt(text: str) -> None:
    stated = load_terminology().read(text)
    assert stated.labels() == {"lung_mass"} and stated.doubts and stated.mentions[0].uncertain


@pytest.mark.parametrize(
    "text",
    [
        "There is a lung mass that is not calcified.",
        "Lung mass, not enlarged since.",
        "The lung mass has not resolved.",
        "The lung mass has nearly resolved.",
    ],
)
def test_a_denied_property_denies_no_finding(text: str) -> None:
    assert load_terminology().read(text).labels() == {"lung_mass"}


@pytest.mark.parametrize(
    "text",
    [
        "Pneumothorax: None.",
        "Pneumothorax: not seen",
        "Pneumothorax - no.",
        "The pneumothorax is not.",
        "The pneumothorax is not evident.",
        "The pneumothorax has resolved.",
        "Interval resolution of the pneumothorax.",
    ],
)
def test_what_is_not_there_is_denied(text: str) -> None:
    assert load_terminology().read(text).labels(negated=True) == {"pneumothorax"}


def test_the_past_tense_is_no_earlier_study() -> None:
    stated = load_terminology().read("There was a 12 mm lung mass.")
    assert stated.sizes_mm == (12.0,) and stated.prior_mm == ()
    stated = load_terminology().read("Lung masses ranging from 31 mm to 40 mm.")
    assert stated.sizes_mm == (31.0, 40.0) and stated.prior_mm == ()
    assert load_terminology().read("It was 8 mm.").prior_mm == ((8.0,),)


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("ureteric calculi", "ureteral_stone"),
        ("vesical calculi", "bladder_stone"),
        ("Bullae", "pulmonary_cyst"),
        ("biliary dilation", "bile_duct_dilatation"),
    ],
)
def test_plurals_and_american_names_are_read(name: str, label: str) -> None:
    assert load_terminology().read(name).labels() == {label}


def test_plurals_are_told_from_singulars() -> None:
    read = load_terminology().read
    several = [
        "Pulmonary nodules.",
        "Coin lesions.",
        "Renal calculi.",
        "Brain hemorrhages.",
    ]
    single = ["A pulmonary nodule.", "Emphysema.", "Pulmonary embolism.", "SDH."]
    assert [read(text).mentions[0].several for text in several] == [True] * 4
    assert [read(text).mentions[0].several for text in single] == [False] * 4
    german = load_terminology("de").read
    assert german("Lungenrundherde.").mentions[0].several
    assert not german("Nebennierenknoten.").mentions[0].several


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("No pleural effusion. 12 mm lung nodule.", ["No pleural effusion.", "12 mm lung nodule."]),
        ("no effusion . there is a mass .", ["no effusion .", "there is a mass ."]),
        ("no effusion. e.g. a mass", ["no effusion.", "e.g. a mass"]),
        ("Nodule, max. 12 mm.", ["Nodule, max. 12 mm."]),
        (
            "Heart size is normal and there is no pneumothorax or\npleural effusion.\nLung mass.",
            [
                "Heart size is normal and there is no pneumothorax or pleural effusion.",
                "Lung mass.",
            ],
        ),
        ("Findings:\nno effusion\nlung mass", ["Findings:", "no effusion", "lung mass"]),
    ],
)
def test_sentences_end_where_they_end(text: str, parts: list[str]) -> None:
    assert sentences(text) == parts
