"""Settings of who may call: API keys by their hash, bearer tokens of an OpenID provider.

In: keyword arguments or YAML. Out: a frozen AuthConfig. Does not know: requests.
"""

from enum import StrEnum
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from raypipe.settings import Settings


class Role(StrEnum):
    """What a caller may do; each stands alone."""

    ANALYZE = "analyze"  # send series, cancel and read what was sent
    READ = "read"  # read jobs of the same owner
    ADMIN = "admin"  # read and cancel every job, read metrics


class ApiKey(Settings):
    """One key; the secret itself is shown once, when it is made, and kept nowhere."""

    key_id: str = Field(pattern=r"^[a-z0-9]{8}$", description="Public part of the key.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the whole key.")
    owner: str = Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Whose jobs it sees; several keys may share an owner.",
    )
    roles: tuple[Role, ...] = Field(min_length=1, description="analyze, read, admin.")


class OidcConfig(Settings):
    """Bearer tokens of an OpenID provider."""

    issuer: str = Field(description="The `iss` that tokens must have.")
    audience: str = Field(description="The `aud` that tokens must have.")
    jwks: str = Field(description="https:// address or file of the provider's keys (JWKS).")
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"], ...
    ] = Field(("RS256", "ES256"), min_length=1, description="Signatures that are accepted.")
    roles_claim: str = Field("roles", description="Claim that lists roles; dots go deeper.")
    role_names: dict[str, Role] = Field(
        {"raypipe-analyze": Role.ANALYZE, "raypipe-read": Role.READ, "raypipe-admin": Role.ADMIN},
        description="Value of that claim -> role.",
    )
    leeway_s: float = Field(30.0, ge=0, le=300, description="Clock difference allowed, in s.")

    @field_validator("jwks")
    @classmethod
    def _safe(cls, jwks: str) -> str:
        parts = urlsplit(jwks)
        local = parts.hostname in ("127.0.0.1", "localhost", "::1")
        if parts.scheme == "https" or (parts.scheme == "http" and local) or not parts.scheme:
            return jwks
        raise ValueError("jwks: give an https:// address, or the path of a file")


class AuthConfig(Settings):
    """Who may call; nobody is asked where neither keys nor oidc are given."""

    keys: tuple[ApiKey, ...] = Field((), description="Made by `raypipe serve key`.")
    keys_file: Path | None = Field(
        None, description="YAML list of further keys; read when the service starts."
    )
    oidc: OidcConfig | None = None
    open_metrics: bool = Field(
        False, description="Answer /metrics without a caller; its numbers name no patient."
    )

    @property
    def mode(self) -> Literal["none", "key"]:
        """Whether a caller has to show a key or token."""
        return "key" if self.keys or self.keys_file or self.oidc else "none"

    @model_validator(mode="after")
    def _unique(self) -> Self:
        ids = [key.key_id for key in self.keys]
        if len(set(ids)) != len(ids):
            raise ValueError("keys: every key_id once")
        return self
