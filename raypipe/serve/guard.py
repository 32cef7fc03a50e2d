"""What stands before every route: who may connect at all, headers of every answer, counting.

In: ASGI messages. Out: the same, with headers; refusals as problem+json. Does not know: routes.

Where no key is asked for, only this machine may call: the peer and the Host are loopback, no proxy
speaks for somebody else, and a browser calls from our own page only. So a web page that somebody
visits cannot reach the service through that browser, also not by a name that it makes resolve here.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from raypipe.serve.config import is_loopback
from raypipe.serve.metrics import Seen
from raypipe.serve.problems import Problem

PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; connect-src 'self' blob: data:; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; "
    "require-trusted-types-for 'script'"
)
_DOCS_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
}
_FORWARDED = (b"x-forwarded-for", b"forwarded", b"x-real-ip")
_FLUSH_S = 1.0

Count = Callable[[list[Seen]], Awaitable[Any]]


class Guard:
    """ASGI middleware around the whole app.

    Args:
        app: what is guarded.
        loopback_only: whether nobody is asked for a key.
        count: takes what was answered, now and then.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool, count: Count) -> None:
        self._app, self._loopback_only, self._count = app, loopback_only, count
        self._seen: list[Seen] = []
        self._flushing: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def answer(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_added(scope, message)]
            await send(message)

        refused = _refused(scope) if self._loopback_only else None
        try:
            if refused is not None:
                await refused.response()(scope, receive, answer)
            else:
                await self._app(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            self._note((method, route, status, time.perf_counter() - started))

    def _note(self, seen: Seen) -> None:
        self._seen.append(seen)
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.create_task(self._flush())

    async def _flush(self) -> None:
        await asyncio.sleep(_FLUSH_S)
        seen, self._seen = self._seen, []
        await self._count(seen)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def _added(scope: Scope, message: MutableMapping[str, Any]) -> list[tuple[bytes, bytes]]:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    policy = _DOCS_POLICY if path in ("/docs", "/redoc") else PAGE_POLICY
    headers = dict(_HEADERS) | {b"content-security-policy": policy.encode()}
    if path.startswith(("/v1", "/dicomweb")):
        headers[b"cache-control"] = b"no-store"
    elif path.startswith("/static/") or path == "/":
        headers[b"cache-control"] = b"no-cache"  # kept, but asked for again: updates show at once
    present = {name.lower() for name, _ in message.get("headers", ())}
    return [(name, value) for name, value in headers.items() if name not in present]


def _refused(scope: Scope) -> Problem | None:
    headers: dict[bytes, bytes] = dict(scope["headers"])
    client = scope.get("client")
    if client is not None and client[0] and not is_loopback(client[0]):
        return Problem(403, "not_loopback", "without keys the service answers this machine alone")
    if any(name in headers for name in _FORWARDED):
        return Problem(403, "not_loopback", "without keys the service answers no proxy")
    host = _host(headers.get(b"host", b"").decode("latin-1"))
    if not is_loopback(host):
        return Problem(421, "wrong_host", "without keys the Host must be a loopback address")
    origin = headers.get(b"origin")
    if origin is not None and not _same(origin.decode("latin-1"), headers.get(b"host", b"")):
        return Problem(403, "wrong_origin", "another site may not call")
    if headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin"):
        return Problem(403, "wrong_origin", "another site may not call")
    return None


def _host(value: str) -> str:
    try:
        return urlsplit(f"//{value}").hostname or ""
    except ValueError:
        return ""


def _same(origin: str, host: bytes) -> bool:
    try:
        return urlsplit(origin).netloc == host.decode("latin-1")
    except ValueError:
        return False
