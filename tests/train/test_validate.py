from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.geometry import Box
from raypipe.model.checkpoint import load_checkpoint
from raypipe.model.config import DetectorConfig
from raypipe.model.detector import Detector
from raypipe.phantom import Lesion
from raypipe.train import validate as validation
from raypipe.train.calibrate import best_threshold, calibrate, match_findings, platt
from raypipe.train.finish import finish
from raypipe.train.synthesis import SynthesisConfig
from raypipe.train.validate import Match, average_precision, froc_point, match_boxes
from raypipe.types import Detection, Finding
from raypipe.volume.preprocess import PreprocessConfig


def hit(score: float, label: str = "liver_cyst", *, subtle: bool = False) -> Match:
    return Match(label=label, score=score, hit=True, subtle=subtle)


def false(score: float, label: str = "liver_cyst") -> Match:
    return Match(label=label, score=score, hit=False)


def missed(label: str = "liver_cyst") -> Match:
    return Match(label=label, score=0.0, hit=False, missed=True)


def test_average_precision_by_hand() -> None:
    assert average_precision([hit(0.9), hit(0.8)]) == 1.0
    assert average_precision([false(0.9), hit(0.8)]) == 0.5
    assert average_precision([hit(0.9), missed()]) == 0.5
    # recall 1/3 at precision 1, recall 2/3 at precision 2/3, one missed
    found = [hit(0.9), false(0.8), hit(0.7), missed()]
    assert average_precision(found) == pytest.approx(1 / 3 + (1 / 3) * (2 / 3))
    assert average_precision([false(0.9)]) == 0.0


def test_froc_point_allows_so_many_false_ones() -> None:
    matches = [hit(0.9), false(0.8), hit(0.7), false(0.6), false(0.5), hit(0.4)]
    assert froc_point(matches, 2, 0.5) == pytest.approx(2 / 3)
    assert froc_point(matches, 1, 0.0) == pytest.approx(1 / 3)
    assert froc_point(matches, 3, 1.0) == 1.0


def box(y: float, x: float, size: float) -> Box:
    return Box(lower_zyx=(0.0, y, x), upper_zyx=(1.0, y + size, x + size))


def detection(y: float, x: float, size: float, score: float, label: str) -> Detection:
    return Detection(label=label, box_zyx=box(y, x, size), score=score)


def test_nothing_is_told_of_subtle_lesions_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store: Any = None
    detector: Any = None
    for matches, told in (([hit(0.9)], False), ([hit(0.9, subtle=True)], True)):
        monkeypatch.setattr(validation, "match_slices", lambda *_, found=matches: found)
        assert ("map50_subtle" in validation.validate(detector, store, [0])) == told


def test_each_true_box_is_found_once_and_only_by_its_label() -> None:
    found = [
        detection(10, 10, 10, 0.9, "liver_cyst"),
        detection(11, 10, 10, 0.8, "liver_cyst"),
        detection(50, 50, 10, 0.7, "liver_mass"),
        detection(56, 50, 10, 0.6, "liver_cyst"),
    ]
    matches = match_boxes(
        found,
        [box(10, 10, 10), box(50, 50, 10)],
        ["liver_cyst", "liver_cyst"],
        np.array([False, True]),
    )
    assert [(m.score, m.hit) for m in matches] == [
        (0.9, True),
        (0.8, False),
        (0.7, False),
        (0.6, False),
        (0.0, False),
    ]
    assert matches[-1].missed and matches[-1].subtle


def _finding(lower: tuple[float, float, float], size: float, score: float) -> Finding:
    z, y, x = lower
    return Finding(
        finding_id="F1",
        label="liver_cyst",
        box_zyx=Box(lower_zyx=lower, upper_zyx=(z + size, y + size, x + size)),
        center_lps_mm=(0.0, 0.0, 0.0),
        size_zyx_mm=(size, size, size),
        diameter_mm=size,
        mean_hu=0.0,
        side=None,
        level=None,
        score=score,
        key_slice=0,
    )


def test_findings_match_lesions_in_three_dimensions() -> None:
    lesion = Lesion(
        label="liver_cyst",
        box_zyx=Box(lower_zyx=(10.0, 10.0, 10.0), upper_zyx=(20.0, 20.0, 20.0)),
        center_lps_mm=(0.0, 0.0, 0.0),
        diameter_mm=10.0,
        mean_hu=5.0,
        contrast_hu=-50.0,
        side="right",
    )
    assert match_findings([_finding((14.0, 14.0, 14.0), 2.0, 0.5)], [lesion])[0].hit
    assert match_findings([_finding((12.0, 12.0, 12.0), 10.0, 0.5)], [lesion])[0].hit
    far = match_findings([_finding((19.0, 19.0, 19.0), 10.0, 0.5)], [lesion])
    assert [m.hit for m in far] == [False, False] and far[1].missed


def test_platt_recovers_what_made_the_data() -> None:
    rng = np.random.default_rng(0)
    score = rng.uniform(0.05, 0.95, 4000)
    logit = np.log(score / (1 - score))
    chance = 1 / (1 + np.exp(-(1.7 * logit - 0.6)))
    matches = [
        Match(label="a", score=float(s), hit=bool(rng.random() < p))
        for s, p in zip(score, chance, strict=True)
    ]
    slope, intercept = platt(matches)
    assert slope == pytest.approx(1.7, abs=0.15)
    assert intercept == pytest.approx(-0.6, abs=0.15)
    assert np.isfinite(platt([hit(0.9), false(0.1)])).all()
    assert platt([]) == pytest.approx((1.0, 0.0), abs=0.6)


def test_threshold_has_the_best_f1() -> None:
    matches = [hit(0.9), hit(0.8), hit(0.7), false(0.5), false(0.4), hit(0.3)]
    assert best_threshold(matches) == pytest.approx(0.6)


def test_rare_labels_take_the_pooled_fit() -> None:
    many = [hit(0.5 + i / 100) for i in range(20)] + [false(0.2 + i / 100) for i in range(20)]
    result = calibrate([*many, hit(0.9, "renal_cyst")], 10, ["liver_cyst", "renal_cyst"])
    assert result.thresholds["liver_cyst"] == pytest.approx(0.445, abs=0.01)
    assert result.calibration.slope["renal_cyst"] == pytest.approx(
        round(platt([*many, hit(0.9)])[0], 4)
    )
    assert result.metrics["fp"] == 0.0 and result.metrics["sensitivity"] == 1.0
    assert result.metrics["map"] == 1.0


def test_weights_are_finished_on_whole_series(tmp_path: Path) -> None:
    """Random weights find nothing, but the path from series to thresholds is walked."""
    target = tmp_path / "a.safetensors"
    fingerprint = PreprocessConfig().fingerprint
    detector = Detector(DetectorConfig(weights="random"), fingerprint)
    info = detector.info.model_copy(update={"training": {"metrics": {"map50": 0.5}}})
    state = detector.network.state_dict()
    metrics = finish(state, info, target, SynthesisConfig(phantom_series=1, seed=40), threads=None)
    assert metrics["series/series"] == 1.0 and metrics["series/lesions"] >= 1.0
    tensors, finished, _ = load_checkpoint(target)
    assert set(finished.thresholds) == set(detector.labels)
    assert finished.calibration is not None
    assert set(finished.calibration.slope) == set(detector.labels)
    assert finished.training["metrics"]["map50"] == 0.5
    assert set(tensors) == set(state)
    assert finish(state, info, target, SynthesisConfig(phantom_series=0), threads=None) == {}
