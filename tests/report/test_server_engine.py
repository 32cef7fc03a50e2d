import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from raypipe.errors import ConfigError, EngineError
from raypipe.report.config import ServerConfig
from raypipe.report.engine import Decoding, FinishReason, GenerationRequest, Message
from raypipe.report.server_engine import ServerEngine

_TOKEN: dict[str, Any] = {"bytes": None, "top_logprobs": []}
over = threading.Event()
lock = threading.Lock()
load = [0, 0]  # requests that the server works on now, and at most
seen: list[tuple[dict[str, Any], str | None]] = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        with lock:
            load[0] += 1
            load[1] = max(load)
        try:
            self._answer()
        finally:
            with lock:
                load[0] -= 1

    def _answer(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        seen.append((body, self.headers.get("Authorization")))
        order = body["messages"][-1]["content"]
        if order.startswith("call"):
            over.wait(0.01)
        if order == "slow":
            over.wait(20)
        choices = [
            {
                "index": index,
                "finish_reason": "length" if order == "long" or index == 1 else "stop",
                "message": {"role": "assistant", "content": f"answer to {order}{index or ''}"},
                "logprobs": {"content": [{"token": "a", "logprob": index - 9.0, **_TOKEN}]},
            }
            for index in range(body.get("n", 1))
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}
        head = {"id": "1", "object": "chat.completion", "created": 1, "model": body["model"]}
        status = {"bad": 400, "no key": 401, "forbidden": 403}.get(order, 200)
        self._send({**head, "choices": choices, "usage": usage}, status)

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
    over.clear()
    load[:] = [0, 0]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    over.set()
    server.shutdown()
    server.server_close()


def _request(order: str, **fields: Any) -> GenerationRequest:
    messages = (Message(role="system", content="s"), Message(role="user", content=order))
    grammar = 'root ::= "a"'
    return GenerationRequest(messages=messages, grammar=grammar, max_tokens=11, **fields)


def test_the_grammar_and_limits_travel(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url), "my-model")
    (completion,) = engine.generate([_request("x")])
    engine.close()
    assert (completion.text, completion.tokens) == ("answer to x", 7)
    assert completion.finish_reason is FinishReason.STOP
    body, _ = seen[0]
    assert body["structured_outputs"] == {"grammar": 'root ::= "a"'}
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("my-model", 11, 0.0)
    assert len(body["messages"]) == 2


def test_a_request_that_fails_costs_only_itself(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url, retries=0), "m", request_timeout_s=3.0)
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


def test_several_draws_come_back_the_likeliest_first(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url), "m")
    best_of = Decoding(method="best_of", temperature=0.5, width=3, seed=8)
    (completion,) = engine.generate([_request("x", decoding=best_of)])
    engine.close()
    body, _ = seen[0]
    assert (body["n"], body["seed"], body["temperature"]) == (3, 8, 0.5)
    # the second one was cut off, so it is no candidate
    assert [c.text for c in completion.candidates] == ["answer to x2", "answer to x"]
    assert completion.text == "answer to x2" and completion.candidates[0].log_probability == -7.0


def test_concurrent_calls_share_the_connections(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url, max_connections=3), "m")
    batches = [[_request(f"call {i} {j}") for j in range(4)] for i in range(5)]
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(engine.generate, batches))
    texts = [[c.text for c in completions] for completions in answers]
    assert texts == [[f"answer to call {i} {j}" for j in range(4)] for i in range(5)]
    assert 1 <= load[1] <= 3
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate(batches[0])


def test_an_adapter_takes_the_place_of_the_models_name(url: str) -> None:
    engine = ServerEngine(ServerConfig(url=url), "m")
    engine.generate([_request("x", adapter="chest-v1"), _request("y")])
    engine.close()
    assert {body["messages"][1]["content"]: body["model"] for body, _ in seen} == {
        "x": "chest-v1",
        "y": "m",
    }
    assert engine.name_with("chest-v1") == "m + chest-v1" and engine.name_with("") == "m"


def test_a_beam_search_is_refused() -> None:
    engine = ServerEngine(ServerConfig(), "m")
    with pytest.raises(ConfigError, match="no beam search"):
        engine.generate([_request("x", decoding=Decoding(method="beam", width=2))])
    engine.close()


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


@pytest.mark.parametrize("order", ["no key", "forbidden"])
def test_a_key_that_is_refused_is_an_engine_error(url: str, order: str) -> None:
    engine = ServerEngine(ServerConfig(url=url), "m")
    with pytest.raises(EngineError, match="refused the key"):
        engine.generate([_request(order)])
    engine.close()
