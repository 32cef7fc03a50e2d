"""raypipe/archive/images.py: pictures of slices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.archive.images import read_image
from raypipe.errors import Reason, SeriesError
from raypipe.phantom import Phantom, write_image
from raypipe.types import Flag


def grey() -> np.ndarray[Any, Any]:
    return np.tile(np.arange(256, dtype=np.uint8), (8, 1))


def test_phantom_slice_keeps_its_window(tmp_path: Path, phantom: Phantom) -> None:
    path = write_image(phantom, tmp_path / "a.png", z=5)
    volume = read_image(path.read_bytes(), max_voxels=10**6)
    wanted = phantom.volume.hu[5].clip(-160, 240)
    assert np.abs(volume.hu[0].astype(int) - wanted).max() <= 1
    assert volume.flags == (Flag.NO_GEOMETRY, Flag.NO_HU, Flag.SINGLE_SLICE)


def test_first_column_is_the_patients_right(tmp_path: Path) -> None:
    Image.fromarray(grey()).save(tmp_path / "a.png")
    geometry = read_image((tmp_path / "a.png").read_bytes(), max_voxels=10**6).geometry
    assert geometry.shape_zyx == (1, 8, 256)
    np.testing.assert_allclose(geometry.to_lps_mm((0, 1, 2)), (2, 1, 0))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "LA", "I;16"])
def test_grey_in_any_mode(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(grey())
    if mode == "I;16":
        picture = Image.fromarray(grey().astype(np.uint16) * 257)
    elif mode != "L":
        picture = picture.convert(mode)
    picture.save(tmp_path / "a.png")
    hu = read_image((tmp_path / "a.png").read_bytes(), max_voxels=10**6).hu
    np.testing.assert_allclose(hu[0, 0], -160 + np.arange(256) * 400 / 255, atol=0.51)


def test_jpeg_is_found_by_content(tmp_path: Path, index: Callable[[Path], Any]) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(grey()).save(tmp_path / "in" / "a.txt", format="JPEG")
    (row,) = index(tmp_path / "in")
    assert (row["status"], row["kind"], row["transfer_syntax"]) == ("ok", "image", "jpeg")
    assert row["shape_zyx"] == [1, 8, 256] and row["spacing_zyx_mm"] is None
    assert row["flags"] == ["no_geometry", "no_hu", "single_slice"]


def test_what_is_refused(tmp_path: Path, index: Callable[[Path], Any]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    colour = np.zeros((8, 8, 3), dtype=np.uint8)
    colour[:4, :, 0] = 200
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(grey()).save(folder / "grey.png")

    def reason_of(content: bytes, max_voxels: int = 10**6) -> Reason:
        with pytest.raises(SeriesError) as caught:
            read_image(content, max_voxels=max_voxels)
        return caught.value.reason

    content = (folder / "grey.png").read_bytes()
    assert reason_of((folder / "colour.png").read_bytes()) is Reason.UNSUPPORTED_COLOR
    assert reason_of(content[: len(content) // 2]) is Reason.PIXELS_UNREADABLE
    assert reason_of(content, max_voxels=5) is Reason.TOO_LARGE
    (folder / "broken.png").write_bytes(content[:20])
    rows = {Path(r["instances"][0]["uri"]).name: r["reason"] for r in index(folder)}
    assert rows == {"colour.png": None, "grey.png": None, "broken.png": "header_unreadable"}
