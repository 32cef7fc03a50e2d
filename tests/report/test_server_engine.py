import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from raypipe.errors import ConfigError, EngineError
from raypipe.report.config import ServerConfig
from raypipe.report.engine import FinishReason, GenerationRequest, Message
from raypipe.report.server_engine import ServerEngine

seen: list[tuple[dict[str, Any], str | None]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append((body, self.headers.get("Authorization")))
        order = body["messages"][-1]["content"]
        if order == "slow":
            time.sleep(1.5)
        choice = {
            "index": 0,
            "finish_reason": "length" if order == "long" else "stop",
            "message": {"role": "assistant", "content": f"answer to {order}"},
        }
        usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        self._send({**head, "choices": [choice], "usage": usage}, 400 if order == "bad" else 200)

    def _send(self, answer: dict[str, Any], status: int) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    seen.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def _request(order: str) -> GenerationRequest:
    messages = (Message(role="system", content="s"), Message(role="user", content=order))
    return GenerationRequest(messages=messages, grammar='root ::= "a"', max_tokens=11, seed=5)


def test_the_grammar_and_limits_travel(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url), "my-model")
    (completion,) = engine.generate([_request("x")])
    engine.close()
    assert (completion.text, completion.tokens) == ("answer to x", 7)
    assert completion.finish_reason is FinishReason.STOP
    body, _ = seen[0]
    assert body["structured_outputs"] == {"grammar": 'root ::= "a"'}
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("my-model", 11, 0.0)
    assert body["seed"] == 5 and len(body["messages"]) == 2


def test_a_request_that_fails_costs_only_itself(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url, retries=0), "m", request_timeout_s=0.5)
    completions = engine.generate([_request(o) for o in ("a", "bad", "long", "slow", "b")])
    engine.close()
    assert [c.finish_reason.value for c in completions] == [
        "stop",
        "error",
        "length",
        "timeout",
        "stop",
    ]
    assert completions[4].text == "answer to b"


def test_the_key_comes_from_the_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ServerConfig(url=url, api_key_variable="RAYPIPE_TEST_KEY")
    monkeypatch.delenv("RAYPIPE_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="RAYPIPE_TEST_KEY"):
        ServerEngine(config, "m")
    monkeypatch.setenv("RAYPIPE_TEST_KEY", "secret")
    engine = ServerEngine(config, "m")
    engine.generate([_request("x")])
    engine.close()
    assert seen[0][1] == "Bearer secret"


def test_a_server_that_is_down_is_an_engine_error() -> None:
    engine = ServerEngine(ServerConfig(url="http://127.0.0.1:9/v1", retries=0), "m")
    with pytest.raises(EngineError, match="server up"):
        engine.generate([_request("x")])
    engine.close()
