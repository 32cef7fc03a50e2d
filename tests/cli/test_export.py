"""`raypipe export`: a job's results as files, whole and with what could not be written."""

import json
from pathlib import Path

import highdicom as hd
import pytest
import typer
from fhir.resources.R4B.bundle import Bundle
from pydicom import dcmread
from pydicom.uid import UID
from typer.testing import CliRunner, Result

from raypipe.archive.index import build_index
from raypipe.archive.manifest import read_manifest
from raypipe.archive.storage import StorageConfig
from raypipe.batch.export import Exporter, parse_formats
from raypipe.batch.output import JOB_FILE, open_output
from raypipe.cli.export import export
from raypipe.errors import ConfigError
from raypipe.exports import Format
from raypipe.phantom import (
    DicomOptions,
    Phantom,
    PhantomSpec,
    make_phantom,
    write_dicom,
    write_nifti,
)
from tests.export_rows import Indexed, Row, index_folder, result_row, write_results

SPEC = PhantomSpec(shape_zyx=(12, 56, 64), spacing_zyx_mm=(5.0, 5.5, 6.0), lesions=1, seed=4)
WHOSE = (b"Phantom", b"PHANTOM", b"SYN0000", b"Synthetic", b"20000101")


def _ignore(*_: object) -> None:
    pass


class Job:
    """A finished job: two DICOM series (one without findings), a NIfTI one, a rejected one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        phantom: Phantom = make_phantom(SPEC)
        write_dicom(phantom, folder / "a" / "one")
        write_dicom(phantom, folder / "a" / "two", DicomOptions(series_number=2))
        write_nifti(phantom, folder / "a" / "three.nii.gz")
        (folder / "a" / "four.dcm").write_bytes(b"no image")
        self.indexed: Indexed = index_folder(folder / "a", folder / "m")
        self.keys: dict[str, str] = {}
        rows = [self._row(listed, phantom) for listed in self.indexed.rows]
        self.results = write_results(rows, folder / "results", folder / "m")

    def _row(self, listed: Row, phantom: Phantom) -> Row:
        uri = listed["instances"][0]["uri"].removeprefix(str(self.folder))
        name = next(n for n in ("one", "two", "three", "four") if n in uri)
        self.keys[name] = listed["series_key"]
        if name == "four":
            return {"series_key": listed["series_key"], "status": "rejected",
                    "reason": listed["reason"], "kind": listed["kind"]}  # fmt: skip
        return result_row(listed, self.indexed, None if name == "two" else phantom)

    def written(self, out: Path, name: str) -> list[str]:
        return sorted(path.name for path in (out / self.keys[name]).glob("*"))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return Job(tmp_path_factory.mktemp("job"))


def _export(job: Job, out: Path, *options: str) -> Result:
    app = typer.Typer()
    app.command()(export)
    arguments = [str(job.results), str(out), "--set", "index.hash_key=key", *options]
    return CliRunner().invoke(app, arguments)


def test_everything_that_can_be_written_is(job: Job, tmp_path: Path) -> None:
    result = _export(job, tmp_path)
    assert result.exit_code == 0, result.output
    assert job.written(tmp_path, "one") == ["fhir.json", "seg.dcm", "sr.dcm"]
    assert job.written(tmp_path, "two") == ["fhir.json", "sr.dcm"]
    assert job.written(tmp_path, "three") == ["fhir.json"]
    assert job.written(tmp_path, "four") == []
    folder = tmp_path / job.keys["one"]
    assert len(hd.sr.srread(folder / "sr.dcm").content.get_planar_roi_measurement_groups()) == 1
    assert hd.seg.segread(folder / "seg.dcm").number_of_segments == 1
    for name in ("one", "two", "three"):
        Bundle.model_validate_json((tmp_path / job.keys[name] / "fhir.json").read_text())


def test_what_is_missing_is_said_a_series(job: Job, tmp_path: Path) -> None:
    output = " ".join(_export(job, tmp_path).output.split())
    two, three, four = (job.keys[n][:12] for n in ("two", "three", "four"))
    assert f"{two}: no seg: there are no findings to outline" in output
    assert f"{three}: no sr, seg: the source is nifti" in output
    assert f"{four}: no sr, seg, fhir: the series is rejected (not_an_image)" in output
    record = json.loads((tmp_path / "export.json").read_text())
    assert record["series"] == 4 and record["identity"] == "keyed"
    assert record["written"] == {"sr": 2, "seg": 1, "fhir": 3}
    assert {s["series_key"] for s in record["skipped"]} == {
        job.keys[name] for name in ("two", "three", "four")
    }


def test_nothing_names_the_patient_unless_it_is_asked_for(job: Job, tmp_path: Path) -> None:
    _export(job, tmp_path / "keyed")
    _export(job, tmp_path / "source", "--identity", "source")
    (listed,) = [r for r in job.indexed.rows if r["series_key"] == job.keys["one"]]
    uids = [i["instance_uid"].encode() for i in listed["instances"]]
    source = dcmread(listed["instances"][0]["uri"])
    uids += [str(source[k].value).encode() for k in ("StudyInstanceUID", "SeriesInstanceUID")]
    for path in (tmp_path / "keyed").rglob("*.*"):
        content = path.read_bytes()
        assert not [text for text in (*WHOSE, *uids) if text in content], path.name
    report = dcmread(tmp_path / "source" / job.keys["one"] / "sr.dcm")
    assert report.PatientID == source.PatientID
    assert report.StudyInstanceUID == source.StudyInstanceUID
    assert report.ContentDate == "20260304"


def test_all_objects_of_a_patient_have_one_keyed_name(job: Job, tmp_path: Path) -> None:
    _export(job, tmp_path)
    documents = [dcmread(path) for path in tmp_path.rglob("*.dcm")]
    assert len(documents) == 3
    assert (
        len({d.PatientID for d in documents}) == len({d.StudyInstanceUID for d in documents}) == 1
    )
    bundle = json.loads((tmp_path / job.keys["one"] / "fhir.json").read_text())
    report = bundle["entry"][0]["resource"]
    assert report["subject"]["identifier"]["value"] == documents[0].PatientID
    study = report["imagingStudy"][0]["identifier"]["value"]
    assert study == f"urn:oid:{documents[0].StudyInstanceUID}"
    assert UID(documents[0].StudyInstanceUID).is_valid and documents[0].StudyDate == ""


def test_twice_is_the_same_with_a_key_and_another_without(job: Job, tmp_path: Path) -> None:
    def run(out: str, *options: str) -> tuple[dict[str, bytes], str]:
        output = _export(job, tmp_path / out, *options).output
        files = {str(p.relative_to(tmp_path / out)): p.read_bytes()
                 for p in (tmp_path / out).rglob("*.*")}  # fmt: skip
        return files, output

    one, said = run("a")
    assert one == run("b")[0] and "random key" not in said
    keyless, said = run("c", "--set", "index.hash_key=''")
    assert "random key was drawn" in said
    name = f"{job.keys['one']}/sr.dcm"
    assert keyless[name] != run("d", "--set", "index.hash_key=''")[0][name]


def test_the_config_says_whose_name_and_which_dates(job: Job, tmp_path: Path) -> None:
    _export(job, tmp_path / "source", "--set", "export.identity=source")
    _export(job, tmp_path / "shifted", "--set", "export.dates=shift")
    name = f"{job.keys['one']}/sr.dcm"
    assert dcmread(tmp_path / "source" / name).StudyDate == "20000101"
    assert dcmread(tmp_path / "shifted" / name).StudyDate not in ("", "20000101")
    assert _export(job, tmp_path, "--identity", "mine").exit_code != 0


def test_formats_and_series_are_chosen(job: Job, tmp_path: Path) -> None:
    result = _export(job, tmp_path, "--format", "fhir,SR", "--series", job.keys["one"][:8])
    assert result.exit_code == 0
    assert job.written(tmp_path, "one") == ["fhir.json", "sr.dcm"]
    assert not (tmp_path / job.keys["two"]).exists()


def test_fhir_alone_still_names_the_patient_by_the_key(job: Job, tmp_path: Path) -> None:
    _export(job, tmp_path / "all")
    _export(job, tmp_path / "fhir", "--format", "fhir")
    name = f"{job.keys['one']}/fhir.json"
    assert (tmp_path / "all" / name).read_bytes() == (tmp_path / "fhir" / name).read_bytes()


def test_a_source_that_is_gone_costs_its_own_series_alone(tmp_path: Path) -> None:
    job = Job(tmp_path)
    for path in (tmp_path / "a" / "one").iterdir():
        path.unlink()
    result = _export(job, tmp_path / "out")
    assert result.exit_code == 0
    assert f"{job.keys['one'][:12]}: no sr, seg: source_missing" in " ".join(result.output.split())
    assert job.written(tmp_path / "out", "one") == ["fhir.json"]
    assert job.written(tmp_path / "out", "two") == ["fhir.json", "sr.dcm"]


def test_wrong_requests_are_refused_by_name(job: Job, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'sr,pdf'.*sr, seg, fhir"):
        parse_formats("sr,pdf")
    with pytest.raises(ConfigError, match="one or more"):
        parse_formats(" , ")
    config, storage = job.indexed.config, job.indexed.config.archive.storage
    with pytest.raises(ConfigError, match="holds no results"):
        Exporter(open_output(str(tmp_path), storage), "x", (Format.SR,), config)
    exporter = Exporter(open_output(str(job.results), storage), str(tmp_path), (Format.SR,), config)
    with pytest.raises(ConfigError, match="has no series zzz"):
        exporter.run(("zzz",), lambda done, total: None)


def test_headers_are_read_from_s3_and_files_written_to_it(s3_endpoint: str, tmp_path: Path) -> None:
    import s3fs

    job = Job(tmp_path)
    s3 = s3fs.S3FileSystem(endpoint_url=s3_endpoint)
    s3.mkdir("export-bucket")
    s3.put(str(tmp_path / "a"), "export-bucket/", recursive=True)
    storage = StorageConfig(s3_endpoint=s3_endpoint)
    config = job.indexed.config
    manifest = str(tmp_path / "s3m")
    build_index("s3://export-bucket/a", manifest, config.index, _ignore, storage=storage)
    listed = read_manifest(manifest, storage).to_pylist()
    assert sorted(r["series_key"] for r in listed) == sorted(job.keys.values())
    (job.results / JOB_FILE).write_text(json.dumps({"manifest": manifest}))
    archive = config.archive.model_copy(update={"storage": storage})
    exporter = Exporter(
        open_output(str(job.results), storage),
        "s3://export-bucket/out",
        tuple(Format),
        config.model_copy(update={"archive": archive}),
    )
    assert exporter.run((), _ignore).written == {Format.SR: 2, Format.SEG: 1, Format.FHIR: 3}
    (job.results / JOB_FILE).write_text(json.dumps({"manifest": str(tmp_path / "m")}))
    _export(job, tmp_path / "local")
    name = f"{job.keys['one']}/seg.dcm"
    assert s3.cat_file(f"export-bucket/out/{name}") == (tmp_path / "local" / name).read_bytes()


def test_progress_ends_with_every_series(job: Job, tmp_path: Path) -> None:
    storage = job.indexed.config.archive.storage
    results = open_output(str(job.results), storage)
    formats = (Format.FHIR,)
    exporter = Exporter(results, str(tmp_path), formats, job.indexed.config)
    seen: list[tuple[int, int]] = []
    summary = exporter.run((), lambda done, total: seen.append((done, total)))
    assert seen[-1] == (4, 4) and summary.written == {Format.FHIR: 3}


def test_nothing_of_an_earlier_export_tells_of_another_result(tmp_path: Path) -> None:
    job = Job(tmp_path)
    _export(job, tmp_path / "out")
    assert job.written(tmp_path / "out", "one") == ["fhir.json", "seg.dcm", "sr.dcm"]
    (listed,) = [r for r in job.indexed.rows if r["series_key"] == job.keys["one"]]
    rows = [result_row(listed, job.indexed, None)]
    job.results = write_results(rows, tmp_path / "again", tmp_path / "m")
    _export(job, tmp_path / "out", "--format", "seg")
    assert job.written(tmp_path / "out", "one") == ["fhir.json", "sr.dcm"]
