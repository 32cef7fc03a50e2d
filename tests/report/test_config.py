import pytest
from pydantic import ValidationError

from raypipe.report.config import ReportConfig, ServerConfig


def test_a_server_needs_an_address() -> None:
    with pytest.raises(ValidationError, match=r"report\.server\.url"):
        ReportConfig(engine="openai", server=ServerConfig(url="localhost"))
    assert ReportConfig(engine="openai").server.url.startswith("http")


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ValidationError, match="beam"):
        ReportConfig.model_validate({"beam": 4})


def test_the_default_is_greedy_and_real() -> None:
    config = ReportConfig()
    assert config.engine == "vllm" and config.temperature == 0.0
