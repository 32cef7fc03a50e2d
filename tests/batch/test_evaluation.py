"""Rows beside the truth: the same series, the same grid, nothing lost in silence."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.batch.case_views import CaseViewer
from raypipe.batch.evaluation import Cohort, join, load_cohort, series_finder
from raypipe.errors import ConfigError
from raypipe.evaluate.config import DetectionEvaluationConfig
from raypipe.evaluate.truth import KnownSeries, KnownTruth
from raypipe.model.attention import attention_of
from raypipe.model.detector import Detector
from raypipe.stages import geometry_of
from tests.batch.finished_run import FinishedRun, finished_run

MEASURES = DetectionEvaluationConfig(match_iou=0.1, threshold=0.5)


@pytest.fixture(scope="module")
def run() -> FinishedRun:
    return finished_run()


@pytest.fixture(scope="module")
def cohort(run: FinishedRun) -> Cohort:
    return load_cohort(run.output, str(run.truth), run.config)


def test_boxes_of_the_truth_lie_where_the_lesions_are(run: FinishedRun, cohort: Cohort) -> None:
    assert len(cohort.truths) == 5 and not cohort.left_out
    for truth in cohort.truths:
        row = cohort.rows[truth.series_key]
        wanted = {tuple(np.round(t["center_lps_mm"], 3)) for t in run.truth_of(row).lesions}
        placed = {
            tuple(np.round(geometry_of(row).to_lps_mm(t.box_zyx.center_zyx), 3))
            for t in truth.lesions
        }
        tilted = "gantry_tilt" in row["flags"]
        assert placed == wanted or (tilted and len(placed) == len(wanted))
    assert len(cohort.repaired) == 1


def test_series_scores_come_from_labels_or_findings(run: FinishedRun, cohort: Cohort) -> None:
    first = next(c for c in cohort.claims if c.claims)
    label = first.claims[0].label
    pairs = {p["label"]: p["score"] for p in cohort.rows[first.series_key]["label_scores"]}
    assert first.image_score(label) == pairs[label]
    by_findings = load_cohort(run.output, str(run.truth), run.config, scores="findings")
    again = next(c for c in by_findings.claims if c.series_key == first.series_key)
    assert again.image_score(label) == 0.9


def test_a_file_or_a_folder_names_a_series(run: FinishedRun) -> None:
    find = series_finder(run.output, run.config)
    path = Path(run.truths[0].paths[0])
    key = find(str(path))
    assert key is not None
    assert find(str(path.parent)) == find(f"./{path}") == key
    assert find(str(Path(run.output.path).parent / "archive" / path)) == key
    assert find("elsewhere/" + path.name) is None
    with pytest.raises(ConfigError, match=r"fits \d series"):
        find(path.name)


def test_what_cannot_be_compared_is_told(run: FinishedRun, tmp_path: Path) -> None:
    keys = [row["series_key"] for row in run.output.iterate_rows(["series_key"])]
    rows = [
        {"series_key": keys[0], "label": None, "source": None},
        {"series_key": "not-there", "label": None, "source": None},
        {"series_key": None, "label": None, "source": "nowhere.dcm"},
    ]
    truth = tmp_path / "truth.parquet"
    pq.write_table(pa.Table.from_pylist(rows), truth)
    cohort = load_cohort(run.output, str(truth), run.config)
    assert [t.series_key for t in cohort.truths] == [keys[0]]
    assert cohort.left_out == {
        "file names of the truth that are not in the manifest": 1,
        "series of the truth without a result row": 1,
        "result rows without a truth": 4,
    }
    pq.write_table(pa.Table.from_pylist(rows[1:2]), truth)
    with pytest.raises(ConfigError, match="names no series of these results"):
        load_cohort(run.output, str(truth), run.config)
    with pytest.raises(ConfigError, match="no such file"):
        load_cohort(run.output, str(tmp_path / "none.json"), run.config)


def test_failed_rows_miss_and_pictures_have_no_place(cohort: Cohort) -> None:
    truth = next(t for t in cohort.truths if t.lesions)
    row, key = cohort.rows[truth.series_key], truth.series_key
    known = KnownSeries(series_key=key, lesions=truth.lesions, geometry=geometry_of(row))
    failed = join({key: {**row, "status": "failed"}}, KnownTruth(series=(known,)))
    assert (failed.truths[0].lesions, failed.claims[0].claims) == (truth.lesions, ())
    other = KnownSeries(series_key="other", lesions=())
    both = {key: {**row, "flags": ["no_geometry"]}, "other": row}
    picture = join(both, KnownTruth(series=(known, other)))
    assert [t.series_key for t in picture.truths] == ["other"]
    assert sum(picture.left_out.values()) == 1
    bare = replace(known, geometry=None)  # boxes on the picture's own grid need no place
    assert len(join(both, KnownTruth(series=(bare,))).truths) == 1


def test_sizes_are_told_where_there_is_a_scale(cohort: Cohort) -> None:
    """Also of series that failed, so that none is missing among the sizes; not of pictures."""
    truth = next(t for t in cohort.truths if t.lesions)
    row, key = cohort.rows[truth.series_key], truth.series_key
    bare = tuple(replace(lesion, diameter_mm=None) for lesion in truth.lesions)
    own = KnownTruth(series=(KnownSeries(series_key=key, lesions=bare),))
    grid = KnownTruth(
        series=(KnownSeries(series_key=key, lesions=bare, geometry=geometry_of(row)),)
    )
    wanted = [geometry_of(row).diameter_mm(lesion.box_zyx) for lesion in bare]
    failed = {**row, "status": "failed", "shape_zyx": None, "affine_zyx_to_lps": None}
    for known, told in ((own, row), (grid, row), (grid, failed)):
        placed = join({key: told}, known).truths[0].lesions
        assert [lesion.diameter_mm for lesion in placed] == pytest.approx(wanted)
    for told in ({**row, "flags": ["no_geometry"]}, failed):
        placed = join({key: told}, own).truths[0].lesions
        assert [lesion.diameter_mm for lesion in placed] == [None] * len(bare)


def test_boxes_in_millimetres_lie_where_those_in_voxels_do(
    run: FinishedRun, cohort: Cohort, tmp_path: Path
) -> None:
    rows = []
    for truth in cohort.truths:
        grid = geometry_of(cohort.rows[truth.series_key])
        for lesion in truth.lesions:
            corners = grid.corners_lps_mm(lesion.box_zyx)
            row = {"series_key": truth.series_key, "label": lesion.label}
            row |= {
                "box_lower_lps_mm": corners.min(axis=0),
                "box_upper_lps_mm": corners.max(axis=0),
            }
            rows.append(row)
    file = tmp_path / "truth.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    again = {t.series_key: t for t in load_cohort(run.output, str(file), run.config).truths}
    straight = 0
    for truth in cohort.truths:
        grid = geometry_of(cohort.rows[truth.series_key])
        axes = np.abs(grid.affine_zyx_to_lps[:3, :3] / np.array(grid.spacing_zyx_mm))
        lesions = zip(truth.lesions, again[truth.series_key].lesions, strict=True)
        for one, other in lesions:  # on a turned grid a box around the other
            assert np.all(
                np.array(other.box_zyx.lower_zyx) <= np.array(one.box_zyx.lower_zyx) + 1e-9
            )
            assert np.all(
                np.array(other.box_zyx.upper_zyx) >= np.array(one.box_zyx.upper_zyx) - 1e-9
            )
            if np.allclose(axes.max(axis=0), 1.0):
                straight += 1
                assert one.box_zyx.iou(other.box_zyx) == pytest.approx(1.0)
    assert straight


def test_a_label_that_no_finding_has_is_refused(run: FinishedRun, tmp_path: Path) -> None:
    key = next(iter(run.output.iterate_rows(["series_key"])))["series_key"]
    lesion = {"box_lower_zyx": [0, 0, 0], "box_upper_zyx": [1, 9, 9]}
    truth = tmp_path / "truth.parquet"
    rows = [{"series_key": key, "label": "Renal Cyst", **lesion}]
    pq.write_table(pa.Table.from_pylist(rows), truth)
    with pytest.raises(ConfigError, match=r"label 'Renal Cyst' is no finding .*renal_cyst"):
        load_cohort(run.output, str(truth), run.config)


def test_views_show_boxes_and_attention_of_the_same_slice(run: FinishedRun, cohort: Cohort) -> None:
    viewer = CaseViewer(run.output, cohort, run.config, MEASURES)
    studies = viewer.cases()
    assert [study.title for study in studies] == ["simple", "moderate", "complex", "edge"]
    for study in studies:
        view = study.view
        assert view.hu_yx.shape == (256, 256)
        assert view.heat_yx is not None and 0 <= view.heat_yx.min() <= view.heat_yx.max() <= 1
        assert len(view.truth) == len(view.claims) > 0
        assert study.text
    label = cohort.labels[0]
    views = viewer.of_labels([label, "unheard_of"])
    assert list(views) == [label]
    assert {box.text for box in views[label].truth} == {label.replace("_", " ")}


def test_attention_of_other_weights_is_refused(run: FinishedRun, cohort: Cohort) -> None:
    detector = run.config.detector.model_copy(update={"weights": "random"})
    config = run.config.model_copy(update={"detector": detector})
    with pytest.raises(ConfigError, match="other weights"):
        CaseViewer(run.output, cohort, config, MEASURES).of_labels(cohort.labels)


def test_attention_is_the_highest_over_the_levels(run: FinishedRun) -> None:
    detector = Detector(run.config.detector, run.config.preprocess.fingerprint)
    hu = np.random.default_rng(0).integers(-900, 300, (3, 256, 256)).astype(np.int16)
    (heat,) = attention_of(detector, hu[None])
    levels = detector.run(hu[None]).attention
    best = max(float(level.max()) for level in levels)
    assert heat.shape == tuple(levels[0].shape[2:])
    assert heat.max() == pytest.approx(1 / (1 + np.exp(-best)), abs=1e-6)
    assert json.dumps(float(heat.min())) != "NaN"
