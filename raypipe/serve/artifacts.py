"""What is made of a finished series: DICOM SR and SEG, FHIR, PDF, the volume, the attention map.

In: a job in the store and the key of a series. Out: files in the store.
Does not know: Ray, HTTP, who asks.

SR, SEG and FHIR are made together and once, so that all carry the same keyed UIDs.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.archive.deidentify import Deidentifier
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import read_series
from raypipe.config import RaypipeConfig
from raypipe.exports import FILE_NAMES, Format, export_row
from raypipe.geometry import Geometry
from raypipe.serve.store import JobStore, Row
from raypipe.sink.dicom_json import attributes
from raypipe.sink.nifti import nifti_bytes
from raypipe.types import SeriesRef, Volume
from raypipe.volume.assemble import to_volume

EXPORTS = "exports.json"
"""What was made and why something was not; it is there once the exports are."""

VOLUME, ATTENTION, PDF = "volume.nii.gz", "attention.nii.gz", "report.pdf"
STUDY_TAG = "0020000D"


def out(series_key: str, name: str) -> str:
    """Where something of a series lies within its job."""
    return f"out/{series_key}/{name}"


def manifest_row(store: JobStore, job_id: str, key: str, config: RaypipeConfig) -> Row:
    """The row of the manifest of a series."""
    rows = read_manifest(store.address(job_id, "manifest"), config.archive.storage).to_pylist()
    found: Row = next(row for row in rows if row["series_key"] == key)
    return found


def make_exports(store: JobStore, job_id: str, key: str, config: RaypipeConfig) -> list[str]:
    """Write SR, SEG and FHIR of a series; the StudyInstanceUIDs of what was written."""
    row = next(row for row in store.get_rows(job_id) if row["series_key"] == key)
    listed = manifest_row(store, job_id, key, config)
    ref: SeriesRef | None = None if listed["kind"] is None else series_ref(listed)
    keyed = config.export.identity == "keyed"
    deidentifier = Deidentifier(config.export, config.index.hash_key) if keyed else None
    exported = export_row(row, ref, tuple(Format), config.archive.storage, deidentifier)
    instances: list[dict[str, Any]] = []
    for format_, content in exported.contents.items():
        store.put(job_id, out(key, FILE_NAMES[format_]), content)
        if format_ is not Format.FHIR:
            instances.append({"file": FILE_NAMES[format_], "attributes": attributes(content)})
    record = {"missing": exported.missing, "instances": instances}
    store.put(job_id, out(key, EXPORTS), json.dumps(record).encode())
    return list(dict.fromkeys(i["attributes"][STUDY_TAG]["Value"][0] for i in instances))


def make_volume(store: JobStore, job_id: str, key: str, config: RaypipeConfig) -> None:
    """Write the volume that a series was read as.

    Raises:
        SeriesError: its source cannot be read any more.
    """
    ref = series_ref(manifest_row(store, job_id, key, config))
    volume: Volume = to_volume(read_series(ref, config.archive), config.volume)
    store.put(job_id, out(key, VOLUME), nifti_bytes(volume.hu, volume.geometry))


def keep_attention(
    store: JobStore, job_id: str, key: str, values: NDArray[np.float32], geometry: Geometry
) -> None:
    """Write an attention map."""
    store.put(job_id, out(key, ATTENTION), nifti_bytes(values, geometry))
