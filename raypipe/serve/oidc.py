"""Bearer tokens of an OpenID provider: signature, issuer, audience, time, roles.

In: a JSON Web Token. Out: its subject and roles, or None. Does not know: requests.

The provider's keys come from the address of the config alone; nothing of a token is ever fetched.
"""

import json
import threading
import time
from pathlib import Path
from typing import Any

import jwt

from raypipe.errors import ConfigError
from raypipe.serve.auth_config import OidcConfig, Role

_REFETCH_S = 60.0
"""Tokens that name an unknown key make the service ask the provider at most this often."""

_CLAIMS = ["exp", "iat", "iss", "aud", "sub"]


class TokenVerifier:
    """Holds the provider's keys.

    Args:
        config: the provider.

    Raises:
        ConfigError: the file of its keys cannot be read.
    """

    def __init__(self, config: OidcConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = float("-inf")
        self._client = None
        if config.jwks.startswith(("http://", "https://")):
            self._client = jwt.PyJWKClient(config.jwks, cache_jwk_set=False, timeout=5)
        else:
            self._keys = _read(config.jwks)

    def verified(self, token: str) -> tuple[str, frozenset[Role]] | None:
        """Subject and roles of a token that holds; None for one that does not."""
        config = self._config
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(str(header.get("kid", "")))
            if key is None or header.get("alg") not in config.algorithms:
                return None
            claims = jwt.decode(
                token,
                key=key,
                algorithms=list(config.algorithms),
                audience=config.audience,
                issuer=config.issuer,
                leeway=config.leeway_s,
                options={"require": _CLAIMS},
            )
        except jwt.PyJWTError:
            return None
        return f"oidc:{claims['sub']}", _roles(claims, config)

    def _key(self, key_id: str) -> jwt.PyJWK | None:
        with self._lock:
            due = time.monotonic() - self._fetched_at > _REFETCH_S
            if key_id not in self._keys and self._client is not None and due:
                self._fetched_at = time.monotonic()
                fetched = self._client.get_signing_keys()
                self._keys = {str(key.key_id or ""): key for key in fetched}
            return self._keys.get(key_id)


def _read(path: str) -> dict[str, jwt.PyJWK]:
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
        return {str(key.key_id or ""): key for key in jwt.PyJWKSet.from_dict(listed).keys}
    except (OSError, ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise ConfigError(
            f"auth.oidc.jwks: {path} holds no keys of a provider ({type(error).__name__})"
        ) from error


def _roles(claims: dict[str, Any], config: OidcConfig) -> frozenset[Role]:
    value: Any = claims
    for part in config.roles_claim.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    named = value.split() if isinstance(value, str) else value
    known = config.role_names
    return frozenset(known[n] for n in named or () if isinstance(n, str) and n in known)
