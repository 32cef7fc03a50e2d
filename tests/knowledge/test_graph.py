import copy
from importlib import resources
from pathlib import Path

import pytest
import yaml

from raypipe.errors import ConfigError
from raypipe.knowledge.graph import REGIONS, KnowledgeGraph, RelationKind, load_graph
from raypipe.phantom import KINDS


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return load_graph()


def test_graph_covers_chest_abdomen_and_head(graph: KnowledgeGraph) -> None:
    assert len(graph.findings) >= 60
    for region in REGIONS:
        assert sum(region in node.regions for node in graph.findings.values()) >= 15


def test_names_and_synonyms_are_unique(graph: KnowledgeGraph) -> None:
    names = [n.casefold() for node in graph.findings.values() for n in {node.name, node.plural}]
    names += [s.casefold() for node in graph.findings.values() for s in node.synonyms]
    assert sorted(n for n in set(names) if names.count(n) > 1) == []


def test_the_phantoms_lesions_are_what_the_graph_allows(graph: KnowledgeGraph) -> None:
    assert set(KINDS) == set(graph.detected)
    for label, kind in KINDS.items():
        node = graph.finding(label)
        for density in kind.densities:
            assert graph.allows(label, "density", density), (label, density)
        for margin in kind.margins:
            assert graph.allows(label, "margin", margin), (label, margin)
        if kind.hu is not None and node.hu_range is not None:
            assert node.hu_range[0] <= kind.hu[0] and kind.hu[1] <= node.hu_range[1], label
        assert node.size_range_mm is not None
        assert node.size_range_mm[0] <= kind.diameter_mm[0], label
        assert kind.diameter_mm[1] <= node.size_range_mm[1], label


def test_relations_join_nodes_that_exist(graph: KnowledgeGraph) -> None:
    nodes = {f"finding:{k}" for k in graph.findings} | {f"organ:{k}" for k in graph.anatomy}
    nodes |= {f"region:{r}" for r in REGIONS}
    nodes |= {f"{a}={v}" for a, values in graph.attributes.items() for v in values.values}
    relations = graph.relations()
    assert {end for r in relations for end in (r.source, r.target)} <= nodes
    assert {r.kind for r in relations} == set(RelationKind)
    assert len(set(relations)) == len(relations)


def test_ancestors_sides_and_allowed_values(graph: KnowledgeGraph) -> None:
    assert graph.ancestors("subdural_haematoma") == ("intracranial_bleeding",)
    assert graph.ancestors("adrenal_nodule") == ()
    assert graph.is_sided("renal_cyst") and not graph.is_sided("liver_cyst")
    assert graph.allows("renal_cyst", "density", "fluid")
    assert not graph.allows("renal_cyst", "density", "calcified")
    with pytest.raises(ConfigError, match="no finding 'dragon'"):
        graph.finding("dragon")


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("liver_cyst", {"occurs_in": ["moon"]}, "finding liver_cyst: occurs_in names no organ"),
        ("liver_cyst", {"occurs_in": ["lung"]}, "lung lies in none of"),
        ("liver_cyst", {"parent": "dragon"}, "finding liver_cyst: parent names no finding"),
        ("liver_cyst", {"mimics": ["dragon"]}, "finding liver_cyst: mimics names no finding"),
        ("liver_cyst", {"attributes": {"smell": ["bad"]}}, "no attribute 'smell'"),
        ("liver_cyst", {"attributes": {"shape": ["fractal"]}}, "shape cannot be"),
        ("liver_cyst", {"hu_range": [20, -10]}, "hu_range: the lower bound"),
        ("liver_cyst", {"hu_range": [-500, 20]}, "liver_cyst: hu_range"),
        ("lymphoma", {"parent": "lymphoma"}, "run in a circle"),
        ("liver_cyst", {"colour": "red"}, "Extra inputs"),
    ],
)
def test_errors_name_the_node(
    tmp_path: Path, key: str, change: dict[str, object], message: str
) -> None:
    raw = yaml.safe_load(
        (resources.files("raypipe.knowledge") / "graph.yaml").read_text(encoding="utf-8")
    )
    broken = copy.deepcopy(raw)
    broken["findings"][key].update(change)
    path = tmp_path / "graph.yaml"
    path.write_text(yaml.safe_dump(broken), encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_graph(path)


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_graph(tmp_path / "nothing.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"findings: {liver_cyst: }", "finding liver_cyst: give its fields"),
        ("findings: {k\u00e4se: {}}".encode("latin-1"), "not in UTF-8"),
    ],
)
def test_a_file_of_another_form_is_a_config_error(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "graph.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_graph(path)


def test_codes_say_no_more_than_the_finding(graph: KnowledgeGraph) -> None:
    assert graph.anatomy["pulmonary_artery"].codes == {"RADLEX": "RID974"}
    # sets for a cavitating mass, the small bowel, the thoracic aorta, an acute fracture
    narrower = {"RDES263", "RDES178", "RDES252", "RDES233"}
    assert not narrower & {code for node in graph.findings.values() for code in node.codes.values()}
