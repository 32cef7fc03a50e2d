from dataclasses import replace

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.errors import CheckpointError, ConfigError
from raypipe.findings.assemble import assemble_findings
from raypipe.findings.decode import FindingsConfig
from raypipe.findings.evidence import EVIDENCE
from raypipe.geometry import Box, Geometry
from raypipe.phantom import PhantomSpec, make_phantom, slice_boxes
from raypipe.phantom.anatomy import Phantom
from raypipe.rescoring import Layer, Rescoring
from raypipe.train.dataset import on_grid
from raypipe.types import Detection, ModelInput, Prediction
from raypipe.volume.preprocess import PreprocessConfig, preprocess

CONFIG = FindingsConfig(threshold=0.2)


def phantom_and_input(orientation: str) -> tuple[Phantom, ModelInput]:
    spec = PhantomSpec.model_validate(
        {
            "region": "abdomen",
            "shape_zyx": (24, 120, 128) if orientation != "coronal" else (60, 40, 100),
            "spacing_zyx_mm": (5.0, 3.0, 3.0) if orientation != "coronal" else (5.0, 4.0, 3.6),
            "orientation": orientation,
            "seed": 5,
            "lesions": ("liver_cyst", "renal_cyst", "liver_mass"),
        }
    )
    phantom = make_phantom(spec)
    return phantom, preprocess(phantom.volume, PreprocessConfig())


def perfect_prediction(phantom: Phantom, model_input: ModelInput) -> Prediction:
    """The truth as a perfect network would say it, on the network's grid."""
    lesion_map = on_grid(phantom.lesion_map, phantom.volume.geometry, model_input.geometry)
    detections = [
        Detection(
            label=phantom.lesions[number].label,
            box_zyx=box,
            score=0.9 - 0.1 * number,
            attributes=phantom.lesions[number].attributes,
        )
        for z in range(len(lesion_map))
        for number, box in slice_boxes(lesion_map, z)
    ]
    return Prediction(detections=tuple(detections), features=np.zeros(4, np.float32))


@pytest.mark.parametrize("orientation", ["axial", "oblique", "coronal"])
def test_a_perfect_network_gives_the_truth_back(orientation: str) -> None:
    phantom, model_input = phantom_and_input(orientation)
    volume = phantom.volume
    uids = tuple(f"1.2.{z}" for z in range(volume.hu.shape[0]))
    found = assemble_findings(
        perfect_prediction(phantom, model_input),
        model_input,
        volume.geometry,
        uids,
        True,
        CONFIG,
        None,
    )
    assert [f.finding_id for f in found] == [f"F{i + 1}" for i in range(len(phantom.lesions))]
    spacing = np.array(volume.geometry.spacing_zyx_mm)
    for finding, lesion in zip(found, phantom.lesions, strict=True):
        assert finding.label == lesion.label
        # quantiles over slices trim the box a little: within a voxel and a tenth of its size
        slack = 1.01 + 0.1 * np.array(lesion.box_zyx.size_zyx)
        assert np.all(
            np.abs(np.subtract(finding.box_zyx.lower_zyx, lesion.box_zyx.lower_zyx)) <= slack
        )
        assert np.all(
            np.abs(np.subtract(finding.box_zyx.upper_zyx, lesion.box_zyx.upper_zyx)) <= slack
        )
        gap = np.linalg.norm(np.subtract(finding.center_lps_mm, lesion.center_lps_mm))
        assert gap <= spacing.max() + 0.05 * lesion.diameter_mm
        assert finding.mean_hu == pytest.approx(lesion.mean_hu, abs=25)
        assert finding.attributes["density"] == lesion.attributes["density"]
        assert finding.instance_uid == uids[finding.key_slice]
        low, high = lesion.box_zyx.lower_zyx[0], lesion.box_zyx.upper_zyx[0]
        assert low - 0.5 <= finding.key_slice <= high + 0.5
        if finding.label == "renal_cyst":
            assert finding.side == lesion.side
        else:
            assert finding.side is None


def test_one_box_maps_onto_a_finer_grid_within_a_voxel() -> None:
    affine = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1.0]])
    grid = Geometry(shape_zyx=(10, 256, 256), affine_zyx_to_lps=affine)
    volume = grid.resized((10, 512, 512))
    hu = np.zeros((10, 256, 256), np.int16)
    box = Box(lower_zyx=(4.0, 100.0, 60.0), upper_zyx=(5.0, 120.0, 90.0))
    prediction = Prediction(
        detections=(Detection(label="liver_cyst", box_zyx=box, score=0.9),),
        features=np.zeros(1, np.float32),
    )
    (finding,) = assemble_findings(
        prediction,
        ModelInput(hu=hu, geometry=grid, fingerprint="f"),
        volume,
        (),
        True,
        CONFIG,
        None,
    )
    np.testing.assert_allclose(finding.box_zyx.lower_zyx, (4.0, 200.0, 120.0), atol=1e-6)
    np.testing.assert_allclose(finding.box_zyx.upper_zyx, (5.0, 240.0, 180.0), atol=1e-6)
    np.testing.assert_allclose(finding.size_zyx_mm, (5.0, 40.0, 60.0))
    assert finding.diameter_mm == pytest.approx(60.0)
    assert finding.instance_uid == ""


def _single(label: str, hu_value: int, config: FindingsConfig, *, has_hu: bool = True) -> int:
    hu = np.full((3, 256, 256), hu_value, np.int16)
    box = Box(lower_zyx=(1.0, 100.0, 60.0), upper_zyx=(2.0, 120.0, 90.0))
    grid = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=np.eye(4))
    detection = Detection(label=label, box_zyx=box, score=0.9, attributes={"shape": "round"})
    found = assemble_findings(
        Prediction(detections=(detection,), features=np.zeros(1, np.float32)),
        ModelInput(hu=hu, geometry=grid, fingerprint="f"),
        grid,
        (),
        has_hu,
        config,
        None,
    )
    return len(found)


@pytest.mark.parametrize(("has_hu", "size_mm"), [(True, (1.0, 5.0, 4.0)), (False, (1.0, 7.0, 7.0))])
def test_a_small_finding_has_the_size_of_what_it_shows(
    has_hu: bool, size_mm: tuple[float, float, float]
) -> None:
    hu = np.full((3, 256, 256), 40, np.int16)
    hu[1, 100:105, 60:64] = 700
    box = Box(lower_zyx=(1.0, 99.0, 58.5), upper_zyx=(2.0, 106.0, 65.5))
    grid = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=np.eye(4)[[2, 1, 0, 3]])
    (finding,) = assemble_findings(
        Prediction(
            detections=(Detection(label="gallstone", box_zyx=box, score=0.9),),
            features=np.zeros(1, np.float32),
        ),
        ModelInput(hu=hu, geometry=grid, fingerprint="f"),
        grid,
        (),
        has_hu,
        CONFIG,
        None,
    )
    assert finding.size_zyx_mm == pytest.approx(size_mm)
    assert finding.diameter_mm == pytest.approx(max(size_mm))


def test_findings_with_impossible_hu_are_dropped() -> None:
    assert _single("liver_cyst", 10, CONFIG) == 1
    assert _single("liver_cyst", 400, CONFIG) == 0
    assert _single("liver_cyst", 400, CONFIG.model_copy(update={"plausible_only": False})) == 1
    assert _single("liver_cyst", 400, CONFIG, has_hu=False) == 1


def test_thresholds_by_label_and_calibration() -> None:
    assert _single("liver_cyst", 10, FindingsConfig(thresholds={"liver_cyst": 0.95})) == 0
    completed = FindingsConfig(thresholds={"liver_cyst": 0.5}).completed_by(
        thresholds={"liver_cyst": 0.95, "renal_cyst": 0.4},
        slope={"liver_cyst": 2.0},
        intercept={"liver_cyst": -1.0},
    )
    assert completed.threshold_of("liver_cyst") == 0.5
    assert completed.threshold_of("renal_cyst") == 0.4
    phantom, model_input = phantom_and_input("axial")
    prediction = perfect_prediction(phantom, model_input)
    found = assemble_findings(
        prediction, model_input, phantom.volume.geometry, (), True, completed, None
    )
    cyst = next(f for f in found if f.label == "liver_cyst")
    odds = (cyst.score / (1 - cyst.score)) ** 2 * np.exp(-1.0)
    assert cyst.probability == pytest.approx(odds / (1 + odds))
    assert next(f for f in found if f.label == "renal_cyst").probability is None


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ("thresholds={lung_nodule: 0.5}", "'lung_nodule' is no finding.*pulmonary_nodule"),
        ("calibration_slope={lung_nodule: 1}", "'lung_nodule' is no finding"),
        ("thresholds={liver_cyst: 30}", r"findings\.thresholds\.liver_cyst"),
    ],
)
def test_scores_of_no_label_and_beyond_1_are_refused(told: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=(f"findings.{told}",))


def test_the_second_stage_decides_what_is_claimed_and_in_which_order() -> None:
    phantom, model_input = phantom_and_input("axial")
    prediction = perfect_prediction(phantom, model_input)
    labels = tuple(lesion.label for lesion in phantom.lesions)
    flat = Layer(weight=((0.0,) * len(EVIDENCE) + (-9.0, 0.0, 5.0),), bias=(0.0,))
    stage = Rescoring(
        columns=EVIDENCE,
        labels=labels,
        mean=(0.0,) * len(EVIDENCE),
        scale=(1.0,) * len(EVIDENCE),
        networks=((flat,),),
    )
    grid = phantom.volume.geometry
    plain = assemble_findings(prediction, model_input, grid, (), True, CONFIG, None)
    assert [f.label for f in plain] == list(labels)
    found = assemble_findings(prediction, model_input, grid, (), True, CONFIG, stage)
    assert [f.label for f in found] == [labels[2], labels[1]]
    assert found[1].score == pytest.approx(plain[1].score, abs=1e-4)
    other = stage.model_copy(update={"columns": ("hue", *EVIDENCE[1:])})
    with pytest.raises(CheckpointError, match=r"other evidence \(hue, track score\).*train resc"):
        assemble_findings(prediction, model_input, grid, (), True, CONFIG, other)


def test_a_finding_off_the_volume_is_left_out() -> None:
    phantom, model_input = phantom_and_input("axial")
    affine = phantom.volume.geometry.affine_zyx_to_lps.copy()
    affine[0, 3] += 10_000.0
    away = replace(phantom.volume.geometry, affine_zyx_to_lps=affine)
    prediction = perfect_prediction(phantom, model_input)
    assert assemble_findings(prediction, model_input, away, (), True, CONFIG, None) == ()
