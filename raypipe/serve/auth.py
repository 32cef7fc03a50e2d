"""Who is calling: API keys and bearer tokens, and what each may do.

In: the Authorization header. Out: a Caller, or a Problem (401, 403).
Does not know: jobs, routes.

A key is `rp_<id>_<secret>` with 256 random bits, so that one fast hash protects it: nobody can try
them all. The id finds the entry, the hash is compared in constant time.
"""

import asyncio
import hashlib
import hmac
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import TypeAdapter, ValidationError

from raypipe.errors import ConfigError
from raypipe.serve.auth_config import ApiKey, AuthConfig, Role
from raypipe.serve.oidc import TokenVerifier
from raypipe.serve.problems import Problem

_ALPHABET = string.ascii_lowercase + string.digits
_MAX_HEADER = 8192
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="raypipe"'}


@dataclass(frozen=True)
class Caller:
    """Who sent a request.

    Args:
        owner: whose jobs they are.
        roles: what it may do.
    """

    owner: str
    roles: frozenset[Role]

    @property
    def is_admin(self) -> bool:
        """Whether it may see everybody's jobs."""
        return Role.ADMIN in self.roles

    def need(self, *any_of: Role) -> None:
        """Raise 403 unless the caller has one of the roles."""
        if not self.roles & frozenset(any_of):
            names = " or ".join(any_of)
            raise Problem(403, "role_missing", f"this needs the role {names}", dict(_CHALLENGE))


ANYBODY = Caller("anybody", frozenset(Role))
"""Who calls where no keys are asked for: on the loopback address alone."""


def new_key(owner: str, roles: Iterable[Role]) -> tuple[str, ApiKey]:
    """A fresh secret, and the entry for the config that knows it by its hash."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    key = f"rp_{key_id}_{secrets.token_urlsafe(32)}"
    return key, ApiKey(key_id=key_id, sha256=_digest(key), owner=owner, roles=tuple(roles))


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def read_keys(file: Path) -> tuple[ApiKey, ...]:
    """The keys of a YAML file.

    Raises:
        ConfigError: it is not there, or not a list of keys.
    """
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8")) or []
        return TypeAdapter(tuple[ApiKey, ...]).validate_python(listed)
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ConfigError(
            f"auth.keys_file {file}: not a list of keys ({type(error).__name__}); "
            "`raypipe serve key` prints entries for it"
        ) from error


class Authenticator:
    """Finds the caller of a request.

    Args:
        config: keys and provider.

    Raises:
        ConfigError: the file of keys or of the provider's keys cannot be used.
    """

    def __init__(self, config: AuthConfig) -> None:
        listed = (*config.keys, *(read_keys(config.keys_file) if config.keys_file else ()))
        self._keys = {key.key_id: key for key in listed}
        self._tokens = None if config.oidc is None else TokenVerifier(config.oidc)
        self._open = config.mode == "none"

    async def caller(self, header: str | None) -> Caller:
        """Who sends this Authorization header.

        Raises:
            Problem: 401, the same for every reason but an absent header.
        """
        if self._open:
            return ANYBODY
        if not header:
            raise Problem(
                401, "unauthenticated", "send `Authorization: Bearer KEY`", dict(_CHALLENGE)
            )
        scheme, _, credential = header.partition(" ")
        found = None
        if scheme.lower() == "bearer" and len(credential) <= _MAX_HEADER:
            found = self._of_key(credential.strip()) or await self._of_token(credential.strip())
        if found is None:
            raise Problem(401, "unauthenticated", "the key or token is not valid", dict(_CHALLENGE))
        return found

    def _of_key(self, credential: str) -> Caller | None:
        parts = credential.split("_", 2)
        if len(parts) != 3 or parts[0] != "rp":
            return None
        key = self._keys.get(parts[1])
        expected = key.sha256 if key is not None else "0" * 64
        same = hmac.compare_digest(_digest(credential), expected)
        return Caller(key.owner, frozenset(key.roles)) if key is not None and same else None

    async def _of_token(self, credential: str) -> Caller | None:
        if self._tokens is None or credential.count(".") != 2:
            return None
        known = await asyncio.to_thread(self._tokens.verified, credential)
        return None if known is None else Caller(known[0], known[1])
