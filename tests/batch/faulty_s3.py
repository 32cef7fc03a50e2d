"""An S3 server (moto) that answers some requests with a fault: a reverse proxy in its own process.

In: how often. Out: an address; counts of requests and faults. Does not know: who asks for what.
"""

import random
from collections.abc import Callable, Iterable
from threading import Lock, Thread
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

_FAULTS = (("500 Internal Server Error", "InternalError"), ("503 Slow Down", "SlowDown"))


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        """Say nothing."""


class FaultyS3:
    """The server; a context manager.

    Args:
        share: of the requests that end badly, from 0 to 1.
        seed: of the draw.
    """

    def __init__(self, share: float, seed: int = 0) -> None:
        self.share, self.requests, self.faults = share, 0, 0
        self._app: Any = DomainDispatcherApplication(create_backend_app)
        self._rng, self._lock = random.Random(seed), Lock()
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet
        )
        self._thread = Thread(target=self._server.serve_forever, daemon=True)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FaultyS3":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()

    def _answer(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            fault = self._rng.random() < self.share
            self.faults += fault
            status, code = self._rng.choice(_FAULTS)
        if not fault:
            answer: Iterable[bytes] = self._app(environ, start_response)
            return answer
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = f"<Error><Code>{code}</Code><Message>try again</Message></Error>".encode()
        head = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start_response(status, head)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
