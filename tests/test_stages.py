"""The stages: whatever happens to a series, its row comes back, and says nothing of a patient."""

from typing import Any

import pytest

from raypipe import stages
from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.config import RaypipeConfig, load_config
from raypipe.errors import EngineError, Reason, SeriesError
from raypipe.phantom import write_bulk_archive
from raypipe.sink.schema import RESULT_SCHEMA, to_table
from raypipe.stages import Describe, Detect, Load, Prepare, Row

CONFIG = load_config(overrides=["report.engine=template", "detector.weights=random"])


@pytest.fixture(scope="module")
def manifest_row(tmp_path_factory: pytest.TempPathFactory) -> Row:
    folder = tmp_path_factory.mktemp("stages")
    write_bulk_archive(folder / "a", n_series=1, seed=9, shape_zyx=(5, 96, 96))
    build_index(str(folder / "a"), str(folder / "m"), CONFIG.index, lambda *_: None)
    row: Row = read_manifest(str(folder / "m"), CONFIG.archive.storage).to_pylist()[0]
    return row


@pytest.fixture(scope="module")
def describe() -> Describe:
    return Describe(CONFIG)


def _prepared(row: Row, config: RaypipeConfig = CONFIG) -> Row:
    return Prepare(config)(Load(config)(row))


def test_four_stages_make_a_complete_row(manifest_row: Row, describe: Describe) -> None:
    (row,) = describe([Detect(CONFIG)(_prepared(manifest_row))])
    assert (row["status"], row["reason"], row["shape_zyx"]) == ("ok", None, [5, 96, 96])
    assert row["report"]["findings"] and row["report"]["impression"]
    assert all(row["timings"][stage] > 0 for stage in ("load", "prepare", "detect", "describe"))
    assert all(row["provenance"].values())
    assert len(row["features"]) > 1
    assert set(row) == set(RESULT_SCHEMA.names)
    to_table([row], RESULT_SCHEMA)


def test_a_series_error_becomes_status_reason_and_message(
    manifest_row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise SeriesError(Reason.SLICE_GAP, "3 slices are missing")

    monkeypatch.setattr(stages, "to_volume", refuse)
    row = _prepared(manifest_row)
    assert (row["status"], row["reason"]) == ("rejected", "slice_gap")
    assert row["message"] == "3 slices are missing"
    assert "prepare" not in row["timings"]


@pytest.mark.parametrize("stage", ["read_series", "to_volume", "preprocess"])
def test_any_other_error_becomes_a_row_without_its_text(
    manifest_row: Row, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def crash(*_: Any) -> None:
        raise ZeroDivisionError("DOE^JANE")

    monkeypatch.setattr(stages, stage, crash)
    row = _prepared(manifest_row)
    assert (row["status"], row["reason"]) == ("failed", "internal_error")
    assert "ZeroDivisionError" in row["message"]
    assert "DOE" not in str(row)


def test_an_error_while_detecting_becomes_a_row(
    manifest_row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(stages, "assemble_findings", crash)
    row = Detect(CONFIG)(_prepared(manifest_row))
    assert (row["status"], row["reason"]) == ("failed", "internal_error")
    assert "model_input" not in row


def test_a_dead_engine_fails_its_batch_and_leaves_rejected_rows_alone(
    manifest_row: Row, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise EngineError("gone")

    detected = Detect(CONFIG)(_prepared(manifest_row))
    rejected = stages.start_row(manifest_row | {"status": "rejected", "reason": "localizer"})
    monkeypatch.setattr(describe._reporter, "describe", die)
    rows = describe([detected, rejected])
    assert [row["reason"] for row in rows] == ["engine_failed", "localizer"]
    assert [row["status"] for row in rows] == ["failed", "rejected"]


def test_an_error_while_describing_becomes_rows_without_its_text(
    manifest_row: Row, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: Any) -> None:
        raise AttributeError("DOE^JANE")

    detected = Detect(CONFIG)(_prepared(manifest_row))
    monkeypatch.setattr(describe._reporter, "describe", crash)
    (row,) = describe([detected])
    assert (row["status"], row["reason"]) == ("failed", "internal_error")
    assert "AttributeError in the stage describe" in row["message"]
    assert "DOE" not in str(row) and set(row) == set(RESULT_SCHEMA.names)


def test_rejected_rows_pass_through_untouched(manifest_row: Row, describe: Describe) -> None:
    refused = manifest_row | {"status": "rejected", "reason": "not_ct", "message": "modality MR"}
    (row,) = describe([Detect(CONFIG)(_prepared(refused))])
    assert (row["status"], row["reason"], row["message"]) == ("rejected", "not_ct", "modality MR")
    assert row["findings"] is None and row["report"] is None


def test_instance_ids_are_keyed_unless_the_config_asks_for_plain_ones(
    manifest_row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    uids = {i["instance_uid"] for i in manifest_row["instances"]}
    low = ["findings.threshold=0.001", "findings.slice_floor=0", "detector.score_floor=0"]
    low += ["findings.plausible_only=false"]
    for plain in (False, True):
        config = load_config(
            overrides=[
                *("report.engine=template", "detector.weights=random", f"sink.plain_uids={plain}"),
                *low,
            ]
        )
        row = Detect(config)(_prepared(manifest_row, config))
        ids = {f["instance_id"] for f in row["findings"]}
        assert ids, "random weights with no threshold find something"
        assert (ids <= uids) is plain


def test_concurrent_calls_share_the_time_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    clock = stages._SharedClock()
    first = clock.start()
    now[0] = 4.0
    second = clock.start()
    now[0] = 10.0
    assert clock.stop(first) == pytest.approx(4.0 + 3.0)
    now[0] = 11.0
    assert clock.stop(second) == pytest.approx(3.0 + 1.0)
    now[0] = 20.0
    third = clock.start()
    assert clock.stop(third) == 0.0
