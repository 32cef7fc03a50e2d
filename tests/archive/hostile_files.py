"""Files that hostile archives are made of, and how what becomes of them is told.

In: folders and files. Out: how each file of an archive ended.
Does not know: which ending is right.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

from raypipe.archive.index import IndexConfig, IndexSummary, build_index
from raypipe.archive.manifest import read_manifest, series_ref
from raypipe.archive.read import ArchiveConfig, decode_series
from raypipe.archive.storage import StorageConfig
from raypipe.errors import SeriesError
from tests.archive.ct_files import ct_dataset, tissue

Rows = list[dict[str, Any]]


def ct_bytes(z_mm: float = 0.0, **elements: Any) -> bytes:
    ds = ct_dataset(tissue(), z_mm, **elements)
    ds["PixelData"].VR = "OW"
    file = io.BytesIO()
    ds.save_as(file, enforce_file_format=True)
    return file.getvalue()


def scan_into(source: Path, out: Path, **storage: Any) -> tuple[Rows, IndexSummary]:
    config = StorageConfig(**storage)
    summary = build_index(str(source), str(out), IndexConfig(), storage=config)
    return read_manifest(str(out), config).to_pylist(), summary


def load(row: dict[str, Any], **config: Any) -> str:
    """How a row ends when it is loaded."""
    if row["status"] != "ok":
        return str(row["reason"])
    try:
        decode_series(series_ref(row), ArchiveConfig(**config))
    except SeriesError as error:
        return error.reason.value
    return "ok"


def endings(source: Path, out: Path) -> dict[str, str]:
    """Name of every file or member -> how it ended; nothing is named twice."""
    found: dict[str, str] = {}
    for row in scan_into(source, out)[0]:
        for instance in row["instances"] + row["repeated"]:
            name = instance["uri"].removeprefix(f"{source}/")
            assert name not in found, f"{name} is in two rows"
            found[name] = load(row)
    return found


def bomb(mib: int, name: str = "zeros", method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open(name, "w") as member:
        for _ in range(mib):
            member.write(bytes(1 << 20))
    return file.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()
