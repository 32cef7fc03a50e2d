"""Forty identities go into an archive; a whole run, and all that it leaves behind, names none.

Planted in every text element of the DICOM dictionary, in private elements, UIDs, dates, comments of
burned-in text, headers of NIfTI and PNG, names of files, folders and members, and in files that are
broken. The one place that may name them is the manifest: addresses and SOPInstanceUIDs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from raypipe.phantom import PhantomSpec, make_phantom, write_dicom, write_image, write_nifti
from tests.tiny_detector import fast_settings

pytestmark = pytest.mark.slow

_SYLLABLES = ("avo", "bel", "dru", "fim", "gos")
WORDS = [f"zq{_SYLLABLES[i % 5]}{i:02d}" for i in range(40)]
"""Forty words that no program writes by itself."""

UIDS = [f"1.2.826.0.1.7707424242{i:02d}" for i in range(40)]
DATES = ["19431207", "20230917", "131317.777123"]
NUMBER = "1943120701"
HASH_KEY = "zqsecretofthearchive"

_TEXT_VRS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_NEEDED = {
    # what makes a CT image one; nothing else of it is text
    *("SpecificCharacterSet", "ImageType", "SOPClassUID", "Modality", "PhotometricInterpretation"),
    *("PatientPosition", "RescaleType", "ConversionType"),
}


def plant(ds: Dataset) -> int:
    """Put a word into every text element of the dictionary; how many elements there are."""
    planted = 0
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        group = tag >> 16
        if keyword in _NEEDED or group in (0, 2, 0xFFFE, 0x7FE0) or not keyword:
            continue
        word = WORDS[planted % 40]
        if vr in _TEXT_VRS:
            ds.add_new(tag, vr, {"CS": word.upper(), "PN": f"{word}^{word}"}.get(vr, word))
        elif vr == "UI":
            ds.add_new(tag, vr, UIDS[planted % 40])
        elif vr == "DA":
            ds.add_new(tag, vr, DATES[planted % 2])
        elif vr == "TM":
            ds.add_new(tag, vr, DATES[2])
        else:
            continue
        planted += 1
    ds.SeriesNumber = NUMBER
    ds.BurnedInAnnotation = "NO"
    ds.ImageComments = f"burned in: {WORDS[0]}"
    nested = Dataset()
    nested.PatientName, nested.CodeMeaning, nested.CodeValue = WORDS[1], WORDS[2], WORDS[3]
    for keyword in ("RequestAttributesSequence", "AnatomicRegionSequence"):
        setattr(ds, keyword, Sequence([nested]))
    block = ds.private_block(0x0009, WORDS[4], create=True)
    for i, vr in enumerate(("LO", "UN", "SQ", "OB")):
        value: Any = {"LO": WORDS[5], "SQ": Sequence([nested])}.get(vr, WORDS[6].encode() + b" ")
        block.add_new(i, vr, value)
    return planted


def write_source(folder: Path) -> None:
    """An archive full of names."""
    phantom = make_phantom(PhantomSpec(shape_zyx=(6, 64, 64), seed=3))
    person = folder / f"{WORDS[7]}_{WORDS[8]}"
    written = write_dicom(phantom, person / WORDS[9])
    for number, path in enumerate(written.paths):
        ds = dcmread(path)
        place, orientation = ds.ImagePositionPatient, ds.ImageOrientationPatient
        assert plant(ds) > 1000
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{UIDS[10]}.{number}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = UIDS[11], UIDS[12]
        ds.ImagePositionPatient, ds.ImageOrientationPatient = place, orientation
        ds.save_as(path.with_name(f"{WORDS[13]}_{number}.dcm"))
        path.unlink()
    planted = dcmread(path.with_name(f"{WORDS[13]}_0.dcm"))
    _write_other_formats(phantom, person)
    _write_broken(planted, folder / WORDS[18])


def _write_other_formats(phantom: Any, person: Path) -> None:
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    path = write_nifti(phantom, person / "scan" / f"{WORDS[14]}.nii")
    content = bytearray(path.read_bytes())
    for at in (14, 148, 228, 328):  # db_name, descrip, aux_file, intent_name
        content[at : at + len(WORDS[15])] = WORDS[15].encode()
    path.write_bytes(bytes(content))
    picture = write_image(phantom, person / "pictures" / f"{WORDS[16]}.png")
    text = PngInfo()
    text.add_text("Patient", WORDS[17])
    with Image.open(picture) as opened:
        opened.save(picture, pnginfo=text)


def _write_broken(planted: Dataset, folder: Path) -> None:
    """Files that end with an error, each of which could quote what it holds."""
    folder.mkdir(parents=True)
    good = folder / "good"
    planted.save_as(good)
    content = good.read_bytes()
    (folder / f"{WORDS[19]}.dcm").write_bytes(content[: len(content) // 2])
    (folder / f"{WORDS[20]}.txt").write_text(f"{WORDS[20]} was here")
    (folder / f"{WORDS[21]}.nii").write_bytes(WORDS[21].encode() * 100)
    with zipfile.ZipFile(folder / f"{WORDS[22]}.zip", "w") as archive:
        archive.writestr(f"{WORDS[23]}/{WORDS[24]}.dcm", content)
        archive.writestr(f"{WORDS[23]}/{WORDS[25]}.txt", WORDS[25])
    (folder / f"{WORDS[26]}.zip").write_bytes(b"PK\x03\x04" + WORDS[26].encode())
    changes: tuple[dict[str, Any], ...] = (
        {"Modality": WORDS[27].upper()},
        {"PhotometricInterpretation": WORDS[28].upper()},
        {"SOPClassUID": UIDS[29]},
        {"ImageType": [WORDS[30].upper(), "LOCALIZER"]},
        {"PixelSpacing": None},
        {"SpecificCharacterSet": WORDS[31].upper()},
        {"BitsAllocated": 12},
        {"RescaleSlope": 0},
    )
    for i, change in enumerate(changes):
        ds = dcmread(good)
        ds.SeriesInstanceUID = f"{UIDS[32]}.{i}"
        for keyword, value in change.items():
            setattr(ds, keyword, value)
        ds.save_as(folder / f"{WORDS[33]}_{i}.dcm")
    ds = dcmread(good)
    ds.SeriesInstanceUID = UIDS[34]
    for keyword in ("InstanceNumber", "SliceThickness", "KVP", "RescaleIntercept", "PixelSpacing"):
        ds[keyword]._value = None
    ds.save_as(folder / f"{WORDS[35]}.dcm")
    text = (folder / f"{WORDS[35]}.dcm").read_bytes()
    # a name where the header holds numbers
    text = text.replace(b"\x28\x00\x53\x10DS\x02\x00", b"\x28\x00\x53\x10LO\x02\x00")
    (folder / f"{WORDS[35]}.dcm").write_bytes(text)
    syntax = content.replace(b"1.2.840.10008.1.2.1\0", UIDS[36][:19].encode() + b"\0", 1)
    (folder / f"{WORDS[37]}.dcm").write_bytes(syntax)
    good.unlink()


@dataclass(frozen=True)
class Ran:
    """Where everything lies that the commands left behind."""

    folder: Path

    def files(self) -> Iterator[Path]:
        """All files but those of the archive itself and of its manifest."""
        for path in sorted(self.folder.rglob("*")):
            inside = path.relative_to(self.folder).parts[0]
            if path.is_file() and inside not in ("archive", "manifest"):
                yield path


@pytest.fixture(scope="module")
def ran() -> Iterator[Ran]:
    """Index, run, inspect, export and evaluate, with Ray's session kept beside the results."""
    folder = Path(tempfile.mkdtemp(prefix="rp", dir="/tmp"))  # paths of Ray's sockets are short
    write_source(folder / "archive")
    key = ("--set", f"index.hash_key={HASH_KEY}")
    settings = (*fast_settings(), "run.object_store_gib=0.3")
    fast = tuple(word for setting in settings for word in ("--set", setting))
    out = ("-o", "out")
    commands: tuple[tuple[str, ...], ...] = (
        ("index", "archive", "manifest", *key),
        ("run", "-i", "manifest", *out, "--dry-run", *key, *fast),
        ("run", "-i", "manifest", *out, *key, *fast),
        ("status", "out"),
        ("verify", "out"),
        ("inspect", "out"),
        ("inspect", "out", "--html", "pages", *key),
        ("export", "out", "exported", *key),
        ("evaluate", "detection", "out", "truth.parquet", "-o", "evaluation", *key),
    )
    # names in errors that end a command
    failing: tuple[tuple[str, ...], ...] = (("export", "out", "none", "--series", "nothing", *key),)
    (folder / "printed").mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": str(folder / "ray"), "COLUMNS": "200"}
    (folder / "ray").mkdir()
    try:
        for i, command in enumerate((*commands, *failing)):
            if command[0] == "evaluate":
                _write_truth(folder)
            printed = subprocess.run(
                [sys.executable, "-m", "raypipe", *command],
                cwd=folder,
                env=environment,
                capture_output=True,
                check=False,
            )
            text = printed.stdout + b"\n" + printed.stderr
            (folder / "printed" / f"{i}_{command[0]}").write_bytes(text)
            assert (printed.returncode == 0) == (command in commands), text.decode()
        yield Ran(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_truth(folder: Path) -> None:
    rows = pq.read_table(folder / "out" / "results", partitioning=None).to_pylist()
    keys = [row["series_key"] for row in rows if row["status"] == "ok"]
    truth = [
        {
            "series_key": key,
            "label": "pulmonary_nodule",
            "box_lower_zyx": [1.0, 20.0, 20.0],
            "box_upper_zyx": [4.0, 30.0, 30.0],
        }
        for key in keys
    ]
    pq.write_table(pa.Table.from_pylist(truth), folder / "truth.parquet")


def texts(path: Path) -> Iterator[bytes]:
    """The content of a file in lower case; that of Parquet without its compression as well."""
    content = path.read_bytes()
    yield content.lower()
    yield content.replace(b"\0", b"").lower()  # UTF-16
    if path.suffix == ".parquet":
        yield str(pq.read_table(path, partitioning=None).to_pylist()).lower().encode()


_SECRETS = re.compile(
    "|".join(
        (
            *map(re.escape, WORDS),
            *(re.escape(uid.removeprefix("1.2.826.0.1.")) for uid in UIDS),
            *(rf"(?<![\d.]){re.escape(date)}(?!\d)" for date in DATES),
            rf"(?<![\d.]){NUMBER}(?!\d)",
            HASH_KEY,
        )
    ).encode()
)


def secrets_in(path: Path) -> set[str]:
    return {m.group().decode() for text in texts(path) for m in _SECRETS.finditer(text)}


def test_the_search_finds_what_there_is(ran: Ran) -> None:
    found: set[str] = set()
    for path in (ran.folder / "archive").rglob("*"):
        found |= {m.decode() for m in _SECRETS.findall(str(path).lower().encode())}
        found |= secrets_in(path) if path.is_file() else set()
    assert {*WORDS[:36], *DATES, NUMBER} <= found
    manifest = set().union(*(secrets_in(p) for p in (ran.folder / "manifest").glob("*.parquet")))
    assert {WORDS[7], WORDS[13], WORDS[22]} <= manifest, "addresses of files stand in it"


def test_nothing_that_a_run_leaves_names_a_person(ran: Ran) -> None:
    kinds = {p.relative_to(ran.folder).parts[0] for p in ran.files()}
    assert {"out", "pages", "exported", "evaluation", "printed", "ray"} <= kinds
    leaks = {str(p.relative_to(ran.folder)): secrets_in(p) for p in ran.files()}
    assert {name: found for name, found in leaks.items() if found} == {}
    names = " ".join(str(p.relative_to(ran.folder)) for p in ran.files()).lower()
    assert not _SECRETS.findall(names.encode())


def test_the_run_did_what_could_leak(ran: Ran) -> None:
    rows = pq.read_table(ran.folder / "out" / "results", partitioning=None).to_pylist()
    reasons = {row["reason"] for row in rows}
    assert len(rows) >= 15 and len(reasons) >= 6
    planted = [r for r in rows if r["status"] == "ok" and r["kind"] == "dicom"]
    assert planted and any(row["findings"] for row in planted)
    assert len(list((ran.folder / "exported").glob("*/sr.dcm"))) >= 1
    assert list((ran.folder / "ray").rglob("worker*.err")), "Ray's logs were looked into"
    assert list((ran.folder / "pages").glob("*.html"))


def test_the_manifest_holds_no_more_than_addresses(ran: Ran) -> None:
    for path in (ran.folder / "manifest").rglob("*.parquet"):
        rows = pq.read_table(path, partitioning=None).to_pylist()
        for row in rows:
            for name in ("instances", "repeated", "relative", "source"):
                row.pop(name, None)
            if "header" in row:
                row["header"] = re.sub(r'"instance_uid":"[^"]*"', "", row["header"])
        assert not _SECRETS.findall(str(rows).lower().encode())
