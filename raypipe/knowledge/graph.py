"""The knowledge graph: findings, where they occur, what they may look like, how they relate.

In: the packaged `graph.yaml`, or a file of the same form. Out: a validated KnowledgeGraph.
Does not know: networks, images, report wording.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from raypipe.errors import ConfigError
from raypipe.settings import Settings

Region = Literal["chest", "abdomen", "head"]
CodeSystem = Literal["RADLEX", "GAMUTS", "RADELEMENT"]
REGIONS: tuple[Region, ...] = ("chest", "abdomen", "head")


class RelationKind(StrEnum):
    """How one node of the graph relates to another."""

    OCCURS_IN = "occurs_in"  # finding -> organ
    HAS_ATTRIBUTE = "has_attribute"  # finding -> attribute value
    CHILD_OF = "child_of"  # finding -> the finding that it is a kind of
    SUGGESTS = "suggests"  # finding -> finding that often comes with it or causes it
    MIMICS = "mimics"  # finding -> finding that it may be taken for
    PART_OF = "part_of"  # organ -> region


class Relation(NamedTuple):
    """One edge; nodes are named "finding:key", "organ:key", "region:key", "density=fluid"."""

    source: str
    kind: RelationKind
    target: str


class Attribute(Settings):
    """A fine-grained property of findings and the values that it can take."""

    name: str = Field(description="as a report writes it")
    values: tuple[str, ...] = Field(min_length=2, description="allowed values, in a fixed order")


class Organ(Settings):
    """A place in the body."""

    name: str = Field(description="as a report writes it")
    regions: tuple[Region, ...] = Field(min_length=1, description="body regions that hold it")
    sided: bool = Field(default=False, description="whether left and right are told apart")
    levels: tuple[str, ...] = Field(default=(), description="named levels, head first")
    typical_hu: tuple[float, float] | None = Field(
        default=None, description="range of healthy tissue without contrast medium, in HU"
    )
    codes: dict[CodeSystem, str] = Field(default={}, description="code system -> code")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range("typical_hu", self.typical_hu)
        return self


class FindingNode(Settings):
    """One abnormality that CT can show."""

    key: str = Field(description="what detections, findings and rows call it")
    name: str = Field(description="as a report writes one of it")
    plural: str = Field(description="as a report writes several of it")
    synonyms: tuple[str, ...] = Field(default=(), description="other names found in text")
    codes: dict[CodeSystem, str] = Field(default={}, description="code system -> code")
    regions: tuple[Region, ...] = Field(min_length=1, description="where it may be claimed")
    occurs_in: tuple[str, ...] = Field(min_length=1, description="keys of organs")
    hu_range: tuple[float, float] | None = Field(
        default=None, description="plausible mean of the lesion, in HU; None: no bound"
    )
    size_range_mm: tuple[float, float] | None = Field(
        default=None, description="plausible longest edge, in mm; None: no bound"
    )
    attributes: dict[str, tuple[str, ...]] = Field(
        default={}, description="attribute -> the values that this finding can have"
    )
    parent: str | None = Field(default=None, description="the finding that this is a kind of")
    suggests: tuple[str, ...] = Field(default=(), description="findings that often come with it")
    mimics: tuple[str, ...] = Field(default=(), description="findings that it may be taken for")
    detected: bool = Field(default=False, description="whether the default detector looks for it")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range("hu_range", self.hu_range)
        _check_range("size_range_mm", self.size_range_mm)
        return self


def _check_range(name: str, bounds: tuple[float, float] | None) -> None:
    if bounds is not None and bounds[0] >= bounds[1]:
        raise ValueError(f"{name}: the lower bound {bounds[0]} must lie below {bounds[1]}")


class KnowledgeGraph(Settings):
    """The whole graph, valid once built: every key that a node names exists."""

    version: str = Field(description="of the data file")
    attributes: dict[str, Attribute] = Field(description="attribute -> allowed values")
    anatomy: dict[str, Organ] = Field(description="organ key -> organ")
    findings: dict[str, FindingNode] = Field(description="finding key -> finding")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for node in self.findings.values():
            self._check_references(node)
            self._check_attributes(node)
        for key in self.findings:  # after all references are known to exist
            self._check_parents(key)
        return self

    def _check_references(self, node: FindingNode) -> None:
        for organ in node.occurs_in:
            if organ not in self.anatomy:
                raise ValueError(f"finding {node.key}: occurs_in names no organ {organ!r}")
            if not set(self.anatomy[organ].regions) & set(node.regions):
                raise ValueError(f"finding {node.key}: {organ} lies in none of {node.regions}")
        parent = () if node.parent is None else (node.parent,)
        for field, keys in (
            ("parent", parent),
            ("suggests", node.suggests),
            ("mimics", node.mimics),
        ):
            for key in keys:
                if key not in self.findings:
                    raise ValueError(f"finding {node.key}: {field} names no finding {key!r}")

    def _check_attributes(self, node: FindingNode) -> None:
        for name, values in node.attributes.items():
            if name not in self.attributes:
                raise ValueError(f"finding {node.key}: there is no attribute {name!r}")
            unknown = set(values) - set(self.attributes[name].values)
            if unknown or not values:
                raise ValueError(
                    f"finding {node.key}: {name} cannot be {sorted(unknown) or 'empty'}; "
                    f"allowed are {self.attributes[name].values}"
                )

    def _check_parents(self, key: str) -> None:
        seen, node = {key}, self.findings[key]
        while node.parent is not None:
            if node.parent in seen:
                raise ValueError(f"finding {key}: its parents run in a circle")
            seen.add(node.parent)
            child, node = node, self.findings[node.parent]
            if not set(child.occurs_in) <= set(node.occurs_in):
                raise ValueError(f"finding {child.key}: its parent {node.key} lacks its organs")
            for field in ("hu_range", "size_range_mm"):
                inner, outer = getattr(child, field), getattr(node, field)
                if inner and outer and (inner[0] < outer[0] or inner[1] > outer[1]):
                    raise ValueError(
                        f"finding {child.key}: {field} {inner} leaves {outer} of {node.key}"
                    )

    def finding(self, key: str) -> FindingNode:
        """The finding of a key; ValueError (ConfigError) where there is none."""
        if key not in self.findings:
            raise ConfigError(f"knowledge graph: no finding {key!r}; add it to the graph file")
        return self.findings[key]

    @property
    def detected(self) -> tuple[str, ...]:
        """Keys of the findings that the default detector looks for, in the file's order."""
        return tuple(key for key, node in self.findings.items() if node.detected)

    def ancestors(self, key: str) -> tuple[str, ...]:
        """Keys of parent, grandparent ..., nearest first."""
        out: list[str] = []
        node = self.finding(key)
        while node.parent is not None:
            out.append(node.parent)
            node = self.findings[node.parent]
        return tuple(out)

    def allows(self, key: str, attribute: str, value: str) -> bool:
        """Whether a finding may have a value of an attribute."""
        return value in self.finding(key).attributes.get(attribute, ())

    def is_sided(self, key: str) -> bool:
        """Whether left and right are told apart in any organ that a finding occurs in."""
        return any(self.anatomy[organ].sided for organ in self.finding(key).occurs_in)

    def relations(self) -> tuple[Relation, ...]:
        """Every edge, in a fixed order."""
        edges: list[Relation] = []
        for key, organ in self.anatomy.items():
            for region in organ.regions:
                edges.append(Relation(f"organ:{key}", RelationKind.PART_OF, f"region:{region}"))
        for key, node in self.findings.items():
            source = f"finding:{key}"
            targets: tuple[tuple[RelationKind, list[str]], ...] = (
                (RelationKind.OCCURS_IN, [f"organ:{o}" for o in node.occurs_in]),
                (
                    RelationKind.HAS_ATTRIBUTE,
                    [f"{a}={v}" for a, values in node.attributes.items() for v in values],
                ),
                (RelationKind.CHILD_OF, [f"finding:{node.parent}"] if node.parent else []),
                (RelationKind.SUGGESTS, [f"finding:{k}" for k in node.suggests]),
                (RelationKind.MIMICS, [f"finding:{k}" for k in node.mimics]),
            )
            edges += [Relation(source, kind, target) for kind, keys in targets for target in keys]
        return tuple(edges)


@cache
def load_graph(path: Path | None = None) -> KnowledgeGraph:
    """Read a graph; it is read once and then shared.

    Args:
        path: a YAML file of the packaged file's form; None for the packaged graph.

    Raises:
        ConfigError: the file is not readable or breaks a rule; the message names the node.
    """
    file = path or resources.files("raypipe.knowledge") / "graph.yaml"
    try:
        raw = yaml.load(file.read_text(encoding="utf-8"), Loader=fast_safe_loader())
        if not isinstance(raw, Mapping) or not isinstance(raw.get("findings"), Mapping):
            raise ConfigError("knowledge graph: the file holds a mapping with `findings`")
        for key, node in raw["findings"].items():
            if not isinstance(node, Mapping):
                raise ConfigError(f"knowledge graph: finding {key}: give its fields as a mapping")
        findings = {key: {"key": key, **node} for key, node in raw["findings"].items()}
        return KnowledgeGraph.model_validate({**raw, "findings": findings})
    except OSError as error:
        raise ConfigError(f"knowledge graph: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"knowledge graph: {path} is not in UTF-8; save it so") from error
    except (yaml.YAMLError, ValidationError) as error:
        raise ConfigError(f"knowledge graph: {error}") from error


def fast_safe_loader() -> Any:
    """A SafeLoader of YAML: the fast one in C where PyYAML was built with it."""
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)
