from raypipe.report.engine import EchoEngine, FinishReason, GenerationRequest, Message


def _request(example: str) -> GenerationRequest:
    message = Message(role="user", content="x")
    return GenerationRequest(messages=(message,), grammar=None, max_tokens=9, example=example)


def test_the_fake_says_that_it_is_one() -> None:
    assert "fake" in EchoEngine().name


def test_the_fake_answers_in_order() -> None:
    engine = EchoEngine()
    first, second = engine.generate([_request("a b c"), _request("d")])
    assert (first.text, first.tokens, second.text) == ("a b c", 3, "d")
    assert first.finish_reason is FinishReason.STOP
    assert [request.example for request in engine.requests] == ["a b c", "d"]
    assert EchoEngine(lambda r: "x").generate([_request("a")])[0].text == "x"
