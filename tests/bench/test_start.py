"""The wait for the first result, with real jobs and a real loop."""

from pathlib import Path

import pytest

from raypipe.bench.start import COLD, LOOP, WARM, bench_start
from raypipe.config import load_config
from tests.tiny_detector import fast_settings


@pytest.mark.slow
def test_a_warm_start_is_shorter_than_a_cold_one(tmp_path: Path) -> None:
    steps: list[str] = []
    result = bench_start(
        tmp_path,
        load_config(overrides=fast_settings()),
        shape_zyx=(4, 64, 64),
        runs=1,
        on_step=steps.append,
    )
    assert steps == ["loop 1 of 1", "jobs 1 of 1"]
    first = {t.name: t.first_s for t in result.times}
    # a cold start is the warm one and the imports and Ray beside it: never close to each other
    assert 0 < first[WARM] < first[COLD]
    assert first[LOOP] > 0
