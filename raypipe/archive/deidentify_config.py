"""What may leave the archive: the settings of de-identification.

In: keyword arguments. Out: a frozen ExportConfig. Does not know: DICOM.
"""

from typing import Literal

from pydantic import Field

from raypipe.settings import Settings


class ExportConfig(Settings):
    """Whose name stands on what leaves the archive."""

    identity: Literal["keyed", "source"] = Field(
        "keyed",
        description="keyed: UIDs and ids are keyed hashes and all else that may name somebody is "
        "taken out (DICOM PS3.15 Annex E). source: as in the archive, for a PACS that has to find "
        "the study.",
    )
    dates: Literal["remove", "shift"] = Field(
        "remove",
        description="remove: no dates and times. shift: whole days back, 1 to 1826, the same for "
        "all of one patient, so that intervals stay; needs index.hash_key.",
    )
    retain_device: bool = Field(False, description="Keep names and serial numbers of devices.")
    retain_patient: bool = Field(
        False, description="Keep sex, age, size, weight, ethnic group, smoking, pregnancy."
    )
    burned_in: Literal["refuse", "accept"] = Field(
        "refuse", description="What happens to pixels that may show text."
    )
