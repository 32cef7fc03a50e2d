"""Without keys the service answers this machine alone, and no web page through a browser."""

from typing import Any

import httpx
import pytest
from starlette.responses import PlainTextResponse

from raypipe.serve.guard import Guard
from raypipe.serve.metrics import Seen

pytestmark = pytest.mark.anyio

HERE = {"host": "127.0.0.1:8000"}


async def ask(
    headers: dict[str, str], client: str = "127.0.0.1", *, loopback_only: bool = True
) -> httpx.Response:
    async def count(seen: list[Seen]) -> Any:
        pass

    guard = Guard(PlainTextResponse("in"), loopback_only=loopback_only, count=count)
    transport = httpx.ASGITransport(app=guard, client=(client, 1234))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as caller:
        return await caller.get("/v1/jobs", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        HERE,
        {"host": "localhost"},
        {"host": "[::1]:8000"},
        HERE | {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        HERE | {"sec-fetch-site": "none"},
    ],
)
async def test_this_machine_may(headers: dict[str, str]) -> None:
    answer = await ask(headers)
    assert answer.text == "in" and "default-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("headers", "client", "status"),
    [
        (HERE, "10.0.0.9", 403),
        (HERE, "2001:db8::1", 403),
        (HERE | {"x-forwarded-for": "10.0.0.9"}, "127.0.0.1", 403),
        ({"host": "rebound.example.org"}, "127.0.0.1", 421),  # a name that resolves to us
        ({"host": "127.0.0.1.example.org"}, "127.0.0.1", 421),
        ({"host": "[x"}, "127.0.0.1", 421),
        (HERE | {"origin": "https://evil.example.org"}, "127.0.0.1", 403),
        (HERE | {"origin": "null"}, "127.0.0.1", 403),
        (HERE | {"origin": "http://127.0.0.1:9999"}, "127.0.0.1", 403),
        (HERE | {"sec-fetch-site": "cross-site"}, "127.0.0.1", 403),
    ],
)
async def test_others_may_not(headers: dict[str, str], client: str, status: int) -> None:
    answer = await ask(headers, client)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_with_keys_anybody_may_ask(headers: None = None) -> None:
    answer = await ask({"host": "ct.example.org"}, "10.0.0.9", loopback_only=False)
    assert answer.text == "in"
