"""raypipe/archive/deidentify*.py: every attribute of the standard's table, options, whole files."""

import re
import shutil
import subprocess
import warnings
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from pydicom import dcmread
from pydicom.datadict import (
    DicomDictionary,
    dictionary_description,
    dictionary_has_tag,
    dictionary_VR,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

from raypipe.archive.deidentify import Deidentifier
from raypipe.archive.deidentify_config import ExportConfig
from raypipe.archive.deidentify_pixels import burned_in_risk
from raypipe.errors import ConfigError
from raypipe.phantom import Phantom, write_dicom
from tests.archive.ct_files import ct_dataset, tissue, write_ct

KEY = SecretStr("a secret")
UID_BEFORE = "1.9.8.7.6"
TABLE: dict[str, list[str]] = yaml.safe_load(
    (resources.files("raypipe.archive") / "deidentify_profile.yaml").read_text()
)["actions"]
ACTIONS = sorted({action for action, _ in TABLE.values()})
KEYED = {"00100010", "00100020", "00080050"}
PLANTED: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), "SECRET"),
    **dict.fromkeys(("FD", "FL"), 98765.0),
    **dict.fromkeys(("SS", "US", "SL", "UL"), 4321),
    **dict.fromkeys(("OB", "OW", "UN"), b"SECRET"),
    "PN": "SECRET^NAME",
    "DA": "19870605",
    "TM": "112233",
    "DT": "19870605112233",
    "AS": "042Y",
    "UI": UID_BEFORE,
    "DS": "98765.4",
    "IS": "98765",
    "UR": "http://SECRET",
}


def _deidentifier(key: SecretStr = KEY, **options: Any) -> Deidentifier:
    return Deidentifier(ExportConfig(**options), key)


def _tag(key: str) -> int:
    return int(key.replace("x", "2"), 16)


def _planted(tag: int) -> Dataset:
    """A dataset with one element of the table, full of secrets."""
    ds = Dataset()
    vr = dictionary_VR(tag).split(" or ")[0] if dictionary_has_tag(tag) else "LO"
    if vr == "SQ":
        item = Dataset()
        item.PatientName, item.ReferencedSOPInstanceUID = "SECRET^NAME", UID_BEFORE
        item.CodeMeaning, item.ReferencedSOPClassUID = "SECRET", "1.2.840.10008.5.1.4.1.1.2"
        item.add_new(0x00091010, "LO", "SECRET")
        ds.add_new(tag, vr, Sequence([item]))
    else:
        ds.add_new(tag, vr, PLANTED[vr])
    return ds


def _fault(key: str, action: str) -> str | None:
    """What is wrong with what became of one attribute; None where it is as the table says."""
    tag = _tag(key)
    before = _planted(tag)
    after = _deidentifier().apply(before)
    if before != _planted(tag):
        return "the given dataset was changed"
    values = str(after.get(tag)) if tag in after else ""
    if any(text in values for text in ("SECRET", UID_BEFORE, "98765", "4321", "1987", "112233")):
        return f"the value is still there: {values}"
    if action == "X" or key == "00081110":
        return "it is still there" if tag in after else None
    if tag not in after:
        return "it was removed"
    element = after[tag]
    last = action.rsplit("/", 1)[-1]
    if last == "Z":
        return "it is not empty" if not element.is_empty and key not in KEYED else None
    if element.is_empty:
        return "it is empty"
    if element.VR == "UI" and element.value != _deidentifier().uid(UID_BEFORE):
        return "the UID is not the keyed one"
    return None


@pytest.mark.parametrize("action", ACTIONS)
def test_every_attribute_of_the_table(action: str) -> None:
    keys = [key for key, (own, _) in TABLE.items() if own == action]
    # U* keeps a sequence whose text stays: codes name images, not patients
    faults = {}
    for key in keys:
        fault = _fault_of_reference(key) if action.endswith("U*") else _fault(key, action)
        if fault:
            faults[f"{key} {TABLE[key][1]}"] = fault
    assert keys and not faults


def _fault_of_reference(key: str) -> str | None:
    tag = _tag(key)
    item = _deidentifier().apply(_planted(tag))[tag].value[0]
    kept = (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID)
    wanted = ("1.2.840.10008.5.1.4.1.1.2", _deidentifier().uid(UID_BEFORE))
    if kept != wanted or "SECRET" in str(item.PatientName) or 0x00091010 in item:
        return f"the item is {item}"
    return None


def test_the_table_is_the_standards() -> None:
    def plain(text: str) -> str:
        return re.sub(r"[^a-z]", "", text.lower())

    known = {k: n for k, (_, n) in TABLE.items() if "x" not in k and dictionary_has_tag(_tag(k))}
    assert len(TABLE) == 655 and len(known) > 600
    for key, name in known.items():
        assert plain(dictionary_description(_tag(key))) == plain(name), key
    expected = {
        "00100010": "Z", "00100020": "Z/D", "00100030": "Z", "00080018": "U", "00080020": "Z",
        "00080022": "X/Z", "00080021": "X/D", "00080080": "X/Z/D", "0008103e": "X",
        "00081140": "X/Z/U*", "0040a730": "D", "60xx3000": "X", "50xxxxxx": "X", "00102160": "X",
    }  # fmt: skip
    assert {key: TABLE[key][0] for key in expected} == expected


def test_what_is_not_in_the_table_stays_unless_it_may_name_somebody() -> None:
    ds = ct_dataset(tissue())
    ds.add_new(0x00090010, "LO", "VENDOR")
    ds.add_new(0x00091001, "UN", b"SECRET")
    ds.add_new(0x00083333, "LO", "SECRET")  # even group, but in no dictionary
    ds.add_new(0x00142006, "PN", "SECRET^NAME")  # a name that the table does not list
    ds.ReferencedRawDataSequence = [Dataset()]
    ds.ReferencedRawDataSequence[0].PatientName = "SECRET^NAME"
    after = _deidentifier().apply(ds)
    assert "SECRET" not in str(after) and b"SECRET" not in str(after).encode()
    assert after[0x00142006].is_empty and 0x00090010 not in after
    for keyword in ("Rows", "PixelSpacing", "ImagePositionPatient", "Modality", "RescaleSlope"):
        assert after[keyword].value == ds[keyword].value
    assert after.PixelData == ds.PixelData


def test_one_key_gives_one_name_and_another_key_another() -> None:
    first, second = ct_dataset(tissue(), z_mm=0.0), ct_dataset(tissue(), z_mm=5.0)
    a, b = _deidentifier().apply(first), _deidentifier().apply(second)
    c = _deidentifier(SecretStr("another")).apply(first)
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID"):
        assert a[keyword].value == b[keyword].value != c[keyword].value, keyword
        assert a[keyword].value != first[keyword].value
    assert a.SOPInstanceUID != b.SOPInstanceUID and UID(a.SOPInstanceUID).is_valid
    assert a.SOPClassUID == first.SOPClassUID
    assert _deidentifier().uid("1.2.840.10008.1.2.1") == "1.2.840.10008.1.2.1"
    assert _deidentifier().uid("1.2.840.10008.99.7").startswith("2.25.")  # nobody's but a patient's
    assert a.file_meta.MediaStorageSOPInstanceUID == a.SOPInstanceUID


def test_without_a_key_a_random_one_is_drawn() -> None:
    one, two = _deidentifier(SecretStr("")), _deidentifier(SecretStr(""))
    assert one.key_is_random and not _deidentifier().key_is_random
    assert one.uid("1.2.3") == one.uid("1.2.3") != two.uid("1.2.3")


def test_dates_are_shifted_alike_for_one_patient() -> None:
    def dated(patient: str, day: str) -> Dataset:
        ds = ct_dataset(tissue(), PatientID=patient, StudyDate=day, StudyTime="101112.5")
        ds.AcquisitionDateTime, ds.PatientBirthDate = f"{day}101112.5", "19610203"
        return _deidentifier(dates="shift").apply(ds)

    early, late, other = dated("P1", "20200101"), dated("P1", "20200131"), dated("P2", "20200101")
    days = [_day(ds.StudyDate) for ds in (early, late, other)]
    assert days[1] - days[0] == 30 and days[0] != days[2]
    assert 1 <= _day("20200101") - days[0] <= 1826
    assert early.StudyTime == "101112.5"
    assert early.AcquisitionDateTime == f"{early.StudyDate}101112.5"
    assert early["PatientBirthDate"].is_empty
    assert early.LongitudinalTemporalInformationModified == "MODIFIED"


def _day(text: str) -> int:
    from datetime import datetime

    return datetime.strptime(text, "%Y%m%d").toordinal()


def test_a_date_that_is_none_is_taken_out_when_dates_are_shifted() -> None:
    ds = Dataset()
    with pytest.warns(UserWarning, match="Invalid value"):
        ds.add_new(0x00080020, "DA", "SECRET")
    assert "SECRET" not in str(_deidentifier(dates="shift").apply(ds))


def test_shifting_needs_a_key() -> None:
    with pytest.raises(ConfigError, match=r"needs index\.hash_key"):
        _deidentifier(SecretStr(""), dates="shift")


def test_options_keep_what_they_name_and_say_so() -> None:
    ds = ct_dataset(tissue(), PatientSex="F", PatientAge="042Y", DeviceSerialNumber="D7")
    ds.DeviceUID, ds.InstitutionName = UID_BEFORE, "SECRET"
    kept = _deidentifier(retain_device=True, retain_patient=True).apply(ds)
    assert (kept.PatientSex, kept.PatientAge) == ("F", "042Y")
    assert (kept.DeviceSerialNumber, kept.DeviceUID) == ("D7", UID_BEFORE)
    assert kept.InstitutionName != "SECRET" and kept.PatientName != ds.PatientName
    codes = [item.CodeValue for item in kept.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113108", "113109"]
    plain = _deidentifier().apply(ds)
    assert plain["PatientSex"].is_empty and "PatientAge" not in plain
    assert [i.CodeValue for i in plain.DeidentificationMethodCodeSequence] == ["113100"]
    assert plain.PatientIdentityRemoved == "YES"


@pytest.mark.parametrize(
    ("elements", "risk"),
    [
        ({}, None),
        ({"BurnedInAnnotation": "YES"}, "BurnedInAnnotation"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7.2"}, "secondary capture"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1"}, None),
        ({"Modality": "US"}, "modality US"),
        ({"Modality": "US", "BurnedInAnnotation": "NO"}, None),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, "screen"),
    ],
)
def test_pixels_that_may_show_text_stay(elements: dict[str, Any], risk: str | None) -> None:
    ds = ct_dataset(tissue(), **elements)
    found = burned_in_risk(ds)
    assert (found is None) == (risk is None) and (risk or "") in (found or "")
    if risk is not None:
        with pytest.raises(ConfigError, match=r"may show text.*export\.burned_in"):
            _deidentifier().apply(ds)
        assert "PixelData" in _deidentifier(burned_in="accept").apply(ds)
        del ds.PixelData
    assert "PixelData" not in _deidentifier().apply(ds) or risk is None


def test_a_file_with_secrets_in_every_text_holds_none_afterwards(tmp_path: Path) -> None:
    texts = {"PN", "LO", "SH", "LT", "ST", "UT"}
    ds = ct_dataset(tissue())
    for key in TABLE:
        if "x" in key or key[:4] < "0008" or not dictionary_has_tag(_tag(key)):
            continue
        if dictionary_VR(_tag(key)) in texts:
            value = "SECRET^NAME" if dictionary_VR(_tag(key)) == "PN" else "SECRET"
            ds.add_new(_tag(key), dictionary_VR(_tag(key)), value)
    ds.add_new(0x00091001, "LO", "SECRET")
    ds["PixelData"].VR = "OW"
    ds.file_meta.SourceApplicationEntityTitle = "SECRET"
    ds.save_as(tmp_path / "before.dcm", enforce_file_format=True)
    assert (tmp_path / "before.dcm").read_bytes().count(b"SECRET") > 200
    after = _deidentifier().apply(dcmread(tmp_path / "before.dcm"))
    after.save_as(tmp_path / "after.dcm", enforce_file_format=True)
    assert b"SECRET" not in (tmp_path / "after.dcm").read_bytes()
    assert (dcmread(tmp_path / "after.dcm").pixel_array == ds.pixel_array).all()


def test_a_value_that_cannot_be_read_is_removed(tmp_path: Path) -> None:
    path = write_ct(tmp_path / "x.dcm", tissue())
    ds = dcmread(path)
    broken = path.read_bytes().replace(b"DS\x08\x000.7\\0.8 ", b"DS\x08\x00Doe^Jane")
    assert broken != path.read_bytes()
    path.write_bytes(broken)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert "Jane" not in str(_deidentifier().apply(dcmread(path)))
    assert not [w for w in told if "Jane" in str(w.message)]
    assert len(ds.PixelSpacing) == 2


def test_every_name_of_a_person_is_emptied() -> None:
    names = [tag for tag, entry in DicomDictionary.items() if entry[0] == "PN"]
    ds = Dataset()
    for tag in names:
        ds.add_new(tag, "PN", "SECRET^NAME")
    assert len(names) > 25 and "SECRET" not in str(_deidentifier().apply(ds))


def test_an_independent_validator_accepts_the_file(phantom: Phantom, tmp_path: Path) -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (Debian package dicom3tools)")

    def errors(path: Path) -> list[str]:
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        return [line for line in (done.stderr + done.stdout).splitlines() if "Error" in line]

    before = write_dicom(phantom, tmp_path).paths[0]
    after = tmp_path / "after.dcm"
    _deidentifier().apply(dcmread(before)).save_as(after, enforce_file_format=True)
    assert set(errors(after)) <= set(errors(before))
