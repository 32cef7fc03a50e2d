from pathlib import Path

import pytest

from raypipe.train.dataset import SampleStore
from raypipe.train.synthesis import SynthesisConfig, make_store

TINY = SynthesisConfig(phantom_series=4, slices_per_series=6, slab_slices=(6, 8), seed=11)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> SampleStore:
    folder: Path = tmp_path_factory.mktemp("slices")
    return make_store(folder, TINY)
