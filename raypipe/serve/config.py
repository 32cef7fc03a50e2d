"""Settings of the service: address, callers, limits, pools, jobs, and the pipeline that it serves.

In: keyword arguments or YAML. Out: a frozen ServeConfig.
Does not know: how a setting is carried out.
"""

import ipaddress
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from raypipe.archive.storage import is_s3
from raypipe.config import RaypipeConfig
from raypipe.serve.auth_config import AuthConfig
from raypipe.settings import Settings

_GIB = 1 << 30


class HttpConfig(Settings):
    """Where the service listens."""

    host: str = Field("127.0.0.1", description="Address; any other than loopback needs `auth`.")
    port: int = Field(8000, ge=1, le=65535, description="TCP port.")
    request_timeout_s: float = Field(
        900.0, gt=0, description="Time limit of one request, upload included, in s."
    )
    retry_after_s: int = Field(5, ge=1, description="Retry-After of a 503 without an estimate, s.")
    tls_certificate: Path | None = Field(None, description="Certificate chain (PEM); null: HTTP.")
    tls_key: Path | None = Field(None, description="Private key of the certificate (PEM).")
    behind_proxy: bool = Field(
        False,
        description="A reverse proxy on this machine talks to the service for callers from "
        "elsewhere; needs `auth`.",
    )

    @property
    def is_loopback(self) -> bool:
        """Whether nobody on another machine can connect."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key are given together or not at all")
        return self


class LimitsConfig(Settings):
    """What a caller may send."""

    max_upload_gib: float = Field(4.0, gt=0, description="Bytes of one upload, in GiB.")
    max_sync_mib: float = Field(
        256.0, gt=0, description="Bytes of one upload to /v1/analyze, in MiB; more go to /v1/jobs."
    )
    max_files: int = Field(20_000, ge=1, description="Files of one upload, or of one URI.")
    max_members: int = Field(20_000, ge=1, description="Members of an uploaded zip or tar.")
    max_expanded_gib: float = Field(
        16.0, gt=0, description="GiB that a zip or tar may have once it is expanded."
    )
    max_expansion_ratio: float = Field(
        100.0, gt=1, description="Expanded over stored size of a zip or tar above 256 MiB."
    )
    max_voxels: int = Field(
        1_000_000_000, ge=1, description="Largest series that is decoded, in voxels."
    )
    upload_timeout_s: float = Field(600.0, gt=0, description="Time limit of one upload, in s.")
    idle_timeout_s: float = Field(
        20.0, gt=0, description="Time without a byte after which an upload is given up, in s."
    )
    sync_timeout_s: float = Field(
        300.0,
        gt=0,
        description="Time after which /v1/analyze answers 202 with the address of its job, in s.",
    )
    uris: tuple[str, ...] = Field(
        (),
        description="Folders and s3:// prefixes below which a caller may name a URI instead of "
        "uploading; none by default.",
    )

    @field_validator("uris")
    @classmethod
    def _known_kinds(cls, uris: tuple[str, ...]) -> tuple[str, ...]:
        for uri in uris:
            bucket = uri.removeprefix("s3://").strip("/")
            if not (is_s3(uri) and bucket) and not (
                Path(uri).is_absolute() and len(Path(uri).parts) > 1
            ):
                raise ValueError(f"{uri!r} is neither an absolute folder below / nor s3://BUCKET")
        return uris


class JobsConfig(Settings):
    """Where jobs are kept and how many at a time."""

    folder: str = Field(
        "raypipe-jobs",
        description="Folder that all nodes see, or s3:// prefix: jobs, uploads, results. Nobody "
        "else may read it.",
    )
    max_running: int = Field(4, ge=1, description="Jobs worked on at a time.")
    max_queued: int = Field(64, ge=1, description="Jobs that wait; the next one gets a 503.")
    max_open_per_caller: int = Field(
        64, ge=1, description="Jobs of one caller that wait or run; the next one gets a 429."
    )
    series_at_a_time: int = Field(4, ge=1, description="Series of one job worked on at a time.")
    max_attempts: int = Field(
        3, ge=1, description="Attempts at a job or series that kills what works on it."
    )
    time_limit_s: float = Field(3600.0, gt=0, description="Time limit of a running job, in s.")
    upload_retention_s: float = Field(
        3600.0, ge=0, description="Time from the end of a job to the deletion of its upload, in s."
    )
    result_retention_s: float = Field(
        7 * 86400.0, gt=0, description="Time from the end of a job until nothing is left, in s."
    )
    sweep_every_s: float = Field(30.0, gt=0, description="Time between two looks for both, in s.")


class Autoscaling(Settings):
    """How many replicas a deployment has."""

    min_replicas: int = Field(1, ge=0, description="Replicas kept; 0: none while nobody asks.")
    max_replicas: int = Field(1, ge=1, description="Replicas at most.")
    target_ongoing: float = Field(2.0, gt=0, description="Requests a replica that it aims at.")
    max_ongoing: int = Field(4, ge=1, description="Requests that one replica takes at a time.")
    max_queued: int = Field(-1, ge=-1, description="Requests waiting for it; -1: no bound.")
    upscale_delay_s: float = Field(10.0, ge=0, description="Load lasts so long before it grows.")
    downscale_delay_s: float = Field(120.0, ge=0, description="... before it shrinks.")
    look_back_s: float = Field(
        15.0, gt=10, description="Load is averaged over so long; Serve measures it every 10 s."
    )
    cpus: float = Field(0.5, ge=0, description="Logical CPUs of one replica.")
    gpus: float = Field(0.0, ge=0, description="GPUs of one replica; fractions share one.")
    memory_gib: float | None = Field(None, gt=0, description="Memory it reserves; null: none.")
    drain_s: float = Field(60.0, ge=0, description="Time to finish its requests when it stops, s.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_replicas < max(1, self.min_replicas):
            raise ValueError(
                f"max_replicas {self.max_replicas} must be at least min_replicas "
                f"{self.min_replicas}"
            )
        return self

    def options(self) -> dict[str, Any]:
        """As keyword arguments of a Ray Serve deployment."""
        actor: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        if self.memory_gib is not None:
            actor["memory"] = int(self.memory_gib * _GIB)
        scaling = {
            "min_replicas": self.min_replicas,
            "initial_replicas": self.min_replicas,
            "max_replicas": self.max_replicas,
            "target_ongoing_requests": self.target_ongoing,
            "upscale_delay_s": self.upscale_delay_s,
            "downscale_delay_s": self.downscale_delay_s,
            "look_back_period_s": self.look_back_s,
        }
        return {
            "ray_actor_options": actor,
            "autoscaling_config": scaling,
            "max_ongoing_requests": self.max_ongoing,
            "max_queued_requests": self.max_queued,
            "graceful_shutdown_timeout_s": self.drain_s,
            "graceful_shutdown_wait_loop_s": min(1.0, max(self.drain_s, 0.01)),
        }


class IngressPool(Autoscaling):
    """What answers HTTP."""

    cpus: float = Field(0.1, ge=0, description="Logical CPUs of one replica.")
    target_ongoing: float = Field(32.0, gt=0, description="Requests a replica that it aims at.")
    max_ongoing: int = Field(128, ge=1, description="Requests that one replica takes at a time.")
    max_queued: int = Field(128, ge=-1, description="Requests waiting for it; more get a 503.")


class LoaderPool(Autoscaling):
    """What reads, decodes and exports."""

    max_replicas: int = Field(2, ge=1, description="Replicas at most.")
    target_ongoing: float = Field(1.0, gt=0, description="Requests a replica that it aims at.")
    max_ongoing: int = Field(2, ge=1, description="Requests that one replica takes at a time.")


class BatchedPool(Autoscaling):
    """What works on several series in one call."""

    max_batch: int = Field(4, ge=1, description="Series of one call at most.")
    batch_wait_s: float = Field(0.005, ge=0, description="Time that a call waits to be full, in s.")


class ReporterPool(BatchedPool):
    """What writes reports: the language model."""

    max_batch: int = Field(16, ge=1, description="Series of one call at most.")
    concurrent_batches: int = Field(3, ge=1, le=4, description="Calls decoded together.")
    target_ongoing: float = Field(16.0, gt=0, description="Requests a replica that it aims at.")
    max_ongoing: int = Field(64, ge=1, description="Requests that one replica takes at a time.")


class PoolsConfig(Settings):
    """How much machine each deployment gets."""

    ingress: IngressPool = IngressPool()
    loader: LoaderPool = LoaderPool()
    detector: BatchedPool = BatchedPool()
    reporter: ReporterPool = ReporterPool()


class ServeConfig(Settings):
    """Everything the service depends on."""

    name: str = Field("raypipe", pattern=r"^[a-z][a-z0-9-]{0,31}$", description="Of the app.")
    http: HttpConfig = HttpConfig()
    auth: AuthConfig = AuthConfig()
    limits: LimitsConfig = LimitsConfig()
    jobs: JobsConfig = JobsConfig()
    pools: PoolsConfig = PoolsConfig()
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    pipeline: RaypipeConfig = RaypipeConfig()

    @model_validator(mode="before")
    @classmethod
    def _of_deploy_file(cls, tree: Any) -> Any:
        """A file for `serve deploy` holds these settings as `args` of its application."""
        if not isinstance(tree, dict) or not tree.get("applications"):
            return tree
        others = {name: value for name, value in tree.items() if name not in _DEPLOY_KEYS}
        return _merged(tree["applications"][0].get("args") or {}, others)

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.auth.mode == "none" and not self.http.is_loopback:
            raise ValueError(
                f"http.host {self.http.host} can be reached from elsewhere and auth has neither "
                "keys nor oidc: make a key with `raypipe serve key`, or listen on 127.0.0.1"
            )
        if self.auth.mode == "none" and self.http.behind_proxy:
            raise ValueError("http.behind_proxy needs auth: add a key with `raypipe serve key`")
        return self

    def to_yaml(self) -> str:
        """The resolved config as YAML; secrets are masked."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    @property
    def limited(self) -> RaypipeConfig:
        """The pipeline within the limits of the service."""
        archive, limits = self.pipeline.archive, self.limits
        storage = {
            "max_members": min(archive.storage.max_members, limits.max_members),
            "max_expanded_gib": min(archive.storage.max_expanded_gib, limits.max_expanded_gib),
            "max_expansion_ratio": min(
                archive.storage.max_expansion_ratio, limits.max_expansion_ratio
            ),
        }
        changed = {
            "storage": archive.storage.model_copy(update=storage),
            "max_voxels": min(archive.max_voxels, limits.max_voxels),
        }
        return self.pipeline.model_copy(update={"archive": archive.model_copy(update=changed)})


_DEPLOY_KEYS = ("applications", "http_options", "logging_config", "proxy_location")


def _merged(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A tree in which the leaves of another one win."""
    out = dict(tree)
    for name, value in changes.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = _merged(out[name], value) if both else value
    return out


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
