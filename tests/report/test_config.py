import pytest
from pydantic import ValidationError

from raypipe.config import load_config
from raypipe.errors import ConfigError
from raypipe.report.config import DecodingConfig, ReportConfig, ServerConfig


def test_a_server_needs_an_address() -> None:
    with pytest.raises(ValidationError, match=r"report\.server\.url"):
        ReportConfig(engine="openai", server=ServerConfig(url="localhost"))
    assert ReportConfig(engine="openai").server.url.startswith("http")


def test_an_unknown_key_is_an_error() -> None:
    with pytest.raises(ValidationError, match="beam"):
        ReportConfig.model_validate({"beam": 4})


def test_the_default_is_greedy_and_real() -> None:
    config = ReportConfig()
    assert config.engine == "vllm" and config.decoding.method == "greedy"


def test_a_server_has_no_beam_search_and_loads_its_own_adapters() -> None:
    with pytest.raises(ConfigError, match="OpenAI protocol has no beam search"):
        load_config(overrides=["report.engine=openai", "report.decoding.method=beam"])
    with pytest.raises(ValidationError, match="a server loads its own"):
        ReportConfig(engine="openai", adapters={"a": "/a"})
    with pytest.raises(ValidationError, match="fixed sentences have no model"):
        ReportConfig(engine="template", adapter="a")


@pytest.mark.parametrize("adapter_id", ["", "a b", "../a", "[F1]", "-a", "a" * 65])
def test_an_adapter_has_a_plain_id(adapter_id: str) -> None:
    with pytest.raises(ValidationError, match=r"report\.adapters: the id"):
        ReportConfig(adapters={adapter_id: "/a"})


def test_an_uncertain_beam_is_not_the_narrower_one() -> None:
    with pytest.raises(ValidationError, match="at least beam_width"):
        DecodingConfig(beam_width=8, beam_width_uncertain=4)


def test_only_listed_fields_of_a_header_can_be_allowed() -> None:
    assert ReportConfig().allow_header_text == ()
    with pytest.raises(ConfigError, match="PatientName"):
        load_config(overrides=["report.allow_header_text=[PatientName]"])
