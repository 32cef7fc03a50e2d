from collections.abc import Iterator

import pytest

from raypipe.report.config import VllmConfig
from raypipe.report.model_source import find_model
from raypipe.report.vllm_engine import VllmEngine

SMALL = VllmConfig(
    kv_cache_gib=0.25, max_model_len=4096, max_num_seqs=16, max_loras=2, max_lora_rank=8
)


@pytest.fixture(scope="session")
def vllm_engine() -> Iterator[VllmEngine]:
    """One real engine with the real offline model for all tests."""
    engine = VllmEngine(find_model("smollm2"), SMALL, prefix=True)
    yield engine
    engine.close()
