"""Faults of an S3 server that pass: which are tried again, how long the waits are."""

import pickle
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from raypipe.archive.retry import backoff_s, is_transient, retry_handler
from raypipe.archive.storage import StorageConfig, filesystem_for, list_objects, read_bytes
from raypipe.errors import Reason, SeriesError

FAST = {"backoff_base_s": 0.001, "backoff_cap_s": 0.002}


def _answer(status: int, code: str = "") -> tuple[Any, dict[str, Any]]:
    return SimpleNamespace(status_code=status), {"Error": {"Code": code}} if code else {}


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (500, "InternalError", True),
        (503, "SlowDown", True),
        (503, "", True),
        (429, "", True),
        (400, "RequestTimeout", True),
        (403, "RequestThrottled", True),
        (404, "NoSuchKey", False),
        (403, "AccessDenied", False),
        (200, "", False),
        (501, "NotImplemented", False),
    ],
)
def test_which_answers_are_transient(status: int, code: str, wanted: bool) -> None:
    assert is_transient(_answer(status, code), None) is wanted


def test_which_exceptions_are_transient() -> None:
    for error in (
        EndpointConnectionError(endpoint_url="x"),
        ConnectionClosedError(endpoint_url="x"),
        ReadTimeoutError(endpoint_url="x"),
    ):
        assert is_transient(None, error)
    assert not is_transient(None, NoCredentialsError())


def test_waits_grow_to_a_cap_and_are_spread() -> None:
    waits = {n: [backoff_s(n, 0.5, 4.0) for _ in range(500)] for n in (1, 2, 9)}
    for n, longest in ((1, 0.5), (2, 1.0), (9, 4.0)):
        assert 0.9 * longest < max(waits[n]) <= longest
        assert min(waits[n]) < 0.1 * longest


def test_the_handler_gives_up_after_the_last_retry() -> None:
    handle = retry_handler(2, 0.5, 4.0)
    fault = _answer(503)
    assert handle(attempts=1, response=fault) and handle(attempts=2, response=fault)
    assert handle(attempts=3, response=fault) is None
    assert handle(attempts=1, response=_answer(404)) is None


class _Faulty(ThreadingHTTPServer):
    """A server of one object that fails in another way at each of the first tries."""

    daemon_threads = True

    def __init__(self, faults: tuple[str, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _FaultyHandler)
        self.faults, self.asked = list(faults), Counter[str]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, *_: Any) -> None:
        """Connections that are cut on purpose are no news."""


class _FaultyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Faulty

    def do_GET(self) -> None:
        fault = self.server.faults.pop(0) if self.server.faults else ""
        self.server.asked[fault or "served"] += 1
        if fault == "reset":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = b"" if fault.isdigit() else b"pixels"
        self.send_response(int(fault) if fault.isdigit() else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:3] if fault == "cut" else body)
        if fault == "cut":
            self.close_connection = True

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Faulty]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    server = _Faulty(("500", "503", "reset", "cut", "429"))
    yield server
    server.shutdown()
    server.server_close()


def _config(server: _Faulty, **options: Any) -> StorageConfig:
    return StorageConfig(
        s3_endpoint=f"http://127.0.0.1:{server.server_port}",
        s3_region="us-east-1",
        **FAST,
        **options,
    )


def test_every_kind_of_fault_is_outlived(faulty: _Faulty) -> None:
    assert read_bytes("s3://archive/x", _config(faulty)) == b"pixels"
    assert faulty.asked == {"500": 1, "503": 1, "reset": 1, "cut": 1, "429": 1, "served": 1}


def test_a_fault_that_stays_becomes_a_reason(faulty: _Faulty) -> None:
    faulty.faults = ["500"] * 100
    for ask in (read_bytes, list_objects):
        with pytest.raises(SeriesError) as caught:
            ask("s3://archive/x", _config(faulty, retries=2))
        assert caught.value.reason is Reason.SOURCE_UNREADABLE


def test_the_filesystem_travels_with_its_patience(faulty: _Faulty) -> None:
    """Ray hands it to workers by pickle."""
    filesystem, path = filesystem_for("s3://archive/x", _config(faulty))
    again = pickle.loads(pickle.dumps(filesystem))
    assert again.storage_options == filesystem.storage_options
    again.clear_instance_cache()
    fresh = pickle.loads(pickle.dumps(filesystem))
    assert fresh is not filesystem
    assert fresh.cat_file(path) == b"pixels"
