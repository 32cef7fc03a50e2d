"""One definition of every stage: a series has the same findings however it is worked on."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import read_series
from raypipe.batch.job import Job
from raypipe.config import RaypipeConfig, load_config
from raypipe.model.checkpoint import load_checkpoint
from raypipe.model.detector import Detector
from raypipe.phantom import Phantom, PhantomSpec, make_phantom, write_dicom
from raypipe.sink.schema import RESULT_SCHEMA, finding_row, to_table
from raypipe.stages import Describe, Detect, Load, Prepare, Row
from raypipe.train import calibrate
from raypipe.train.backgrounds import Filled
from raypipe.types import Finding
from raypipe.volume.assemble import to_volume

SPECS = (
    PhantomSpec(
        region="chest",
        shape_zyx=(14, 128, 128),
        spacing_zyx_mm=(5.0, 3.0, 3.0),
        lesions=("pulmonary_nodule", "pleural_effusion"),
        seed=3,
    ),
    PhantomSpec(
        region="abdomen",
        shape_zyx=(12, 160, 128),
        spacing_zyx_mm=(7.0, 2.5, 2.5),
        lesions=("liver_cyst", "renal_cyst", "liver_cyst"),
        seed=4,
    ),
)
EACH_WAY = ("series_key", "finding_id", "probability", "instance_id")
"""What the training path cannot know: it works before there is a calibration, without files."""


@pytest.fixture(scope="module")
def config() -> RaypipeConfig:
    """Every box that is not surely nothing becomes a finding, so that there is much to compare."""
    labels = load_checkpoint("default")[1].network.labels
    low, one, zero = (
        "{" + ", ".join(f"{label}: {value}" for label in labels) + "}"
        for value in (calibrate.LOWEST, 1.0, 0.0)
    )
    return load_config(
        overrides=[
            "report.engine=template",
            "detector.threads=1",
            f"findings.slice_floor={calibrate.LOWEST}",
            f"findings.threshold={calibrate.LOWEST}",
            f"findings.thresholds={low}",
            f"findings.calibration_slope={one}",  # a probability is its score: the order of
            f"findings.calibration_intercept={zero}",  # findings, which are cut at 50, stays
        ]
    )


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(spec) for spec in SPECS]


@pytest.fixture(scope="module")
def manifest(
    tmp_path_factory: pytest.TempPathFactory, config: RaypipeConfig, phantoms: list[Phantom]
) -> str:
    folder = tmp_path_factory.mktemp("parity")
    for number, phantom in enumerate(phantoms):
        write_dicom(phantom, folder / "archive" / str(number))
    build_index(str(folder / "archive"), str(folder / "manifest"), config.index, lambda *_: None)
    return str(folder / "manifest")


@pytest.fixture(scope="module")
def manifest_rows(manifest: str, config: RaypipeConfig) -> list[Row]:
    rows: list[Row] = read_manifest(manifest, config.archive.storage).to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * len(SPECS)
    return rows


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Sums in one order on every path."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def direct(manifest_rows: list[Row], config: RaypipeConfig) -> dict[str, Row]:
    """Rows of plain calls, one stage after the other."""
    load, prepare, detect = Load(config), Prepare(config), Detect(config)
    detected = [detect(prepare(load(row))) for row in manifest_rows]
    rows = _comparable(Describe(config)(detected))
    assert sum(len(row["findings"]) for row in rows.values()) >= 5
    return rows


def _comparable(rows: Sequence[Row]) -> dict[str, Row]:
    """Rows as they are stored, without what differs from run to run."""
    stored = to_table(rows, RESULT_SCHEMA).to_pylist()
    return {row["series_key"]: {k: v for k, v in row.items() if k != "timings"} for row in stored}


@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_gives_the_rows_of_plain_calls(
    manifest: str, config: RaypipeConfig, direct: dict[str, Row], tmp_path: Path
) -> None:
    job = Job(manifest, str(tmp_path / "out"), config)
    job.run(lambda progress: None)
    assert _comparable(list(job.output.iterate_rows())) == direct


def test_training_measures_the_findings_that_the_job_claims(
    manifest_rows: list[Row],
    phantoms: list[Phantom],
    config: RaypipeConfig,
    direct: dict[str, Row],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Thresholds and probabilities are fitted to exactly what a run would claim."""
    seen: list[tuple[Finding, ...]] = []
    match = calibrate.match_findings

    def recorded(found: tuple[Finding, ...], lesions: Any) -> Any:
        seen.append(found)
        return match(found, lesions)

    monkeypatch.setattr(calibrate, "match_findings", recorded)
    detector = Detector(config.detector, config.preprocess.fingerprint)
    calibrate.match_series(
        detector,
        [_filled(row, phantoms, config) for row in manifest_rows],
        config.preprocess,
    )
    for row, found in zip(manifest_rows, seen, strict=True):
        assert _sorted([finding_row(f, "") for f in found]) == _sorted(
            direct[row["series_key"]]["findings"]
        )


def _filled(row: Row, phantoms: Sequence[Phantom], config: RaypipeConfig) -> Filled:
    """A series of the archive with the truth of the phantom that was written."""
    volume = to_volume(read_series(series_ref(row), config.archive), config.volume)
    (phantom,) = (p for p in phantoms if p.volume.hu.shape == volume.hu.shape)
    return Filled(
        volume=volume,
        lesions=phantom.lesions,
        lesion_map=phantom.lesion_map,
        organs=phantom.organs,
    )


def _sorted(findings: Sequence[Row]) -> list[Row]:
    kept = [{k: v for k, v in f.items() if k not in EACH_WAY} for f in findings]
    return sorted(kept, key=lambda f: (-f["score"], f["label"], f["box_lower_zyx"]))
