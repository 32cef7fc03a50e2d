"""Take identity out of a DICOM object before it leaves the archive.

In: a dataset, the archive's secret key, options. Out: a new dataset by the Basic Application Level
Confidentiality Profile of DICOM PS3.15 Annex E, in which UIDs and ids are keyed hashes: the same
patient, study or instance has the same new name in everything that leaves under one key.
Does not know: where objects come from or go to. Pixels are not looked at (deidentify_pixels tells
which may show text).

On top of the profile: private attributes, attributes that the dictionary does not know and values
that cannot be read are removed, every name of a person that the table does not list is emptied, and
other text that it does not list stays where it is a known term (deidentify_text).
"""

import secrets
import uuid
from datetime import datetime, timedelta
from typing import Any

from pydantic import SecretStr
from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from raypipe.archive.deidentify_config import ExportConfig
from raypipe.archive.deidentify_pixels import burned_in_risk
from raypipe.archive.deidentify_profile import Action, Profile, load_profile
from raypipe.archive.deidentify_text import harmless
from raypipe.archive.headers import quiet_pydicom
from raypipe.archive.identity import keyed_hash
from raypipe.errors import ConfigError


class Deidentifier:
    """The profile with one key; holds the table.

    Args:
        config: the options.
        key: secret of the archive. Where it is empty a random one is drawn, because a short
            patient id could be found from its unkeyed hash; new names then hold for this object.

    Raises:
        ConfigError: dates are to be shifted without a key.
    """

    def __init__(self, config: ExportConfig, key: SecretStr) -> None:
        self.key_is_random = not key.get_secret_value()
        if self.key_is_random and config.dates == "shift":
            raise ConfigError("dates: shift needs index.hash_key, or the shift could be found out")
        self._key = SecretStr(secrets.token_hex(32)) if self.key_is_random else key
        self._config = config
        self._profile = load_profile()
        self._kept = kept_tags(self._profile, config)

    def apply(self, dataset: Dataset) -> Dataset:
        """A new dataset without identity; the old one stays as it is.

        Raises:
            ConfigError: the pixels may show text, and burned_in is "refuse".
        """
        risk = burned_in_risk(dataset) if "PixelData" in dataset else None
        if risk is not None and self._config.burned_in == "refuse":
            raise ConfigError(
                f"the pixels may show text ({risk}): they stay in the archive; mask the text and "
                "set BurnedInAnnotation to NO, or set export.burned_in to accept"
            )
        with quiet_pydicom():
            patient = _Patient(self, dataset)
            new = self._cleaned(dataset, patient)
            meta = getattr(dataset, "file_meta", None)
            if meta is not None:
                new.file_meta = FileMetaDataset()
                cleaned = self._cleaned(meta, patient)
                new.file_meta.update({tag: cleaned[tag] for tag in cleaned.keys() & _META})
        self._mark(new)
        return new

    def uid(self, uid: str) -> str:
        """The keyed UID of a UID; those that the standard itself defines stay."""
        if not uid or UID(uid).name != uid:
            return uid
        return f"2.25.{uuid.UUID(hex=keyed_hash(f'uid {uid}', self._key), version=5).int}"

    def identifier(self, kind: str, value: str, length: int = 16) -> str:
        """The keyed hash of an id, in capital letters and digits."""
        return keyed_hash(f"{kind} {value}", self._key)[:length].upper() if value else ""

    def _cleaned(self, dataset: Dataset, patient: "_Patient") -> Dataset:
        new = Dataset()
        for tag in list(dataset.keys()):
            try:
                element = dataset[tag]
                changed = self._element(element, patient)
            except Exception:  # noqa: BLE001 - a value that cannot be read is removed
                continue
            if changed is not None:
                new.add(changed)
        return new

    def _element(self, element: DataElement, patient: "_Patient") -> DataElement | None:
        """What becomes of one element; None where it is removed."""
        tag = int(element.tag)
        action = self._profile.action(tag)
        if action is None and (not dictionary_has_tag(tag) or element.VR == "UN"):
            return None
        if action is None and element.VR == "PN":
            action = Action.EMPTY
        if tag in self._kept:
            return self._same(element, patient)
        if action is None:
            kept = harmless(element)
            return None if kept is None else self._same(kept, patient)
        if action.step is Action.REMOVE and not patient.shifts(element):
            return None
        if element.is_empty:
            return DataElement(element.tag, element.VR, element.empty_value)
        shifted = patient.shifted(element)
        if shifted is not None:
            return DataElement(element.tag, element.VR, shifted)
        if tag in _KEYED_IDS:
            kind = _KEYED_IDS[tag]
            value = patient.name if kind == "patient" else str(element.value)
            name = self.identifier(kind, value)
            return DataElement(element.tag, element.VR, f"{name}^" if element.VR == "PN" else name)
        return self._replaced(element, action.step, patient)

    def _same(self, element: DataElement, patient: "_Patient") -> DataElement:
        if element.VR != "SQ":
            return DataElement(element.tag, element.VR, element.value)
        items = [self._cleaned(item, patient) for item in element.value]
        return DataElement(element.tag, "SQ", items)

    def _replaced(
        self, element: DataElement, step: Action, patient: "_Patient"
    ) -> DataElement | None:
        if step is Action.REMOVE:
            return None
        if step is Action.EMPTY:
            if int(element.tag) in _NEVER_EMPTY:
                return None
            return DataElement(element.tag, element.VR, element.empty_value)
        if element.VR == "SQ":
            if step is Action.UID:
                return self._same(element, patient)
            items = [self._dummy_item(item) for item in element.value]
            return DataElement(element.tag, "SQ", items)
        return self._dummy(element)

    def _dummy(self, element: DataElement) -> DataElement:
        if element.VR == "UI":
            value = element.value
            many = [value] if isinstance(value, str) else list(value)
            new = [self.uid(str(uid)) for uid in many]
            return DataElement(element.tag, "UI", new[0] if len(new) == 1 else new)
        return DataElement(element.tag, element.VR, DUMMIES[element.VR])

    def _dummy_item(self, item: Dataset) -> Dataset:
        """An item all of whose values are dummies."""
        new = Dataset()
        for element in item:
            if element.tag.is_private:
                continue
            if element.VR == "SQ":
                inner = [self._dummy_item(child) for child in element.value]
                new.add(DataElement(element.tag, "SQ", inner))
            else:
                new.add(self._dummy(element))
        return new

    def _mark(self, dataset: Dataset) -> None:
        """Say in the object what was done with it."""
        shifted = self._config.dates == "shift"
        methods = [("113100", "Basic Application Confidentiality Profile")]
        if shifted:
            meaning = "Retain Longitudinal Temporal Information Modified Dates Option"
            methods.append(("113107", meaning))
        if self._config.retain_patient:
            methods.append(("113108", "Retain Patient Characteristics Option"))
        if self._config.retain_device:
            methods.append(("113109", "Retain Device Identity Option"))
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = f"raypipe, PS3.15 Table E.1-1 {self._profile.edition}"
        dataset.LongitudinalTemporalInformationModified = "MODIFIED" if shifted else "REMOVED"
        dataset.DeidentificationMethodCodeSequence = [
            _code_item(value, meaning) for value, meaning in methods
        ]


class _Patient:
    """Whose object it is: the name that keys ids, and the shift of dates."""

    def __init__(self, owner: Deidentifier, dataset: Dataset) -> None:
        issuer = str(dataset.get("IssuerOfPatientID") or "")
        own = str(dataset.get("PatientID") or "").strip()
        self.name = f"{issuer} {own}" if own else str(dataset.get("StudyInstanceUID") or "")
        digest = owner.identifier("dates", self.name or "nobody")
        self._days = 1 + int(digest, 16) % 1826
        self._shift = owner._config.dates == "shift"

    def shifts(self, element: DataElement) -> bool:
        """Whether an element is a date or time that is moved instead of taken out."""
        return self._shift and element.VR in ("DA", "DT", "TM") and element.tag not in _BIRTH

    def shifted(self, element: DataElement) -> str | list[str] | None:
        """The moved value; None where nothing is moved or the value is no date."""
        if not self.shifts(element):
            return None
        value = element.value
        many = [value] if isinstance(value, str) else list(value)
        try:
            new = [self._moved(str(text), element.VR) for text in many]
        except ValueError:
            return None
        return new[0] if len(new) == 1 else new

    def _moved(self, text: str, vr: str) -> str:
        if vr == "TM":
            return text
        day = datetime.strptime(text[:8], "%Y%m%d") - timedelta(days=self._days)
        return f"{day:%Y%m%d}{text[8:]}"


def kept_tags(profile: Profile, config: ExportConfig) -> frozenset[int]:
    """Tags of the table that the options keep as they are."""
    keys = (profile.retain_device if config.retain_device else frozenset()) | (
        profile.retain_patient if config.retain_patient else frozenset()
    )
    return frozenset(int(key, 16) for key in keys)


def _code_item(value: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "DCM", meaning
    return item


def _tag(keyword: str) -> int:
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return int(tag)


_KEYED_IDS = {
    _tag("PatientID"): "patient",
    _tag("PatientName"): "patient",
    _tag("AccessionNumber"): "accession",
}
_NEVER_EMPTY = frozenset({_tag("ReferencedStudySequence")})
"""X/Z sequences that are optional in every IOD of today, where empty means wrong."""

_META = frozenset(
    _tag(keyword)
    for keyword in (
        *("FileMetaInformationVersion", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"),
        *("TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName"),
    )
)
_BIRTH = (_tag("PatientBirthDate"), _tag("PatientBirthTime"))

DUMMIES: dict[str, Any] = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS"), "0"),
    **dict.fromkeys(("FD", "FL"), 0.0),
    **dict.fromkeys(("SS", "US", "SL", "UL", "SV", "UV", "AT"), 0),
    **dict.fromkeys(("OB", "OW", "OF", "OD", "OL", "OV", "UN"), b"\0" * 8),
    "AS": "000Y",
    "PN": "REMOVED^",
    "DA": "19000101",
    "DT": "19000101000000",
    "TM": "000000",
    "UR": "http://removed.invalid",
}
"""A value for each VR that says nothing."""
