"""The whole config: the sum of the packages' own configs, and how much machine each stage gets.

In: a YAML file and overrides. Out: a frozen RaypipeConfig; an unknown key is an error by name.
Does not know: what the settings mean; each is explained beside the code that it configures.
"""

import hashlib
import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar
from zoneinfo import ZoneInfo

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from raypipe.archive.deidentify_config import ExportConfig
from raypipe.archive.index import IndexConfig
from raypipe.archive.read import ArchiveConfig
from raypipe.errors import ConfigError
from raypipe.findings.decode import FindingsConfig
from raypipe.hours import Span, parse_span
from raypipe.model.config import DetectorConfig
from raypipe.report.config import ReportConfig
from raypipe.settings import Settings
from raypipe.volume.assemble import VolumeConfig
from raypipe.volume.preprocess import PreprocessConfig

S = TypeVar("S", bound=Settings)
_SECRETS = ("hash_key",)


class SinkConfig(Settings):
    """What results hold."""

    plain_uids: bool = Field(
        False, description="Write SOPInstanceUIDs as they are instead of their keyed hashes."
    )


class TaskPool(Settings):
    """CPU tasks, as many at a time as the cluster has room for."""

    cpus: float = Field(1.0, gt=0, description="Logical CPUs of one task.")
    memory_gib: float | None = Field(
        None, gt=0, description="Memory that one task reserves, in GiB; none reserved if null."
    )
    series_per_task: int = Field(2, ge=1, description="Series that one task reads in turn.")


class ActorPool(Settings):
    """Actors that hold a network or an engine."""

    min_size: int = Field(1, ge=1, description="Actors kept at least.")
    max_size: int = Field(1, ge=1, description="Actors at most; the pool grows under load.")
    cpus: float = Field(0.5, ge=0, description="Logical CPUs of one actor.")
    gpus: float = Field(0.0, ge=0, description="GPUs of one actor; fractions share one.")
    memory_gib: float | None = Field(
        None, gt=0, description="Memory that one actor reserves, in GiB; none reserved if null."
    )
    batch_series: int = Field(
        1, ge=1, description="Series that one call works on; rows are committed in this number."
    )
    concurrent_batches: int = Field(1, ge=1, description="Calls that one actor works on at a time.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_size < self.min_size:
            raise ValueError(f"max_size {self.max_size} must be at least min_size {self.min_size}")
        return self


class DetectPool(ActorPool):
    """Actors that hold a network."""

    max_size: int = Field(2, ge=1, description="Actors at most; the pool grows under load.")


class DescribePool(ActorPool):
    """Actors that hold an engine."""

    batch_series: int = Field(
        8, ge=1, description="Series that one call works on; rows are committed in this number."
    )
    concurrent_batches: int = Field(
        3,
        ge=1,
        description="Calls that one engine decodes together, so that it never waits for the "
        "longest report of a batch.",
    )


class ScheduleConfig(Settings):
    """When a run may begin to read series; what it has begun is finished at any time."""

    hours: tuple[str, ...] = Field(
        (), description='Such as ["22:00-06:00", "12:00-13:00"]; at any time if empty.'
    )
    time_zone: str = Field("UTC", description="Time zone of the hours, such as Europe/Berlin.")

    @field_validator("time_zone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone of the IANA list") from error
        return name

    @field_validator("hours")
    @classmethod
    def _parsed(cls, hours: tuple[str, ...]) -> tuple[str, ...]:
        for text in hours:
            parse_span(text)
        return hours

    @property
    def spans(self) -> tuple[Span, ...]:
        """The hours, parsed."""
        return tuple(parse_span(text) for text in self.hours)

    @property
    def zone(self) -> ZoneInfo:
        """Their time zone."""
        return ZoneInfo(self.time_zone)


class RunConfig(Settings):
    """Where the job runs, how much each stage gets, and what it costs."""

    ray_address: str | None = Field(
        None,
        description="Address of a Ray cluster; null joins the one of the environment variable "
        "RAY_ADDRESS, or starts Ray on this machine.",
    )
    nodes_limit_s: float = Field(
        0.0,
        ge=0,
        description="How long a job waits for an autoscaler to start the nodes that its actors "
        "need; then it is refused.",
    )
    object_store_gib: float | None = Field(
        None, gt=0, description="Object store of a Ray started here, in GiB; Ray's default if null."
    )
    load: TaskPool = TaskPool()
    detect: DetectPool = DetectPool()
    describe: DescribePool = DescribePool()
    quarantine_after: int = Field(
        3, ge=1, description="A series whose worker died so often is set aside as quarantined."
    )
    max_failed_share: float = Field(
        0.5,
        ge=0,
        le=1,
        description="A run of which a larger share fails stops early; rejected ones do not count.",
    )
    failed_share_after: int = Field(
        50, ge=1, description="Series that a run has done before it may stop early."
    )
    schedule: ScheduleConfig = ScheduleConfig()
    source_mb_per_s: float | None = Field(
        None,
        gt=0,
        description="MB that all workers together read from the source in a second, on average; "
        "no limit if null.",
    )
    busy_warning_share: float = Field(
        0.5, ge=0, le=1, description="A pool with GPUs that is busy for less than this is told of."
    )
    price_per_hour: float = Field(
        0.0, ge=0, description="Price of the whole cluster for one hour, in `currency`."
    )
    currency: str = "USD"

    @property
    def pools(self) -> dict[str, ActorPool]:
        """The pools of actors by stage."""
        return {"detect": self.detect, "describe": self.describe}


class RaypipeConfig(Settings):
    """Everything a run depends on."""

    index: IndexConfig = IndexConfig()
    archive: ArchiveConfig = ArchiveConfig()
    volume: VolumeConfig = VolumeConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    detector: DetectorConfig = DetectorConfig()
    findings: FindingsConfig = FindingsConfig()
    report: ReportConfig = ReportConfig()
    sink: SinkConfig = SinkConfig()
    export: ExportConfig = ExportConfig()
    run: RunConfig = RunConfig()

    @cached_property
    def result_hash(self) -> str:
        """Hash of all that can change a result: not of resources, nor of where objects lie."""
        content = self.model_dump(
            mode="json",
            exclude={
                **{"run": True, "index": True, "export": True},
                "archive": {"storage", "isolation"},
            },
        )
        return hashlib.blake2b(
            json.dumps(content, sort_keys=True).encode(), digest_size=8
        ).hexdigest()

    def to_yaml(self) -> str:
        """The resolved config as YAML; secrets are masked."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load_config(path: str | Path | None = None, overrides: Iterable[str] = ()) -> RaypipeConfig:
    """The config of a run; see load_settings."""
    return load_settings(RaypipeConfig, path, overrides)


def load_settings(kind: type[S], path: str | Path | None, overrides: Iterable[str]) -> S:
    """Read a config.

    Args:
        kind: which config.
        path: YAML file; None gives the defaults.
        overrides: "section.key=value" settings that win over the file; values are YAML.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or a value breaks a rule;
            the message names file, key and rule.
    """
    tree = _read_yaml(Path(path)) if path is not None else {}
    for override in overrides:
        _override(tree, override)
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, e['loc'])) or 'config'}: {_explain(e)}" for e in error.errors()
        ]
        source = f" in {path}" if path is not None else ""
        raise ConfigError(f"the config{source} is not valid:\n" + "\n".join(lines)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"config file {path} does not exist") from error
    except yaml.YAMLError as error:  # told without the line itself, which may hold a key
        raise ConfigError(f"config file {path} is not YAML{_place(error)}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"config file {path} holds {type(tree).__name__}, not sections")
    return tree


def _override(tree: dict[str, Any], override: str) -> None:
    name, separator, value = override.partition("=")
    if not separator or not name:
        raise ConfigError(f"--set {override!r}: write section.key=value")
    *sections, key = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"--set {name}=...: {section} is a value, not a section")
    try:
        tree[key] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {name}=...: the value is not YAML: put it in quotes") from None


def _place(error: yaml.YAMLError) -> str:
    """What is wrong with a file, and where."""
    mark = getattr(error, "problem_mark", None)
    told = f": {error.problem}" if isinstance(error, yaml.MarkedYAMLError) else ""
    return told if mark is None else f"{told}, line {mark.line + 1}"


def _explain(error: Any) -> str:
    """What is wrong with a value; a secret is not repeated."""
    if error["type"] == "extra_forbidden":
        return "unknown key; the same command with --print-config lists the known ones"
    if error["type"] == "missing":
        *sections, name = error["loc"]
        option = "--set" if sections else f"--{name} {name.upper()}"
        return f"is needed: {option}, or the key in the YAML file"
    if error["loc"] and error["loc"][-1] in _SECRETS:
        return f"{error['msg']}; put the value in quotes"
    return f"{error['msg']} (got {_masked(error['input'])!r})"


def _masked(value: Any) -> Any:
    """A value without the secrets in it."""
    if not isinstance(value, dict):
        return [_masked(v) for v in value] if isinstance(value, list) else value
    return {k: "***" if k in _SECRETS else _masked(v) for k, v in value.items()}
