"""Keys and tokens: who gets in, and who does not."""

import json
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import ValidationError

from raypipe.errors import ConfigError
from raypipe.serve.auth import ANYBODY, Authenticator, new_key
from raypipe.serve.auth_config import AuthConfig, OidcConfig, Role
from raypipe.serve.problems import Problem

pytestmark = pytest.mark.anyio


async def refused(authenticator: Authenticator, header: str | None) -> int:
    with pytest.raises(Problem) as problem:
        await authenticator.caller(header)
    assert problem.value.headers["WWW-Authenticate"].startswith("Bearer")
    return problem.value.status


async def test_a_key_opens_and_its_secret_is_nowhere_in_the_config() -> None:
    key, entry = new_key("radiology", [Role.ANALYZE, Role.READ])
    config = AuthConfig(keys=(entry,))
    assert key.split("_", 2)[2] not in config.model_dump_json()
    caller = await Authenticator(config).caller(f"Bearer {key}")
    assert caller.owner == "radiology" and caller.roles == {Role.ANALYZE, Role.READ}
    assert not caller.is_admin
    caller.need(Role.READ, Role.ADMIN)
    with pytest.raises(Problem) as problem:
        caller.need(Role.ADMIN)
    assert problem.value.status == 403


async def test_wrong_credentials_all_get_the_same() -> None:
    key, entry = new_key("radiology", [Role.ANALYZE])
    other, _ = new_key("radiology", [Role.ANALYZE])
    authenticator = Authenticator(AuthConfig(keys=(entry,)))
    swapped = f"rp_{entry.key_id}_{other.split('_', 2)[2]}"
    wrong = [None, "", "Bearer", f"Basic {key}", key, f"Bearer {key}x", f"Bearer {key[:-1]}"]
    wrong += [f"Bearer {other}", f"Bearer {swapped}", "Bearer a.b.c", "Bearer " + "x" * 100_000]
    wrong += [f"Bearer {key.upper()}", "Bearer rp__", f"Bearer rp_{entry.key_id}_"]
    assert {await refused(authenticator, header) for header in wrong} == {401}


async def test_keys_in_a_file(tmp_path: Path) -> None:
    key, entry = new_key("pacs", [Role.ANALYZE])
    file = tmp_path / "keys.yaml"
    file.write_text(yaml.safe_dump([entry.model_dump(mode="json")]))
    config = AuthConfig(keys_file=file)
    assert config.mode == "key"
    assert (await Authenticator(config).caller(f"Bearer {key}")).owner == "pacs"
    file.write_text("- {key_id: nonsense}")
    with pytest.raises(ConfigError, match="keys_file"):
        Authenticator(config)


async def test_without_keys_everybody_on_this_machine_may() -> None:
    assert await Authenticator(AuthConfig()).caller(None) is ANYBODY


# --- tokens of a provider ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="module")
def jwks(private_key: rsa.RSAPrivateKey) -> dict[str, Any]:
    public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private_key.public_key()))
    return {"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}


@pytest.fixture
def provider(jwks: dict[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """A server of keys, and the paths that it was asked for."""
    asked: list[str] = []

    class Keys(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(jwks).encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/keys", asked
    server.shutdown()


ISSUER, AUDIENCE = "https://id.example.org", "raypipe"
Sign = Callable[..., str]


@pytest.fixture(scope="module")
def sign(private_key: rsa.RSAPrivateKey) -> Sign:
    def signed(
        key: Any = private_key, algorithm: str = "RS256", kid: str = "one", **claims: Any
    ) -> str:
        now = int(time.time())
        whole: dict[str, Any] = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": "alice",
            "iat": now,
            "exp": now + 600,
            "realm": {"roles": ["raypipe-analyze", "unrelated"]},
        } | claims
        content = {name: value for name, value in whole.items() if value is not None}
        return jwt.encode(content, key, algorithm=algorithm, headers={"kid": kid})

    return signed


def of_provider(address: str) -> Authenticator:
    return Authenticator(
        AuthConfig(
            oidc=OidcConfig(
                issuer=ISSUER, audience=AUDIENCE, jwks=address, roles_claim="realm.roles"
            )
        )
    )


async def test_a_token_of_the_provider_opens(
    provider: tuple[str, list[str]], sign: Sign, jwks: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(jwks))
    for address in (provider[0], str(tmp_path / "jwks.json")):
        caller = await of_provider(address).caller(f"Bearer {sign()}")
        assert caller.owner == "oidc:alice" and caller.roles == {Role.ANALYZE}


async def test_tokens_that_do_not_hold(
    provider: tuple[str, list[str]], sign: Sign, jwks: dict[str, Any]
) -> None:
    authenticator = of_provider(provider[0])
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    past = int(time.time()) - 3600
    good = sign()
    wrong = {
        "another's signature": sign(key=stranger),
        "expired": sign(exp=past),
        "from the future": sign(iat=past + 90_000, nbf=past + 90_000),
        "another issuer": sign(iss="https://evil.example.org"),
        "another audience": sign(aud="mail"),
        "no expiry": sign(exp=None),
        "no subject": sign(sub=None),
        "no signature": jwt.encode({"sub": "alice"}, None, algorithm="none"),
        "signed with the public key": sign(key=jwks["keys"][0]["n"], algorithm="HS256"),
        "unknown key": sign(kid="two"),
        "changed": good[:-6] + ("AAAAAA" if good[-6:] != "AAAAAA" else "BBBBBB"),
    }
    for what, token in wrong.items():
        assert await refused(authenticator, f"Bearer {token}") == 401, what


async def test_unknown_keys_do_not_make_us_flood_the_provider(
    provider: tuple[str, list[str]], sign: Sign
) -> None:
    authenticator = of_provider(provider[0])
    for number in range(20):
        await refused(authenticator, f"Bearer {sign(kid=f'{number}')}")
    assert provider[1] == ["/keys"]


async def test_a_token_without_roles_may_nothing(
    provider: tuple[str, list[str]], sign: Sign
) -> None:
    caller = await of_provider(provider[0]).caller(f"Bearer {sign(realm={'roles': ['x']})}")
    for role in Role:
        with pytest.raises(Problem):
            caller.need(role)


@pytest.mark.parametrize("address", ["http://id.example.org/keys", "ftp://x/y"])
def test_keys_of_a_provider_never_come_over_plain_http(address: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        OidcConfig(issuer=ISSUER, audience=AUDIENCE, jwks=address)
