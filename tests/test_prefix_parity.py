"""What Detect saw reaches the prompt unchanged, whichever way the row travels."""

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.config import RaypipeConfig, load_config
from raypipe.errors import ConfigError
from raypipe.model.attended import attended_width
from raypipe.model.detector import Detector
from raypipe.phantom import write_bulk_archive
from raypipe.report import reporter
from raypipe.report.engine import EchoEngine, GenerationRequest
from raypipe.report.model_source import find_model
from raypipe.report.prefix import Projector, ProjectorInfo, language_model_hash, save_projector
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import ATTENDED, Describe, Detect, Load, Prepare, Row
from tests.report.prefixes import write_model

LOW = (
    *("findings.threshold=0.001", "findings.slice_floor=0", "detector.score_floor=0"),
    *("findings.plausible_only=false", "findings.max_findings=6", "detector.threads=1"),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RaypipeConfig:
    """Untrained weights with no threshold find something anywhere."""
    folder = tmp_path_factory.mktemp("prefix")
    model = write_model(folder / "model")
    plain = load_config(overrides=["detector.weights=random", *LOW])
    detector = Detector(plain.detector, plain.preprocess.fingerprint)
    info = ProjectorInfo(
        features=attended_width(detector),
        hidden=4,
        tokens=2,
        width=8,
        language_model=language_model_hash(find_model(str(model))),
        detector=detector.weights_hash,
        adapter="",
    )
    torch.manual_seed(0)
    projector = Projector(info.features, info.hidden, info.tokens, info.width)
    save_projector(folder / "p.safetensors", projector, info)
    told = (f"report.language_model={model}", f"report.prefix={folder / 'p.safetensors'}")
    return load_config(overrides=["detector.weights=random", *LOW, *told])


@pytest.fixture(scope="module")
def prepared(config: RaypipeConfig, tmp_path_factory: pytest.TempPathFactory) -> Row:
    folder = tmp_path_factory.mktemp("archive")
    write_bulk_archive(folder / "a", n_series=1, seed=9, shape_zyx=(5, 96, 96))
    build_index(str(folder / "a"), str(folder / "m"), config.index, lambda *_: None)
    row: Row = read_manifest(str(folder / "m"), config.archive.storage).to_pylist()[0]
    return Prepare(config)(Load(config)(row))


@pytest.fixture(scope="module")
def detected(config: RaypipeConfig, prepared: Row) -> Row:
    return Detect(config)(pickle.loads(pickle.dumps(prepared)))


def _described(
    config: RaypipeConfig, row: Row, monkeypatch: pytest.MonkeyPatch
) -> tuple[Row, list[GenerationRequest]]:
    engine = EchoEngine()
    monkeypatch.setattr(reporter, "start_engine", lambda _: engine)
    (done,) = Describe(config)([row])
    return done, engine.requests


def test_detect_keeps_a_vector_of_each_finding_and_describe_drops_it(
    config: RaypipeConfig, prepared: Row, detected: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert detected["status"] == "ok" and len(detected[ATTENDED]) == len(detected["findings"]) > 1
    done, (request,) = _described(config, dict(detected), monkeypatch)
    assert request.prefix is not None
    assert request.prefix.shape == (2 * len(detected["findings"]), 8)
    assert set(done) == set(RESULT_SCHEMA.names) and "visual prefix" in done["report"]["model"]
    # the findings are those of a run without a prefix, to the last bit
    without = load_config(overrides=["detector.weights=random", "report.engine=template", *LOW])
    plain = Detect(without)(pickle.loads(pickle.dumps(prepared)))
    assert ATTENDED not in plain and plain["findings"] == detected["findings"]
    assert plain["features"] == detected["features"]


def test_the_same_prefix_by_arrow_and_by_pickle(
    config: RaypipeConfig, detected: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = (ATTENDED, pa.list_(pa.list_(pa.float32())))
    schema = pa.schema([*RESULT_SCHEMA, vectors])
    (by_arrow,) = to_table([detected], schema).to_pylist()
    ways: dict[str, Any] = {
        "direct": dict(detected),
        "arrow": by_arrow,
        "pickle": pickle.loads(pickle.dumps(detected)),
    }
    found = {w: _described(config, row, monkeypatch)[1][0] for w, row in ways.items()}
    for request in found.values():
        assert request.messages == found["direct"].messages
        np.testing.assert_array_equal(request.prefix, found["direct"].prefix)


def test_detect_refuses_a_projector_of_another_detector(config: RaypipeConfig) -> None:
    other = config.model_copy(update={"detector": config.detector.model_copy(update={"seed": 1})})
    with pytest.raises(ConfigError, match="random-0"):
        Detect(other)
