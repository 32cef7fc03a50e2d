import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.errors import Reason, SeriesError
from raypipe.geometry import Box, Geometry
from raypipe.knowledge.windows import LUNG, SOFT_TISSUE
from raypipe.sink.page_views import STRUCTURED_NOTICE
from raypipe.sink.pages import NOTICE, PageOptions, write_pages
from raypipe.sink.pictures import Viewer, around
from raypipe.sink.plain_words import FLAG_WORDS, REASON_WORDS
from raypipe.types import Flag, Volume

SMALL = PageOptions(slice_px=80, zoom_px=64, tile_px=32, montage_tiles=4, montage_columns=2)


def _volume(
    directions: list[list[float]] | None = None, shape: tuple[int, int, int] = (8, 20, 24)
) -> Volume:
    """A block of soft tissue near the front, the right and the feet, in air."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(directions or [[0, 0, 2], [0, 2, 0], [4, 0, 0]], float)
    geometry = Geometry(shape_zyx=shape, affine_zyx_to_lps=affine)
    hu = np.full(shape, -1000, np.int16)
    hu[1:3, 2:8, 3:9] = 40
    return Volume(hu=hu, geometry=geometry, thickness_mm=4.0)


def _finding(name: str = "F1", **changes: Any) -> dict[str, Any]:
    return {
        "finding_id": name, "label": "pulmonary_nodule", "box_lower_zyx": [1.0, 2.0, 3.0],
        "box_upper_zyx": [3.0, 8.0, 9.0], "center_lps_mm": [0.0, 0.0, 0.0],
        "size_zyx_mm": [8.0, 12.0, 12.0], "diameter_mm": 12.0, "mean_hu": -31.0, "side": "right",
        "level": "lower_third", "score": 0.9, "probability": None, "key_slice": 1,
        "attributes": [{"name": "margin", "value": "ill_defined"}],
    } | changes  # fmt: skip


def _row(key: str = "abc", **changes: Any) -> dict[str, Any]:
    report = {
        "technique": "CT.", "model": "echo", "tokens": 5, "needs_review": True,
        "review_reasons": ["number_differs"],
        "findings": [{"text": "A nodule <b>bold</b>.", "finding_ids": ["F1"]},
                     {"text": "No effusion.", "finding_ids": []}],
        "impression": [{"text": "Nodule.", "finding_ids": ["F1"]}],
    }  # fmt: skip
    return {
        "series_key": key, "status": "ok", "reason": None, "message": None, "kind": "dicom",
        "body_part": "chest", "flags": ["gantry_tilt"], "shape_zyx": [8, 20, 24],
        "spacing_zyx_mm": [4.0, 2.0, 2.0], "thickness_mm": 4.0, "findings": [_finding()],
        "report": report, "timings": {"load": 1.25, "detect": None},
        "provenance": {"raypipe": "0.1", "weights_hash": None},
    } | changes  # fmt: skip


class _Page(HTMLParser):
    """Collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def having(self, name: str) -> list[tuple[str, dict[str, str | None]]]:
        return [(tag, attrs) for tag, attrs in self.tags if name in attrs]


def _read(path: Path) -> tuple[_Page, str]:
    text = path.read_text(encoding="utf-8")
    return _Page(text), text


def test_one_page_a_row_and_an_index(tmp_path: Path) -> None:
    rows = [_row("a/b"), _row("a_b"), _row("index", status="rejected", reason="localizer")]
    paths = write_pages(rows, lambda row: _volume(), tmp_path, SMALL)
    assert [p.name for p in paths] == ["index.html", "a_b.html", "a_b-2.html", "index_.html"]
    page, _ = _read(paths[0])
    links = [attrs["href"] for tag, attrs in page.tags if tag == "a"]
    assert links == ["a_b.html", "a_b-2.html", "index_.html"]
    assert NOTICE in page.text
    counts = re.findall(r"(\d+)(series|ok|rejected|failed|findings|need review)", page.text)
    assert {what: int(n) for n, what in counts} == {
        "series": 3, "ok": 2, "rejected": 1, "failed": 0, "findings": 3, "need review": 3,
    }  # fmt: skip


def test_a_page_needs_no_network_and_escapes_text(tmp_path: Path) -> None:
    page, text = _read(write_pages([_row()], lambda row: _volume(), tmp_path, SMALL)[1])
    for _, attrs in page.having("src") + page.having("href"):
        target = attrs.get("src") or attrs.get("href") or ""
        assert target.startswith(("data:image/", "#")) or target == "index.html"
    assert "://" not in re.sub(r"data:image/[^\"]+", "", text)
    assert "@import" not in text and "url(" not in text
    assert "A nodule <b>bold</b>." in page.text
    assert "<b>bold" not in text


def test_classes_are_shown_with_what_they_are_not(tmp_path: Path) -> None:
    classes = {
        "nodule_mean_diameter_mm": 7.0, "nodule_size_class": "6_to_8_mm",
        "nodule_type": "part_solid", "renal_attenuation_class": None,
    }  # fmt: skip
    finding = _finding(structured=classes)
    with_classes, plain = _row(findings=[finding]), _row("old")
    paths = write_pages([with_classes, plain], lambda row: _volume(), tmp_path, SMALL)
    page, _ = _read(paths[1])
    for expected in ("6 to 8 mm", "part-solid", "7 mm", "Fleischner bounds", STRUCTURED_NOTICE):
        assert expected in page.text, expected
    for promise in ("no category of management", "no Bosniak class", "Nothing is recommended"):
        assert promise in page.text
    old, _ = _read(paths[2])  # rows of before have no classes
    assert "Fleischner" not in old.text


def test_a_sentence_shows_the_score_of_its_findings(tmp_path: Path) -> None:
    row = _row()
    row["report"]["findings"][0]["score"] = 0.87
    page, _ = _read(write_pages([row], lambda row: _volume(), tmp_path, SMALL)[1])
    titles = [attrs["title"] for tag, attrs in page.having("title") if tag == "a"]
    assert titles == ["lowest score of its findings: 0.87"]


def test_the_facts_are_in_words(tmp_path: Path) -> None:
    page, _ = _read(write_pages([_row()], lambda row: _volume(), tmp_path, SMALL)[1])
    for expected in (
        "8 \u00d7 20 \u00d7 24", "4, 2, 2 mm", FLAG_WORDS["gantry_tilt"], "pulmonary nodule",
        "ill defined", "lower third", "\u221231", "12.0", "number differs",
        "1.25 s", "needs review", "slice 2 of 8, ", NOTICE,
    ):  # fmt: skip
        assert expected in page.text, expected


def test_sentences_marks_and_rows_share_the_finding(tmp_path: Path) -> None:
    page, _ = _read(write_pages([_row()], lambda row: _volume(), tmp_path, SMALL)[1])
    linked = [
        (tag, attrs["data-ids"], attrs.get("class")) for tag, attrs in page.having("data-ids")
    ]
    assert sum(tag == "a" and kind == "sentence" for tag, _, kind in linked) == 2
    assert ("tr", "F1", None) in linked
    assert any(kind == "mark" for _, _, kind in linked)
    assert {ids for _, ids, _ in linked} == {"F1"}
    assert [attrs["id"] for _, attrs in page.having("id")] == ["F1"]


def test_a_mark_lies_on_the_lesion(tmp_path: Path) -> None:
    _, text = _read(write_pages([_row()], lambda row: _volume(), tmp_path, SMALL)[1])
    uri = re.search(r'<img src="data:image/\w+;base64,([^"]+)"', text)
    number = r"([\d.]+)%"
    wanted = rf'class="mark" .*?left: {number}; top: {number}; width: {number}; height: {number}'
    style = re.search(wanted, text)
    assert uri and style
    grey = np.array(Image.open(io.BytesIO(base64.b64decode(uri.group(1)))).convert("L"))
    left, top, width, height = (float(v) / 100 for v in style.groups())
    assert (left, top, width, height) == pytest.approx((3 / 24, 2 / 20, 6 / 24, 6 / 20))
    rows, columns = grey.shape
    inside = np.zeros(grey.shape, bool)
    inside[round(top * rows) + 2 : round((top + height) * rows) - 2,
           round(left * columns) + 2 : round((left + width) * columns) - 2] = True  # fmt: skip
    assert grey[inside].min() > 200
    far = grey[round((top + height) * rows) + 4 :]
    assert far.max() < 80


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pictures_have_the_usual_way_round_whatever_the_grid(sign: float) -> None:
    # x to the right and y to the front, as NIfTI has it, or the usual way round
    volume = _volume([[0, 0, 2 * sign], [0, 2 * sign, 0], [4, 0, 0]])
    viewer = Viewer(volume)
    box = viewer.box(Box(lower_zyx=(1, 2, 3), upper_zyx=(3, 8, 9)))
    picture = viewer.picture("axial", 1, SOFT_TISSUE, width_px=240, boxes=[("F1", box)])
    assert picture.edges == ("A", "L", "P", "R") and picture.height == 200
    (mark,) = picture.marks
    expected = 3 / 24 if sign > 0 else (24 - 9) / 24
    assert mark.left == pytest.approx(100 * expected)
    seen = viewer.slice("axial", 1)
    index = np.argwhere(seen > 0)
    assert index.min(axis=0)[1] == round(mark.left / 100 * 24)


def test_a_coronal_series_shows_coronal_key_slices() -> None:
    volume = _volume([[0, 0, 2], [4, 0, 0], [0, -2, 0]])
    viewer = Viewer(volume)
    assert viewer.native_plane == "coronal"
    assert viewer.shape == (20, 8, 24) and viewer.spacing_mm == (2.0, 4.0, 2.0)
    box = viewer.box(Box(lower_zyx=(1, 2, 3), upper_zyx=(3, 8, 9)))
    assert box.lower_zyx == (12, 1, 3) and box.upper_zyx == (18, 3, 9)
    top = np.argwhere(viewer.slice("coronal", viewer.native_index(1)) > 0).min(axis=0)
    assert tuple(top) == (2, 3)
    wide = around(viewer, "coronal", box, least_mm=20)
    assert wide.lower_zyx <= box.lower_zyx and max(wide.upper_zyx) <= 24


def test_sagittal_pictures_have_the_right_proportions() -> None:
    picture = Viewer(_volume()).picture("sagittal", 5, LUNG, width_px=100)
    assert picture.height == pytest.approx(100 * (8 * 4) / (20 * 2), abs=1)
    assert picture.edges == ("H", "P", "F", "A")


def test_a_series_without_pictures_still_has_its_page(tmp_path: Path) -> None:
    def gone(row: object) -> Volume | None:
        raise SeriesError(Reason.SOURCE_MISSING, "the object is gone")

    for load in (gone, lambda row: None):
        page, text = _read(write_pages([_row()], load, tmp_path, SMALL)[1])
        assert "could not be loaded" in page.text and "data:image" not in text
        assert [attrs["id"] for _, attrs in page.having("id")] == ["F1"]


def test_a_rejected_row_says_why_and_loads_nothing(tmp_path: Path) -> None:
    def never(row: object) -> Volume | None:
        raise AssertionError("pixels of a rejected series were asked for")

    row = {"series_key": "x", "status": "rejected", "reason": "slice_gap", "message": "gap 9 mm"}
    page, _ = _read(write_pages([row], never, tmp_path, SMALL)[1])
    assert REASON_WORDS["slice_gap"] in page.text and "gap 9 mm" in page.text


def test_a_picture_without_hu_or_geometry(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    hu = rng.integers(0, 256, (1, 30, 30)).astype(np.int16)
    flags = (Flag.NO_GEOMETRY, Flag.NO_HU, Flag.SINGLE_SLICE)
    geometry = Geometry(shape_zyx=hu.shape, affine_zyx_to_lps=np.diag([1.0, 1, 1, 1])[[2, 1, 0, 3]])
    volume = Volume(hu=hu, geometry=geometry, flags=flags)
    finding = _finding(box_lower_zyx=[0, 2, 3], box_upper_zyx=[1, 9, 9], key_slice=0, mean_hu=None)
    row = _row(flags=[str(f) for f in flags], findings=[finding])
    _, text = _read(write_pages([row], lambda _: volume, tmp_path, SMALL)[1])
    assert "grey window" in text and 'class="edge' not in text


def test_every_flag_and_reason_has_words() -> None:
    assert set(FLAG_WORDS) == set(Flag)
    assert set(REASON_WORDS) == set(Reason)


def test_without_a_scale_no_length_is_told(tmp_path: Path) -> None:
    picture = _row(flags=["no_geometry", "no_hu", "single_slice"], thickness_mm=None)
    page, _ = _read(write_pages([picture], lambda row: _volume(), tmp_path, SMALL)[1])
    told = page.text[page.text.index("1 finding") :]
    assert "12.0" not in told and "8 \u00d7" not in told and "Diameter mm" in told
    assert "4, 2, 2 mm" not in page.text


def test_no_page_takes_the_place_of_another(tmp_path: Path) -> None:
    keys = ("a/b", "a_b-2", "a_b", "A_B", "INDEX")
    paths = write_pages([_row(key) for key in keys], lambda row: None, tmp_path, SMALL)
    assert len({path.name.lower() for path in paths}) == len(keys) + 1
    assert [_read(path)[0].text.count(key) > 0 for path, key in zip(paths[1:], keys, strict=True)]
